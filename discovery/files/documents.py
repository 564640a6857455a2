"""From the bytes of a YAML or JSON file to plain values, each with its line.

YAML is split into its documents first, so that a caller can keep those whose bytes did not change and a
broken document does not take its neighbours along. PyYAML reads them, with libyaml where it is there, and as
Kubernetes does: keys are text, a key given twice is an error, dates stay text. An alias costs what it stands
for, so a "billion laughs" is refused before it is a million. Pure.

What a document may cost is bounded, and it is refused before it has cost it: a large one is counted first, by
the parser's events, of which none is kept. Memory is not all of it. DNS is answered by the same interpreter,
which no other thread can use while the collector looks through a million nodes or a tree of them is freed.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
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
MAX_BYTES = 4 * 1024 * 1024
"""Of one document, or one object of a JSON file; etcd stores no object larger than 1.5 MiB."""
MAX_NODES = 200_000
"""Keys and values of one document, which take 300 bytes each while it is read."""
LARGE = 20_000
"""Nodes of a document from which on it matters what else the interpreter does with them."""

MAX_JSON_BYTES = 8 * 1024 * 1024
"""Of one JSON file: it is gone through in one go."""
MAX_JSON_VALUES = 100_000
"""Keys and values of one object in it, as its punctuation tells."""

_NOT_JSON = (msgspec.DecodeError, RecursionError, ValueError)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_AFTER_MARKER = (b" ", b"\t", b"\r", b"\n", b"")
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
    lines: tuple[int, ...] = ()
    """Of JSON: the line of each of `items`."""

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
    start = 0
    while start < len(part):  # line by line: most begin with something else, and are megabytes long
        end = part.find(b"\n", start) + 1 or len(part)
        line = part[start:end].strip()
        if line and not line.startswith(b"#"):
            return line.startswith(b"%")
        start = end
    return False


def parse_yaml(chunk: Chunk) -> list[Document]:
    """Return the documents of a chunk.

    Raises:
        Unparsable: with the line in the file.
    """
    documents: list[Document] = []
    if len(chunk.text) > MAX_BYTES:
        raise Unparsable(chunk.line, 1, f"is larger than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        if len(chunk.text) > LARGE:  # each node takes a byte at least
            _count(chunk.text)
        loader = _Loader(chunk.text)
        while loader.check_node():
            documents.append(_construct(loader, chunk.line))
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


def _construct(loader: _Loader, first: int) -> Document:
    node = loader.get_node()
    try:
        return Document(loader.construct_object(node), first, node)
    except yaml.YAMLError:
        take_apart(Document(None, first, node))
        raise


def _count(text: bytes) -> None:
    """Go through a text without keeping anything of it.

    Raises:
        yaml.YAMLError: it is none, or holds more or deeper than is read.
    """
    depth = nodes = 0
    anchors: set[str] = set()
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            nodes += 1
            depth += isinstance(event, yaml.CollectionStartEvent)
            if isinstance(event, yaml.AliasEvent) and event.anchor not in anchors:
                _fail(event, "found undefined alias")
            if event.anchor is not None:
                anchors.add(event.anchor)
            if depth > MAX_DEPTH:
                _fail(event, f"is nested deeper than {MAX_DEPTH}")
            if nodes > MAX_NODES:
                _too_many(event)


@contextmanager
def no_collection(size: int) -> Iterator[None]:
    """While a document of so many bytes is read, keep the collector from looking through what it is made of.

    It would find nothing: all of it is freed by itself, and should be by the end.
    """
    wanted = size > LARGE and gc.isenabled()
    if wanted:
        gc.disable()
    try:
        yield
    finally:
        if wanted:
            gc.enable()


def take_apart(document: Document) -> None:
    """Free what a document was made from, piece by piece: all at once nobody else could compute meanwhile."""
    nodes = [document.node] if document.node is not None else []
    while nodes:
        node = nodes.pop()
        value, node.value = node.value, ()
        if isinstance(node, yaml.MappingNode):
            for pair in value:
                nodes += pair
        elif isinstance(node, yaml.SequenceNode):
            nodes += value


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
            _too_many(current_node)

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


def _fail(at: Any, reason: str) -> NoReturn:
    """Raise what is wrong at a node or event."""
    raise ConstructorError(None, None, reason, at.start_mark)


def _too_many(at: Any) -> NoReturn:
    _fail(at, f"holds more than {MAX_NODES} keys and values; objects may be in documents of their own")


def parse_json(text: bytes) -> Document:
    """Read a JSON file; of a list the items are left as they are written, for `parse_item`.

    Raises:
        Unparsable: the text is not JSON, or more than is read.
    """
    if len(text) > MAX_JSON_BYTES:
        mebibytes = MAX_JSON_BYTES // 1024 // 1024
        raise Unparsable(1, 1, f"is larger than {mebibytes} MiB: divide it, or make it YAML with '---'")
    try:
        if text.lstrip()[:1] != b"{":
            return Document(_decode(text))
        raw = _fields_decoder.decode(text)
        value = {name: _decode(field) for name, field in raw.items() if name != "items"}
        lines: tuple[int, ...] = ()
        if "items" in raw:
            written = bytes(raw["items"])
            if written.startswith(b"["):
                value["items"] = _items_decoder.decode(written)
                lines = tuple(_lines_of(value["items"], text, text.find(written)))
            else:
                value["items"] = _decode(written)
        return Document(value, lines=lines)
    except _NOT_JSON as error:
        found = re.search(r"\(byte (\d+)\)", str(error))
        before = text[: int(found[1]) if found else 0]
        reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Unparsable(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"), reason) from error


def is_json(text: bytes) -> bool:
    """Whether a text whose name does not say so is JSON; a YAML mapping in braces is not always."""
    if not text.lstrip().startswith(b"{"):
        return False
    try:
        _fields_decoder.decode(text)
    except _NOT_JSON:
        return False
    return True


def _lines_of(items: list[msgspec.Raw], text: bytes, start: int) -> Iterator[int]:
    """Yield the line of each item, as it is written in `text` from `start` on."""
    line, counted = 1, 0
    for item in items:
        written = bytes(item)
        at = text.find(written, start)
        line += text.count(b"\n", counted, at)
        counted, start = at, at + len(written)
        yield line


def parse_item(value: Any) -> Any:
    """Return an item of a list as `parse_json` left it; any other value as it is.

    Raises:
        Unparsable: it is more than is read.
    """
    if not isinstance(value, msgspec.Raw):
        return value
    try:
        return _decode(value)
    except _NOT_JSON as error:
        raise Unparsable(1, 1, f"an item cannot be read: {error}") from error


def _decode(written: bytes | msgspec.Raw) -> Any:
    """Return a value that costs a few milliseconds at most; nothing else is done meanwhile."""
    text = bytes(written)
    if len(text) > MAX_BYTES or sum(map(text.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise ValueError(f"holds more than {MAX_JSON_VALUES} values, or {MAX_BYTES // 1024 // 1024} MiB")
    return msgspec.json.decode(text)
