"""Where in a file a field of an object stands: `FILE:LINE`, which a person opens in an editor.

An object's `origin` is the `FILE:LINE` at which it begins, and its `lines` say how far below that its fields
are. A field that is not among them stands where the nearest one above it does: `spec.ports[7].name` at
`spec.ports`. What the API server sent has no place. Pure.
"""

from __future__ import annotations

import re

Lines = tuple[tuple[str, int], ...]
"""Fields of an object, each with the number of lines between the object's first line and its own."""

_LAST_STEP = re.compile(r"(\.[^.\[\]]+|\[[^\]]*\])\Z")


def is_annotation(field: str) -> bool:
    """Whether a field of a problem is the full name of an annotation, not a path."""
    return "/" in field.partition("[")[0]


def place_of(origin: str, lines: Lines, field: str) -> str:
    """Return the place of a field of the object that begins at `origin`."""
    known = dict(lines)
    if field not in known and is_annotation(field):
        field = "metadata.annotations"
    while field and field not in known:
        shorter = _LAST_STEP.sub("", field)
        field = shorter if shorter != field else ""
    return shifted(origin, known.get(field, 0))


def shifted(place: str, lines: int) -> str:
    """Return the place so many lines below; one that names no line stays as it is."""
    file, line = split_place(place)
    return f"{file}:{line + lines}" if line and lines else place


def split_place(place: str) -> tuple[str, int]:
    """Return file and line; 0 where no line is named."""
    file, colon, line = place.rpartition(":")
    return (file, int(line)) if colon and line.isdecimal() else (place, 0)
