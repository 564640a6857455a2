"""From the bytes of a YAML or JSON file to plain values, each with its line.

YAML is split into its documents first, so that a caller can keep those whose bytes did not change and a
broken document does not take its neighbours along. A document is built from libyaml's events, not by
PyYAML's constructors: that is twice as fast, and it lets us do as Kubernetes does: keys are strings, a key
given twice is an error, dates stay text. An alias costs what it stands for, so a "billion laughs" is refused
before it is a million. Pure, and long documents hand control back in between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import yaml

MAX_DEPTH = 100
MAX_ALIASED = 10_000
"""Values that the aliases of one document may stand for, all together."""
MAX_VALUES = 5_000_000
"""Of one document; twenty thousand Services with ten endpoints each have about as many."""
STEP = 2_000
"""Events of the YAML parser between two chances for others: about 3 ms."""

_AFTER_MARKER = (b" ", b"\t", b"\r", b"\n", b"")
_SILENT_LINE = re.compile(rb"^[ \t]*(#.*)?\r?$", re.MULTILINE)
_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)\Z")
_PREFIXED = re.compile(r"([-+]?)0(?:x([0-9a-fA-F_]+)|b([01_]+)|o?([0-7_]+))\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_MAX_NUMBER = 64
"""Characters; longer ones stay text."""


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


class Document(msgspec.Struct, frozen=True):
    """A value, the line it starts at, and the lines of the mappings near its top, by `id()`."""

    value: Any
    line: int
    lines: dict[int, int] = {}


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


def parse_yaml(chunk: Chunk) -> Iterator[Document | None]:
    """Yield the documents of a chunk, and None now and then for others to have their turn.

    Raises:
        Unparsable: with the line in the file.
    """
    try:
        yield from _Builder(chunk).build()
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


def parse_json(text: bytes) -> Document:
    """Read a JSON file.

    Raises:
        Unparsable: the text is not JSON.
    """
    try:
        return Document(msgspec.json.decode(text), 1)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        found = re.search(r"\(byte (\d+)\)", str(error))
        before = text[: int(found[1]) if found else 0]
        reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Unparsable(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"), reason) from error


class _Open(msgspec.Struct):
    """A mapping or list that is being read."""

    value: dict[str, Any] | list[Any] | None
    """None for the document itself."""
    line: int = 0
    key: str | None = None
    """The key whose value comes next."""
    anchor: str | None = None
    size: int = 0
    """How many values there were before it."""
    merged: list[Any] | None = None
    """The values of `<<`."""


class _Builder:
    """Builds the values of one chunk, event by event."""

    def __init__(self, chunk: Chunk) -> None:
        self.first = chunk.line
        self.parser = yaml.CLoader(chunk.text)
        self.handlers: dict[type, Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._start_mapping,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceStartEvent: self._start_list,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
        }
        self._clear()

    def _clear(self) -> None:
        self.top = _Open(None)
        self.open: list[_Open] = []
        self.root: Document | None = None
        self.lines: dict[int, int] = {}
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.size = 0
        self.aliased = 0

    def build(self) -> Iterator[Document | None]:
        get, handlers = self.parser.get_event, self.handlers
        count = 0
        while (event := get()) is not None:
            count += 1
            if count % STEP == 0:
                if self.size > MAX_VALUES:
                    self._fail(event, f"holds more than {MAX_VALUES} values")
                yield None
            handler = handlers.get(type(event))
            if handler is not None:
                handler(event)
            elif type(event) is yaml.DocumentEndEvent and self.root is not None:
                yield self.root
                self._clear()

    def _scalar(self, event: Any) -> None:
        value, top = event.value, self.top
        if type(top.value) is dict and top.key is None:
            self._set_key(value, event)
            return
        if event.implicit[0]:
            value = _resolve(value)
        elif event.tag is not None and event.tag.startswith(_TAG):
            value = _convert(value, event.tag.removeprefix(_TAG))
        self.size += 1
        if event.anchor:
            self.anchors[event.anchor] = (value, 1)
        self._add(value, event)

    def _set_key(self, key: str, event: Any) -> None:
        top = self.top
        assert isinstance(top.value, dict)
        if key in top.value:
            self._fail(event, f"the key {key[:60]!r} is given twice")
        if event.anchor:
            self.anchors[event.anchor] = (key, 1)
        top.key = key

    def _start_mapping(self, event: Any) -> None:
        self._start({}, event)

    def _start_list(self, event: Any) -> None:
        self._start([], event)

    def _start(self, value: dict[str, Any] | list[Any], event: Any) -> None:
        if type(self.top.value) is dict and self.top.key is None:
            self._fail(event, "a key is not a plain word")
        if len(self.open) >= MAX_DEPTH:
            self._fail(event, f"is nested deeper than {MAX_DEPTH}")
        line = self.first + event.start_mark.line
        if len(self.open) < 3:
            self.lines[id(value)] = line
        self.open.append(self.top)
        self.top = _Open(value, line, None, event.anchor, self.size)

    def _end(self, event: Any) -> None:
        done = self.top
        if done.merged is not None and isinstance(done.value, dict):
            self._merge(done.value, done.merged, event)
        self.top = self.open.pop()
        self.size += 1
        if done.anchor:
            self.anchors[done.anchor] = (done.value, self.size - done.size)
        self._add(done.value, event, done.line)

    def _alias(self, event: Any) -> None:
        if event.anchor not in self.anchors:
            self._fail(event, f"the anchor of *{event.anchor[:60]} is missing, or not complete yet")
        value, size = self.anchors[event.anchor]
        self.size += size
        self.aliased += size
        if self.aliased > MAX_ALIASED:
            self._fail(event, f"its aliases stand for more than {MAX_ALIASED} values")
        if type(self.top.value) is dict and self.top.key is None:
            if not isinstance(value, str):
                self._fail(event, "a key is not a plain word")
            self._set_key(value, event)
            return
        self._add(value, event)

    def _add(self, value: Any, event: Any, line: int = 0) -> None:
        top = self.top
        if type(top.value) is dict:
            if top.key == "<<":
                top.merged = [*(top.merged or ()), *(value if isinstance(value, list) else (value,))]
            else:
                top.value[top.key] = value  # type: ignore[index]  # the key is set before its value
            top.key = None
        elif type(top.value) is list:
            top.value.append(value)
        else:
            at = line or self.first + event.start_mark.line
            self.root = Document(value, at, self.lines)

    def _merge(self, target: dict[str, Any], merged: list[Any], event: Any) -> None:
        for value in merged:
            if not isinstance(value, dict):
                self._fail(event, "'<<' wants a mapping, or a list of them")
            for key, item in value.items():
                target.setdefault(key, item)

    def _fail(self, event: Any, reason: str) -> None:
        mark = event.start_mark
        raise Unparsable(self.first + mark.line, mark.column + 1, reason)


def _resolve(text: str) -> Any:
    """Give a plain scalar its type (YAML 1.1, without dates and base 60, which Kubernetes lacks too)."""
    first = text[:1]
    if first not in "+-.0123456789" or not first:
        return _WORDS.get(text, text)
    if len(text) > _MAX_NUMBER:
        return text
    if _INT.match(text):
        return int(text.replace("_", ""))
    if prefixed := _PREFIXED.match(text):
        sign, hexadecimal, binary, octal = prefixed.groups()
        digits, base = next((d, b) for d, b in ((hexadecimal, 16), (binary, 2), (octal, 8)) if d)
        digits = digits.replace("_", "")
        return int(sign + digits, base) if digits else text
    return float(text) if _FLOAT.match(text) else text


def _convert(text: str, tag: str) -> Any:
    """Apply an explicit tag such as `!!str`; a tag that does not fit leaves text."""
    resolved = _resolve(text)
    wanted: Any = {"int": int, "bool": bool, "float": float, "null": type(None)}.get(tag)
    return resolved if wanted is not None and isinstance(resolved, wanted) else text
