"""Names the middleware that holds a worker's loop and does not let go: from a thread, for the loop cannot.

It is started only where users' middlewares are installed. The agent kills a worker that gives no sign of life
(`worker_hung`); by then the log says why.
"""

from __future__ import annotations

import sys
import threading
import traceback
from typing import Final

import structlog

from middleware.watch import Held, Watch

log = structlog.get_logger()

LOOK: Final = 0.25
"""Seconds between two looks."""
LONG: Final = 1.0
"""Seconds after which a stretch is reported though it has not ended."""


class LayerWatch:
    """Looks at what a loop does; `thread` is the identifier of the loop's thread."""

    def __init__(self, watch: Watch, thread: int) -> None:
        self._watch = watch
        self._thread = thread
        self._told = 0

    def start(self) -> None:
        """Look from now on, as long as the process lives."""
        threading.Thread(target=self._run, name="layer-watch", daemon=True).start()

    def look(self) -> Held | None:
        """Report a stretch that lasts, once; return it if it was reported now."""
        held = self._watch.held()
        if held is None or held.seconds < LONG or held.since == self._told:
            return None
        self._told = held.since
        frame = sys._current_frames().get(self._thread)
        log.error(
            "middleware_blocks",
            middleware=held.place.middleware,
            service=held.place.service,
            port=held.place.port,
            held_ms=round(held.seconds * 1000),
            traceback="".join(traceback.format_stack(frame)) if frame is not None else "",
        )
        return held

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK):
            self.look()
