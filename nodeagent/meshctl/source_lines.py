"""Where in a YAML file a field of an object stands, for messages that a person follows with an editor.

An object is known by `FILE:LINE`, the line it starts at; a field by its path, or by the full name of an
annotation. Best effort: what cannot be found is said to be at the nearest line above that can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from discovery.compat import PREFIXES
from discovery.files.documents import Unparsable, member, parse_yaml, split
from discovery.model import ANNOTATION_PREFIX

_STEP = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")


class SourceLines:
    """Finds lines; each file is read once."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[int, yaml.Node]] = {}
        """By file: what may be an object, by the line it starts at."""

    def find(self, origin: str, field: str) -> tuple[str, int]:
        """Return file and line of a field of the object at `origin`; line 0 if `origin` names no line."""
        file, colon, number = origin.rpartition(":")
        if not colon or not number.isdigit():
            return origin, 0
        if file not in self._objects:
            self._objects[file] = dict(_read(file))
        found = self._objects[file].get(int(number))
        return file, int(number) + (0 if found is None else _find(found, field))


def _read(file: str) -> Iterator[tuple[int, yaml.Node]]:
    try:
        text = Path(file).read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return
    for chunk in split(text):
        try:
            documents = parse_yaml(chunk)
        except Unparsable:
            continue  # it is reported with the line that the parser stopped at
        for document in documents:
            if document.node is not None:
                for node in (document.node, *document.items):
                    yield document.first + node.start_mark.line, node


def _find(top: yaml.Node, field: str) -> int:
    """Return how many lines below its object a field is: its key, or its entry in a list."""
    node, line = top, top.start_mark.line
    for step in _path(field):
        if isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
            node = node.value[int(step)]
            line = node.start_mark.line
            continue
        key, value = member(node, step)
        if key is None or value is None:
            break
        line, node = key.start_mark.line, value
    return line - top.start_mark.line


def _path(field: str) -> list[str]:
    """Return the keys and indices that lead to a field."""
    if field.startswith((ANNOTATION_PREFIX, *PREFIXES)):
        return ["metadata", "annotations", field]
    return [index or key for index, key in _STEP.findall(field)]
