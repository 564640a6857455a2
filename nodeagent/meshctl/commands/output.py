"""How commands answer: the option `-o`, and one answer or line in the form that it names.

Colours are for terminals only, which click sees to; that NO_COLOR is set, `nodeagent.meshctl.main` tells it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import click
import msgspec
import yaml

from nodeagent.meshctl.plain import harmless
from nodeagent.meshctl.table import Table, wrapped

Output = Literal["text", "json", "yaml"]
PROGRAMS = ("json", "yaml")
"""The forms for programs, which every command has that answers."""


def output_option(*further: str, help: str = "For people, or for programs.") -> Callable[..., Any]:  # noqa: A002
    """Return the option `-o`, with `further` forms between those for people and those for programs."""
    return click.option(
        "-o",
        "--output",
        "--format",
        "output",
        type=click.Choice(["text", *further, *PROGRAMS]),
        default="text",
        show_default=True,
        help=help,
    )


def print_answer(output: str, document: Any, lines: Iterable[str | Table] = (), fold: int = 0) -> None:
    """Print a document as JSON or YAML, or the lines that say the same to people; `fold` as in
    `print_lines`.
    """
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
    elif output == "yaml":
        click.echo(_yaml(document), nl=False)
    else:
        print_lines(lines, fold)


def print_lines(lines: Iterable[str | Table], fold: int = 0) -> None:
    """Print for people. On a terminal tables are made to fit, and with `fold` long lines are broken between
    words, each new line indented by so much. Text of others cannot command the terminal (`harmless`).
    """
    width = terminal_width()
    for one in lines:
        if isinstance(one, Table):
            parts = [*one.lines(width)]
        else:
            parts = wrapped(one, width, fold) if fold and width is not None else [one]
        for part in parts:
            click.echo(harmless(part))


def terminal_width() -> int | None:
    """Return the columns of the terminal; None: what is printed goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_record(output: str, fields: Mapping[str, Any]) -> None:
    """Print one of many objects for a program: a line of JSON, or a document of YAML."""
    if output == "yaml":
        click.echo("---\n" + _yaml(fields), nl=False)
    else:
        click.echo(msgspec.json.encode(fields))


def _yaml(document: Any) -> str:
    text: str = yaml.safe_dump(msgspec.to_builtins(document), sort_keys=False, allow_unicode=True)
    return text
