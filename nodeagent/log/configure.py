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
import os
import sys
import time
import traceback
from typing import Final, Literal

import structlog

from nodeagent.log.access_lines import AccessLines
from nodeagent.log.budget import LineBudget
from nodeagent.log.console import ConsoleForm, terminal_width, uses_colour
from nodeagent.log.forms import LEVELS, Form, JsonForm
from nodeagent.log.gap import Gap
from nodeagent.log.stamps import utc
from nodeagent.log.template import parse_template
from nodeagent.log.template_form import TemplateForm
from nodeagent.log.writer import LineWriter

FLUSH_TIME: Final = 1.0
"""Seconds that the last lines have when the process ends."""
LIBRARY_LINES: Final = 5
"""A second, of all libraries together."""
LONGEST_MESSAGE: Final = 500
"""Characters of what a library says."""
MOST_NAMED: Final = 5
"""Services that the line about a gap names."""
STDERR: Final = 2

_writer = LineWriter(STDERR)


def lost_lines() -> int:
    """Return how many lines of this process could not be written."""
    return _writer.lost


def lost_access_lines() -> int:
    """Return how many of them were of the access log and found no room, because nobody reads fast enough."""
    return _writer.lost_yielding


def configure_logging(level: str, log_format: Literal["console", "json"]) -> Form:
    """Set up logging for this process; return the form that its lines have.

    The lines are written by a thread, which keeps the capabilities that the caller has at the first line.
    """
    terminal = _on_terminal()
    form = _form(log_format)
    _writer.tell_gaps(lambda gap: form(_told(gap)) + "\n")

    def render(_: object, __: str, event: structlog.typing.EventDict) -> str:
        return form(event)

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_Logger,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_LibraryLines()]
    root.setLevel(logging.WARNING)
    sys.stderr = _StandardError(terminal)
    atexit.register(_writer.close, FLUSH_TIME)
    return form


def access_form(given: str, form: Form) -> Form:
    """Return the form of lines of the access log, of what is in `Settings.access_log_format`.

    `form` is that of all other lines.
    """
    if not given:
        return form
    if given == "json":
        return _form("json")
    if given == "console":
        return _form("console")
    return TemplateForm(parse_template(given))


def access_lines(form: Form, level: str) -> AccessLines:
    """Return where this process writes the lines of its access log, those of `level` and above."""
    return AccessLines(form, level, _writer)


def _form(log_format: Literal["console", "json"]) -> Form:
    if log_format == "json":
        return JsonForm()
    return ConsoleForm(uses_colour(_on_terminal(), os.environ), lambda: terminal_width(STDERR))


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _told(gap: Gap) -> dict[str, object]:
    """Return the event that tells of missing lines."""
    named = gap.about.most_common(MOST_NAMED)
    others = gap.lines - sum(number for _, number in named)
    return _event(
        "log_lines_lost",
        "warning",
        lines=gap.lines,
        since=utc(gap.since),
        lasted_ms=round((gap.until - gap.since) * 1000),
        reason=gap.refused or "the reader of the log does not keep up",
        of={**dict(named), **({"others": others} if others else {})},
    )


def _event(name: str, level: str, **fields: object) -> dict[str, object]:
    return {"level": level, "event": name, **fields}


class _Logger:
    """What structlog hands its rendered lines to."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, line: str) -> None:
        _writer.write(line + "\n")

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
