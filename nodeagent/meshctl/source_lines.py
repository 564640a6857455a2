"""Where in a YAML file a field of an object stands, for messages that a person follows with an editor.

An object is known by `FILE:LINE`, the line it starts at; a field by its path, or by the full name of an
annotation. Best effort: what cannot be found is said to be at the nearest line above that can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from discovery.compat import PREFIXES
from discovery.files.documents import split
from discovery.model import ANNOTATION_PREFIX

_STEP = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")


class _Object(NamedTuple):
    node: yaml.Node
    first: int
    """The line of the file that the node's own lines count from."""


class SourceLines:
    """Finds lines; each file is read once."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[int, _Object]] = {}
        """By file: what may be an object, by the line it starts at."""

    def find(self, origin: str, field: str) -> tuple[str, int]:
        """Return file and line of a field of the object at `origin`; line 0 if `origin` names no line."""
        file, colon, number = origin.rpartition(":")
        if not colon or not number.isdigit():
            return origin, 0
        if file not in self._objects:
            self._objects[file] = {found.first + _line(found.node): found for found in _read(file)}
        found = self._objects[file].get(int(number))
        return file, int(number) if found is None else found.first + _find(found.node, field)


def _read(file: str) -> Iterator[_Object]:
    try:
        text = Path(file).read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return
    for chunk in split(text):
        try:
            roots = list(yaml.compose_all(chunk.text, yaml.CSafeLoader))
        except (yaml.YAMLError, RecursionError):
            continue  # it is reported with the line that the parser stopped at
        for root in roots:
            _, items = _member(root, "items")
            several = items.value if isinstance(items, yaml.SequenceNode) else []
            yield from (_Object(node, chunk.line) for node in (root, *several))


def _find(node: yaml.Node, field: str) -> int:
    """Return the line of a field, counted as the node counts: that of its key, or of its entry in a list."""
    line = _line(node)
    for step in _path(field):
        if isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
            node = node.value[int(step)]
            line = _line(node)
            continue
        key, value = _member(node, step)
        if key is None or value is None:
            break
        line, node = _line(key), value
    return line


def _path(field: str) -> list[str]:
    """Return the keys and indices that lead to a field."""
    if field.startswith((ANNOTATION_PREFIX, *PREFIXES)):
        return ["metadata", "annotations", field]
    return [index or key for index, key in _STEP.findall(field)]


def _member(node: yaml.Node | None, name: str) -> tuple[yaml.Node, yaml.Node] | tuple[None, None]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return key, value
    return None, None


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line
