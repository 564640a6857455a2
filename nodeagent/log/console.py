"""The form of a line for a person: time and event, then the Service and what it got, then the rest.

On a terminal a line keeps to the width. One that only informs is cut at the end, where the least important
keys are, and ends with `…`; a warning or error is wrapped instead, for nothing of it may be missing. Where
the width is not known (a file, a pipe) a line is as long as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

EVENT_WIDTH: Final = 18
"""Columns of the event, so that what follows stands in line for nearly all."""
NARROWEST: Final = 40
"""A terminal that says it is narrower is treated as if it had this many columns."""
INDENT: Final = "    "
"""Of the further lines of a wrapped one, and of tracebacks."""

_RESET = "\x1b[0m"
_DIM, _BOLD = "\x1b[2m", "\x1b[1m"
_RED, _GREEN, _YELLOW, _CYAN = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"
_OF_LEVEL = {"debug": _DIM, "info": _BOLD, "warning": _BOLD + _YELLOW, "error": _BOLD + _RED}
_OF_STATUS = {2: _GREEN, 3: _GREEN, 4: _YELLOW, 5: _RED}
_SEVERE = ("warning", "error")
_BLOCKS = ("traceback", "exception")
"""Keys that have many lines."""
_SHOWN_FIRST = ("service", "status", "method", "path")
"""These stand without their names, in this order; the port stands with its Service."""
_THEN = ("object", "field", "value", "reason", "detail", "decided")
_LAST = ("worker",)
_WHOLE = ("decided",)
"""What is not cut in its middle: how the first tries ended is as important as the last."""


class _Part(NamedTuple):
    """Text that belongs together, in one colour."""

    text: str
    style: str = ""
    cuttable: bool = False


def uses_colour(terminal: bool, environment: Mapping[str, str]) -> bool:
    """Return whether lines are coloured: `NO_COLOR` (https://no-color.org) before all others."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return terminal and environment.get("TERM") != "dumb"


def terminal_width(descriptor: int) -> int:
    """Return how many columns the terminal has now; 0 if it is none, or does not say."""
    try:
        return os.get_terminal_size(descriptor).columns
    except OSError:
        return 0


class ConsoleForm:
    """Renders the keys of an event. `width` is asked for each line: people resize their windows."""

    def __init__(
        self,
        colour: bool,
        width: Callable[[], int] = lambda: 0,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._colour = colour
        self._width = width
        self._now = now

    def __call__(self, event: Mapping[str, Any]) -> str:
        """Return the line; `event` has at least `level` and `event`."""
        level = event["level"]
        blocks = [str(event[key]) for key in _BLOCKS if event.get(key)]
        parts = list(self._parts(event, level))
        width = self._width()
        if not width:
            lines = [parts]
        elif level in _SEVERE:
            lines = list(_wrapped(parts, max(width, NARROWEST)))
        else:
            lines = [_cut(parts, max(width, NARROWEST))]
        shown = [" ".join(map(self._styled, line)).rstrip() for line in lines]
        for block in blocks:
            shown += [INDENT + printable(line) for line in block.rstrip().split("\n")]
        return "\n".join(shown)

    def of_struct(self, line: msgspec.Struct) -> bytes:
        """Return the line of a struct; its time is shown as those of all lines are."""
        event = msgspec.to_builtins(line)
        event.pop("time", None)
        return self(event).encode("utf-8", "backslashreplace")

    def _parts(self, event: Mapping[str, Any], level: str) -> Iterator[_Part]:
        yield _Part(self._now().strftime("%H:%M:%S.%f")[:-3], _DIM)
        yield _Part(f"{event['event']:<{EVENT_WIDTH}}", _OF_LEVEL[level])
        if level != "info":
            yield _Part(level, _OF_LEVEL[level])
        service, port = event.get("service"), event.get("port")
        if service:
            yield _Part(str(service) if port is None else f"{service}:{port}", _CYAN)
        if "status" in event:
            status = event["status"]
            style = _OF_STATUS.get(status // 100, "") if isinstance(status, int) else ""
            yield _Part(str(status), style)
        for key in ("method", "path"):
            if event.get(key):
                yield _Part(_shown(event[key]), cuttable=True)
        rest = [key for key in event if key not in _PLACED and not (service and key == "port")]
        for key in (*_THEN, *rest, *_LAST):
            if event.get(key, "") != "":
                yield _Part(f"{key}={_shown(event[key])}", cuttable=key not in _WHOLE)

    def _styled(self, part: _Part) -> str:
        return f"{part.style}{part.text}{_RESET}" if self._colour and part.style else part.text


_PLACED = frozenset(("time", "level", "event", *_SHOWN_FIRST, *_THEN, *_LAST, *_BLOCKS))


def _shown(value: Any) -> str:
    """Return a value so that it is seen where it ends, and cannot end the line or move the cursor."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{key} {one}" for key, one in value.items())
    elif isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = str(value)
    if not text or " " in text or '"' in text:
        return '"' + printable(text).replace('"', '\\"') + '"'
    return printable(text)


def printable(text: str) -> str:
    """Replace what is no visible character by its escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _cut(parts: Iterable[_Part], width: int) -> list[_Part]:
    """Return what finds room in one line; a long value is cut in its middle, so that it does not take all."""
    longest = max(24, width // 3)
    short = [
        part._replace(text=_middle_cut(part.text, longest))
        if part.cuttable and len(part.text) > longest
        else part
        for part in parts
    ]
    if sum(len(part.text) + 1 for part in short) - 1 <= width:
        return short
    line: list[_Part] = []
    room = width - 1  # the last column is for what says that there is more
    for part in short:
        if len(part.text) >= room:
            line.append(part._replace(text=part.text[:room] + "…"))
            break
        line.append(part)
        room -= len(part.text) + 1
    return line


def _middle_cut(text: str, length: int) -> str:
    head = (length - 1) * 2 // 3
    return text[:head] + "…" + text[head + 1 - length :]


def _wrapped(parts: Iterable[_Part], width: int) -> Iterator[list[_Part]]:
    """Yield lines of at most this width that together have everything."""
    line: list[_Part] = []
    room = width
    for part in parts:
        for word in _words(part, width - len(INDENT)):
            if len(word.text) > room and line:
                yield line
                line, room = [_Part(INDENT[1:])], width - len(INDENT)
            line.append(word)
            room -= len(word.text) + 1
    yield line


def _words(part: _Part, longest: int) -> Iterator[_Part]:
    """Yield a part as words none of which is longer than a line; one that pads stays whole."""
    if part.text.endswith(" "):
        yield part
        return
    for word in part.text.split(" "):
        for start in range(0, max(1, len(word)), longest):
            yield _Part(word[start : start + longest], part.style)
