"""Reads the annotations of an object that are for the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from discovery.manifest.fields import Fields, describe_type, show

MAX_ANNOTATIONS = 512
"""For the mesh; a Service has one of each kind, and one for each of its ports."""
MAX_ANNOTATION_CHARACTERS = 64 * 1024
"""Of their names and values, all together."""


def hold_too_much(fields: Fields, written: Mapping[Any, Any], prefixes: tuple[str, ...], effect: str) -> bool:
    """Return whether there are more annotations with these prefixes than are read, and report it."""
    ours = [(n, v) for n, v in written.items() if isinstance(n, str) and n.startswith(prefixes)]
    size = sum(len(name) + (len(value) if isinstance(value, str) else 0) for name, value in ours)
    if len(ours) <= MAX_ANNOTATIONS and size <= MAX_ANNOTATION_CHARACTERS:
        return False
    fields.report(
        "metadata.annotations",
        f"{len(ours):,} for the mesh, of {size:,} characters",
        "are more than are read",
        f"at most {MAX_ANNOTATIONS} of {MAX_ANNOTATION_CHARACTERS // 1024} Ki characters in all",
        effect,
    )
    return True


def read_annotations(
    fields: Fields, written: Mapping[Any, Any], prefixes: tuple[str, ...]
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the annotations below these prefixes, and those that are no strings with what stands there."""
    kept: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for name, value in written.items():
        if not isinstance(name, str) or not name.startswith(prefixes):
            continue
        if isinstance(value, str):
            kept[name] = value
            continue
        unreadable[name] = show(value)
        quoted = isinstance(value, bool | int | float)
        expected = f'"{show(value)}", in quotes' if quoted else "a string"
        if isinstance(value, bool):  # YAML 1.1 has several words for each, and only one of them is meant
            expected += f'; "{"on" if value else "off"}" if that stands there'
        reason = f"is {describe_type(value)}, and Kubernetes takes only strings"
        fields.report(name, value, reason, expected, "the annotation is ignored")
    return kept, unreadable
