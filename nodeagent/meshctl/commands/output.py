"""How commands answer: the option `-o`, and one answer or line in the form that it names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import click
import msgspec
import yaml

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


def print_answer(output: str, document: Any, lines: Iterable[str] = ()) -> None:
    """Print a document as JSON or YAML, or the lines that say the same to people."""
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
    elif output == "yaml":
        click.echo(_yaml(document), nl=False)
    else:
        for line in lines:
            click.echo(line, color=colour_choice())


def print_record(output: str, fields: Mapping[str, Any]) -> None:
    """Print one of many objects for a program: a line of JSON, or a document of YAML."""
    if output == "yaml":
        click.echo("---\n" + _yaml(fields), nl=False)
    else:
        click.echo(msgspec.json.encode(fields))


def _yaml(document: Any) -> str:
    text: str = yaml.safe_dump(msgspec.to_builtins(document), sort_keys=False, allow_unicode=True)
    return text


def colour_choice() -> bool | None:
    """Return what to give to `click.echo` as `color`: None leaves it to click, colours on a terminal only."""
    return False if os.environ.get("NO_COLOR") else None
