"""Readiness as a file, for probes that must ask exactly this agent.

During an upgrade two agents overlap on a node and both answer at the admin address, so an HTTP probe of the
successor might hear the predecessor. A file in the pod's own file system belongs to this pod alone.
"""

from __future__ import annotations

from pathlib import Path

import structlog

log = structlog.get_logger()


class ReadyFile:
    """A file that is there while the agent is ready. An empty path is no file."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._shown: bool | None = None
        self.show(False)  # a killed predecessor may have left one

    def show(self, ready: bool) -> None:
        """Make or remove the file."""
        if self._path is None or ready is self._shown:
            return
        try:
            if ready:
                self._path.touch()
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            log.error("ready_file_failed", path=str(self._path), reason=error.strerror)  # noqa: TRY400
        else:
            self._shown = ready
