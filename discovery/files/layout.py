"""Where the fields of an object stand in the YAML that it was read from. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from sys import intern

import yaml

from discovery.compat import PREFIXES
from discovery.files.documents import member
from discovery.manifest import SERVICE_NAME_LABEL
from discovery.model import ANNOTATION_PREFIX
from discovery.position import Lines, is_annotation

MOST_LINES = 2000
"""Fields of one object whose lines are kept; of a further one the nearest above it is told."""
DEPTH = 3
"""Keys and list entries on the way to a field of a Service's `spec` that is kept."""

_STEP = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")


class YamlLayout:
    """The layout of the object that was made of a node."""

    def __init__(self, node: yaml.Node) -> None:
        self._node = node
        self._top = node.start_mark.line

    def offset(self, field: str) -> int:
        """Return how many lines below its object a field is: its key, or its entry in a list."""
        node, line = self._node, self._top
        for step in _path(field):
            if isinstance(node, yaml.SequenceNode) and step.isdecimal() and int(step) < len(node.value):
                node = node.value[int(step)]
                line = node.start_mark.line
                continue
            key, value = member(node, step)
            if key is None or value is None:
                break
            line, node = key.start_mark.line, value
        return line - self._top

    def lines(self, kind: str) -> Lines:
        """Return the lines of what problems may name after the object has been read."""
        found: list[tuple[str, int]] = []
        for field, line in self._fields(kind):
            if len(found) == MOST_LINES:
                break
            found.append((intern(field), line - self._top))
        return tuple(found)

    def _fields(self, kind: str) -> Iterator[tuple[str, int]]:
        metadata = _of(self._node, "metadata")
        yield from _keys(self._node, "", ("metadata", "spec"))
        yield from _keys(metadata, "metadata.", ("name", "namespace", "annotations", "labels"))
        for key, line in _keys(_of(metadata, "labels"), "", (SERVICE_NAME_LABEL,)):
            yield f"metadata.labels[{key}]", line
        if kind == "Service":
            yield from _below(_of(self._node, "spec"), "spec", DEPTH)
        if kind in ("Service", "Namespace"):
            for key, line in _keys(_of(metadata, "annotations"), ""):
                if key.startswith((ANNOTATION_PREFIX, *PREFIXES)):
                    yield key, line


class NoLayout:
    """The layout of an object whose fields cannot be told apart by lines: JSON."""

    def offset(self, field: str) -> int:
        """Return 0: the first line of the object."""
        return 0

    def lines(self, kind: str) -> Lines:
        """Return nothing."""
        return ()


def _of(node: yaml.Node | None, name: str) -> yaml.Node | None:
    return member(node, name)[1]


def _keys(node: yaml.Node | None, prefix: str, wanted: tuple[str, ...] = ()) -> Iterator[tuple[str, int]]:
    """Yield the keys of a mapping with their lines; all of them if none are named."""
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if isinstance(key.value, str) and (not wanted or key.value in wanted):
                yield prefix + key.value, key.start_mark.line


def _below(node: yaml.Node | None, path: str, depth: int) -> Iterator[tuple[str, int]]:
    """Yield what is in a mapping or list, so deep."""
    if not depth or node is None:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key.value, str):
                yield f"{path}.{key.value}", key.start_mark.line
                yield from _below(value, f"{path}.{key.value}", depth - 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield f"{path}[{index}]", item.start_mark.line
            yield from _below(item, f"{path}[{index}]", depth - 1)


def _path(field: str) -> list[str]:
    """Return the keys and indices that lead to a field."""
    if is_annotation(field):
        return ["metadata", "annotations", field]
    return [index or key for index, key in _STEP.findall(field)]
