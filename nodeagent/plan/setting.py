"""What reads annotations: a middleware, or a `Setting` of those that no middleware reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from middleware import custom
from middleware.contract import Annotation, Middleware, Problem


class Setting(msgspec.Struct, frozen=True):
    """The same fields as a `Middleware` has for reading its annotations."""

    name: str
    annotations: tuple[Annotation, ...]
    parse: Callable[[Mapping[str, str]], Any]
    page: str = ""
    """The page in `docs/` that says more; empty if there is none."""


Reader = Middleware | Setting


def parse_safely(reader: Reader, annotations: Mapping[str, str]) -> Any:
    """Parse; a middleware that fails (it may not be ours) is switched off, and affects nothing else."""
    try:
        return reader.parse(annotations)
    except Exception as error:
        present = [a.name for a in reader.annotations if a.name in annotations]
        name = (present or [a.name for a in reader.annotations] or [custom.ANNOTATION.name])[0]
        reason = f"the {reader.name} middleware failed to read it: {error!r}"
        return Problem(name, annotations.get(name, ""), reason, "a report to its author")
