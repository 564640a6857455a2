"""From the bytes of a YAML or JSON file to plain values, each with its line.

YAML is split into its documents first, so that a caller can keep those whose bytes did not change and a
broken document does not take its neighbours along. PyYAML reads them, with libyaml where it is there, and as
Kubernetes does: keys are text, a key given twice is an error, dates stay text. An alias costs what it stands
for, so a "billion laughs" is refused before it is a million. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import msgspec
import yaml
from yaml.constructor import ConstructorError, SafeConstructor

try:
    from yaml import CSafeLoader as Loader
except ImportError:  # PyYAML without libyaml: slower, and reads the same
    from yaml import SafeLoader as Loader  # type: ignore[assignment]

MAX_DEPTH = 100
MAX_ALIASED = 10_000
"""Values that the aliases of one document may stand for, all together."""
MAX_NODES = 2_000_000
"""Keys and values of one document, which take 300 bytes each while it is read."""

_AFTER_MARKER = (b" ", b"\t", b"\r", b"\n", b"")
_SILENT_LINE = re.compile(rb"^[ \t]*(#.*)?\r?$", re.MULTILINE)
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_SCALARS = {
    f"{_TAG}bool": SafeConstructor.construct_yaml_bool,
    f"{_TAG}float": SafeConstructor.construct_yaml_float,
    f"{_TAG}int": SafeConstructor.construct_yaml_int,
    f"{_TAG}null": SafeConstructor.construct_yaml_null,
}


class Unparsable(Exception):
    """The text is not YAML, or not JSON, or more than we read. Line and column count from 1."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.column = column
        self.reason = reason


class Chunk(msgspec.Struct, frozen=True):
    """The text of one YAML document (rarely of several, where `...` parts them), and its first line."""

    line: int
    text: bytes


class Document(NamedTuple):
    """A value, and what of YAML it was made from: `first` is the line that the lines of `node` count from."""

    value: Any
    first: int = 1
    node: yaml.Node | None = None

    @property
    def line(self) -> int:
        """The line of the file that the value starts at."""
        return self.first + (self.node.start_mark.line if self.node else 0)

    @property
    def items(self) -> list[yaml.Node]:
        """The nodes of the list `items`, if it has one."""
        _, items = member(self.node, "items")
        return items.value if isinstance(items, yaml.SequenceNode) else []


def member(node: yaml.Node | None, name: str) -> tuple[yaml.Node, yaml.Node] | tuple[None, None]:
    """Return the nodes of a key and its value, if `node` is a mapping that has it."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return key, value
    return None, None


def split(text: bytes) -> list[Chunk]:
    """Split YAML at its `---` lines.

    At the start of a line they always begin a document, even within a block scalar (YAML 1.1 section 9.1.2).
    """
    starts = [0, *_markers(text)]
    chunks: list[Chunk] = []
    line, held = 1, b""
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        part = held + text[start:end]
        if not held and _holds_only_directives(part):  # `%YAML 1.1` belongs to the document that follows it
            held = part
            continue
        chunks.append(Chunk(line, part))
        line += part.count(b"\n")
        held = b""
    return [*chunks, Chunk(line, held)] if held else chunks


def _markers(text: bytes) -> Iterator[int]:
    at = -1
    while (at := text.find(b"\n---", at + 1)) >= 0:  # ten times as fast as a regular expression with ^
        if text[at + 4 : at + 5] in _AFTER_MARKER:
            yield at + 1


def _holds_only_directives(part: bytes) -> bool:
    """Whether no document begins in it; `split` cuts at markers, so one is at its start or nowhere."""
    if b"%" not in part or part.startswith(b"---"):
        return False
    return _SILENT_LINE.sub(b"", part).lstrip().startswith(b"%")


def parse_yaml(chunk: Chunk) -> list[Document]:
    """Return the documents of a chunk.

    Raises:
        Unparsable: with the line in the file.
    """
    documents: list[Document] = []
    try:
        loader = _Loader(chunk.text)
        while loader.check_node():
            node = loader.get_node()
            documents.append(Document(loader.construct_object(node), chunk.line, node))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at, column = (mark.line, mark.column + 1) if mark else (0, 1)
        reason = " ".join(filter(None, (error.context, error.problem)))
        raise Unparsable(chunk.line + at, column, reason or "is not YAML") from error
    except yaml.YAMLError as error:  # a reader error: a byte that no YAML may hold
        position = getattr(error, "position", 0)
        before = chunk.text[: position if isinstance(position, int) else 0]
        column = len(before) - before.rfind(b"\n")
        reason = str(getattr(error, "reason", "is not YAML"))
        raise Unparsable(chunk.line + before.count(b"\n"), column, reason) from error
    return documents


class _Loader(Loader):
    """Gives the values of one chunk."""

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0
        # Each node takes a byte at least, so that what goes beyond comes from aliases.
        self._budget = len(text) + MAX_ALIASED

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        """Called for each node, before it is read; libyaml would be nested until the stack is used up."""
        self._depth += 1
        self._nodes += 1
        if self._depth > MAX_DEPTH:
            _fail(current_node, f"is nested deeper than {MAX_DEPTH}")
        if self._nodes > MAX_NODES:
            _fail(current_node, f"holds more than {MAX_NODES} keys and values")

    def ascend_resolver(self) -> None:
        """Called after each node."""
        self._depth -= 1

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Return the value of a node, a new one for each of its aliases."""
        self._budget -= 1
        self._depth += 1
        if self._budget < 0:
            _fail(node, f"its aliases stand for more than {MAX_ALIASED} values")
        if self._depth > 2 * MAX_DEPTH:
            _fail(node, "its aliases are nested too deeply, or one holds itself")
        value = self._value(node)
        self._depth -= 1
        return value

    def _value(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.construct_object(item) for item in node.value]
        assert isinstance(node, yaml.ScalarNode)
        construct = _SCALARS.get(node.tag)
        if construct is None or ":" in node.value:  # numbers to the base of 60 are none for Kubernetes
            return node.value
        try:
            return construct(self, node)
        except (ValueError, LookupError):  # `!!int x`, or more digits than Python takes
            return node.value

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[tuple[yaml.Node, Any]] = []
        for key, node_of_value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                _fail(key, "a key is not a plain word")
            if key.value in found:
                _fail(key, f"the key {key.value[:60]!r} is given twice")
            value = self.construct_object(node_of_value)
            if key.tag == _MERGE:
                merged += ((node_of_value, one) for one in (value if isinstance(value, list) else (value,)))
            else:
                found[key.value] = value
        for place, value in merged:
            if not isinstance(value, dict):
                _fail(place, "'<<' wants a mapping, or a list of them")
            found = value | found
        return found


# Kubernetes knows numbers such as 1e3 and 08, which YAML 1.1 has as text.
_Loader.add_implicit_resolver(
    f"{_TAG}float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?\Z"), list("-+0123456789")
)


def _fail(node: yaml.Node, reason: str) -> NoReturn:
    raise ConstructorError(None, None, reason, node.start_mark)


def parse_json(text: bytes) -> Document:
    """Read a JSON file.

    Raises:
        Unparsable: the text is not JSON.
    """
    try:
        return Document(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        found = re.search(r"\(byte (\d+)\)", str(error))
        before = text[: int(found[1]) if found else 0]
        reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Unparsable(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"), reason) from error
