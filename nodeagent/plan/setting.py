"""Annotations that no middleware reads and that belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from middleware.contract import Annotation


class Setting(msgspec.Struct, frozen=True):
    """The same fields as a `Middleware` has for reading its annotations."""

    name: str
    annotations: tuple[Annotation, ...]
    parse: Callable[[Mapping[str, str]], Any]
    page: str = ""
    """The page in `docs/` that says more; empty if there is none."""
