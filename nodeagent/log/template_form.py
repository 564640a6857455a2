r"""The form of a line that somebody has described by a template. It is compiled: see `access_lines`.

A value is written as in a string of JSON, without the quotes around it: a quote or backslash has a backslash
in front, and what is no visible character (a line break, an escape for a terminal, a mark that turns the
direction of writing) stands as `\u001b`. So a request is one line, and cannot close quotes of the template.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final

import msgspec
from msgspec import UNSET

from nodeagent.log.stamps import Stamps
from nodeagent.log.template import CLF_TIME, Template

ABSENT: Final = "-"
"""Stands for a value that there is not, and for an empty one."""
_TIME: Final = "time"
_SHORT: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class TemplateForm:
    """Renders lines by a template."""

    def __init__(self, template: Template, wall: Callable[[], float] = time.time) -> None:
        self._first = template.texts[0]
        self._pieces = list(zip(template.keys, template.texts[1:], strict=True))
        """Keys, each with the text behind it."""
        self._wall = wall
        self._stamp = Stamps()

    def __call__(self, event: Mapping[str, Any]) -> str:
        """Return the line of these keys; its time is now."""
        return self._line(SimpleNamespace(**{**event, _TIME: self._stamp.at(self._wall())}))

    def of_struct(self, line: msgspec.Struct) -> bytes:
        """Return the line of a struct that has `time`."""
        return self._line(line).encode()

    def _line(self, said: object) -> str:
        parts = [self._first]
        for key, text in self._pieces:
            if key == CLF_TIME:
                parts.append(clf_time(getattr(said, _TIME)))
            else:
                parts.append(shown(getattr(said, key, UNSET)))
            parts.append(text)
        return "".join(parts)


def shown(value: object) -> str:
    """Return a value as it stands in a line."""
    if isinstance(value, str):
        if value.isprintable() and '"' not in value and "\\" not in value:
            return value or ABSENT
        return escaped(value)
    if value is UNSET or value is None:
        return ABSENT
    if isinstance(value, int | float):
        return str(value)
    return escaped(str(value)) or ABSENT


def escaped(text: str) -> str:
    """Return text as it stands within a string of JSON."""
    return "".join([_escaped(character) for character in text])


def _escaped(character: str) -> str:
    short = _SHORT.get(character)
    if short is not None:
        return short
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join([f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4)])


def clf_time(stamp: str) -> str:
    """Return the time of a line, `2026-11-28T19:02:21.442246Z`, as `28/Nov/2026:19:02:21 +0000`."""
    return f"{stamp[8:10]}/{_MONTHS[int(stamp[5:7]) - 1]}/{stamp[:4]}:{stamp[11:19]} +0000"
