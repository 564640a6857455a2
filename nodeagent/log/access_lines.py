"""Where the lines of the access log go: into the log of the process, but they yield to its other lines.

It is not structlog's way, which costs several times as much for a line of a plain request. It is compiled:
a Service may want a line for every request.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nodeagent.log.forms import LEVELS, Form
from nodeagent.log.writer import LineWriter


class AccessLines:
    """Writes lines of `level` and above."""

    def __init__(self, form: Form, level: str, writer: LineWriter) -> None:
        self._form = form
        self._writer = writer
        self._level = LEVELS[level]

    def takes(self, level: str) -> bool:
        """Return whether lines of this level are written."""
        return LEVELS[level] >= self._level

    def info(self, event: str, about: str, fields: Mapping[str, object]) -> None:
        """Write a line about a Service."""
        self._write("info", event, about, fields)

    def warning(self, event: str, about: str, fields: Mapping[str, object]) -> None:
        """Write a line about a Service that something is wrong with."""
        self._write("warning", event, about, fields)

    def _write(self, level: str, event: str, about: str, fields: Mapping[str, object]) -> None:
        if LEVELS[level] >= self._level:
            line = self._form({"level": level, "event": event, **fields})
            self._writer.write(line + "\n", about, yields=True)

    def write(self, level: str, about: str, line: msgspec.Struct) -> None:
        """Write a line about a Service that has all its keys already, `time` and `level` among them."""
        if LEVELS[level] >= self._level:
            self._writer.write_piece(self._form.of_struct(line) + b"\n", about, yields=True)
