"""Sets up logging: structlog, one line an event, for a person on a terminal and as JSON in a pod.

Events are stable snake_case names; keys are `service` (namespace/name), `port`, `endpoint`, `source`
and `source_pod` (the client), `reason`. Nothing secret is ever logged: no header values, no bodies.

Whatever this process says on standard error goes through a `LineWriter`: events, what libraries log, and the
traceback that Python prints when it fails.
"""

from __future__ import annotations

import atexit
import io
import logging
import sys
import time
import traceback
from typing import Final, Literal

import structlog

from nodeagent.log.budget import LineBudget
from nodeagent.log.writer import LineWriter

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

FLUSH_TIME: Final = 1.0
"""Seconds that the last lines have when the process ends."""
LIBRARY_LINES: Final = 5
"""A second, of all libraries together."""
LONGEST_MESSAGE: Final = 500
"""Characters of what a library says."""
STDERR: Final = 2

_writer = LineWriter(STDERR)


def lost_lines() -> int:
    """Return how many lines of this process could not be written."""
    return _writer.lost


def configure_logging(level: str, log_format: Literal["console", "json"]) -> None:
    """Set up logging for this process.

    The lines are written by a thread, which keeps the capabilities that the caller has at the first line.
    """
    colors = sys.stderr is not None and sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _say_what_was_lost,
    ]
    if log_format == "json":
        chain: list[structlog.typing.Processor] = [
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _first_things_first,
            structlog.processors.JSONRenderer(),
        ]
    else:
        chain = [
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False, key="timestamp"),
            structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=26),
        ]
    structlog.configure(
        processors=[*shared, *chain],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_Logger,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_LibraryLines()]
    root.setLevel(logging.WARNING)
    sys.stderr = _StandardError(colors)
    atexit.register(_writer.close, FLUSH_TIME)


class _Logger:
    """What structlog hands its rendered lines to."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, line: str) -> None:
        # One write for a line with its end: agent and workers share the descriptor.
        _writer.write(line + "\n", _writer.untold)

    debug = info = warning = error = msg


class _StandardError(io.TextIOBase):
    """`sys.stderr` for Python itself and for libraries that print."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal

    def write(self, text: str) -> int:
        _writer.write(text)
        return len(text)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._terminal

    def fileno(self) -> int:
        return STDERR


class _LibraryLines(logging.Handler):
    """Logs what libraries say through `logging` as our own events, bounded."""

    def __init__(self) -> None:
        super().__init__()
        self._budget = LineBudget(LIBRARY_LINES)
        self._log = structlog.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record)
        except Exception:
            self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
        suppressed = self._budget.spend(time.monotonic())
        if suppressed is None:
            return
        fields: dict[str, object] = {
            "library": record.name,
            "message": record.getMessage()[:LONGEST_MESSAGE],
        }
        if record.exc_info and record.exc_info[1] is not None:
            fields["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        if suppressed:
            fields["lines_left_out"] = suppressed
        write = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        write("library_message", **fields)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 logging's own name
        """A message that cannot be made is the library's bug, and nobody else's trouble."""
        self._log.warning("library_message", library=record.name, message="a message that cannot be shown")


def _say_what_was_lost(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if lost := _writer.untold:
        event["log_lines_lost"] = lost
    return event


def _first_things_first(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Put time, level and event in front: people read JSON lines too."""
    first = {name: event.pop(name) for name in ("time", "level", "event")}
    return {**first, **event}
