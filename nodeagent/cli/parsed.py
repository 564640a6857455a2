"""Values on a command line that a parser of ours reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class Parsed(click.ParamType[Any]):
    """A value that one of our parsers reads; its ValueError becomes click's message."""

    def __init__(self, name: str, values: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self.values = values
        """What may be given, in words; `docs/nodeagent.md` shows it."""
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse text; pass on what is parsed already (a default)."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ParsedLines(Parsed):
    """The same for a flag that may be given several times; its variable has a value on each line."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the lines."""
        return [line.strip() for line in rv.splitlines() if line.strip()]
