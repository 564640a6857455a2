"""How commands print: JSON for programs, colours on a terminal only."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec


def print_json(document: Any) -> None:
    """Print values as JSON, laid out for reading."""
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def colour_choice() -> bool | None:
    """Return what to give to `click.echo` as `color`: None leaves it to click, colours on a terminal only."""
    return False if os.environ.get("NO_COLOR") else None
