"""What one file holds: its objects and its problems, read with what it held before at hand.

Two things need the past. A document whose bytes did not change is not parsed again, so that a change in a
file of a thousand Services costs one of them. And what cannot be read keeps the objects it held last until it
is mended: a document, or all that is missing where a file is cut off, as a writer leaves it that is killed or
has filled the disk. Pure.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from discovery.compat import Compat
from discovery.files.documents import (
    Chunk,
    Document,
    Unparsable,
    no_collection,
    parse_item,
    parse_json,
    parse_yaml,
    split,
    take_apart,
)
from discovery.files.layout import NoLayout, YamlLayout
from discovery.manifest import describe_type, kind_of, read_written
from discovery.manifest.fields import Layout
from discovery.manifest.written import FileOnly, WrittenEndpoints
from discovery.model import MeshObject, Problem, Severity
from discovery.position import shifted

MAX_DOCUMENTS = 50_000
"""Of one file."""
SEARCHED = 64 * 1024
"""Bytes of a broken document in which names are looked for."""

FileObject = MeshObject | FileOnly
"""What a file may declare."""

_NAME = re.compile(rb"\bname: *[\"']?([-.a-z0-9]+)")


class Part(msgspec.Struct, frozen=True):
    """One document of a file (one `---` to the next), or what is still in force of it."""

    text: bytes
    line: int
    objects: tuple[FileObject, ...] = ()
    problems: tuple[Problem, ...] = ()
    whole: bool = True
    """False if it is not read from the file as it is now, but is what was in its place, or nothing."""


class Content(msgspec.Struct, frozen=True):
    """What one file holds."""

    parts: tuple[Part, ...] = ()
    problems: tuple[Problem, ...] = ()
    """Problems of the file as a whole."""
    ends_line: bool = False
    """Whether it ended with a line feed when it was last read to its end."""

    def objects(self) -> Iterator[FileObject]:
        """Yield every object, in the order of the file."""
        return chain.from_iterable(part.objects for part in self.parts)

    def all_problems(self) -> tuple[Problem, ...]:
        """Return the problems of the file and of all its documents."""
        return (*self.problems, *chain.from_iterable(part.problems for part in self.parts))


EMPTY = Content()


def unusable(problem: Problem, previous: Content) -> Content:
    """Return what is in force when a file as a whole cannot be read: what it held last, and why."""
    return msgspec.structs.replace(previous, problems=(_keeping(problem, list(previous.objects())),))


def read_content(
    path: str, text: bytes, previous: Content, compat: Compat | None = None, *, json: bool | None = None
) -> Content:
    """Read a file; `compat` is as in `discovery.manifest.read_written`, and the same for all its readings.

    Its name says whether it is JSON, unless `json` does.
    """
    json = path.endswith(".json") if json is None else json
    if reason := _why_unusable(text, previous):
        return unusable(file_problem(path, 1, reason, effect="the file is left out"), previous)
    known = {part.text: part for part in previous.parts if part.whole}
    if json:
        part = _read(path, Chunk(1, text), known, compat, json=True)
        return Content((part,)) if part.whole else unusable(part.problems[0], previous)
    chunks = split(text.removeprefix(b"\xef\xbb\xbf"))
    parts = [_read(path, chunk, known, compat) for chunk in chunks]
    if parts[-1].whole and (reason := _why_cut(parts, previous)):
        line = chunks[-1].line + chunks[-1].text.removesuffix(b"\n").count(b"\n")
        parts[-1] = _broken(path, chunks[-1], Unparsable(line, 1, reason))
    ends_line = text.endswith(b"\n") if parts[-1].whole else previous.ends_line
    return Content(tuple(_keep_last_good(parts, previous)), ends_line=ends_line)


def _why_unusable(text: bytes, previous: Content) -> str:
    if not text and any(previous.objects()):
        return "is empty"
    if b"\0" in text:
        return "is not text: it holds zero bytes"
    return f"holds more than {MAX_DOCUMENTS} documents" if text.count(b"\n---") > MAX_DOCUMENTS else ""


def _read(
    path: str, chunk: Chunk, known: Mapping[bytes, Part], compat: Compat | None, *, json: bool = False
) -> Part:
    """Read one document; it is not `whole` if it cannot be parsed."""
    if (same := known.get(chunk.text)) is not None:
        return _move(same, chunk.line)
    try:
        with no_collection(len(chunk.text)):
            documents = [parse_json(chunk.text)] if json else parse_yaml(chunk)
            objects, problems = _read_objects(path, documents, compat)
    except Unparsable as error:
        return _broken(path, chunk, error)
    return Part(chunk.text, chunk.line, objects, problems)


def _read_objects(
    path: str, documents: Sequence[Document], compat: Compat | None
) -> tuple[tuple[FileObject, ...], tuple[Problem, ...]]:
    objects: list[FileObject] = []
    problems: list[Problem] = []
    for document in documents:
        for value, line, layout in _expand(document):
            found, wrong = _read_value(path, value, line, layout, compat)
            problems += wrong
            objects += (found,) if found is not None else ()
        take_apart(document)
    return tuple(objects), tuple(problems)


def _broken(path: str, chunk: Chunk, error: Unparsable) -> Part:
    field = f"line {error.line}, column {error.column}"
    problem = file_problem(path, error.line, error.reason, field=field, effect="the document is left out")
    return Part(chunk.text, chunk.line, (), (problem,), whole=False)


def _expand(document: Document) -> Iterator[tuple[Any, int, Layout]]:
    """Yield the objects of a document with line and layout of each: itself, or the items of a `List`."""
    value = document.value
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List") or not isinstance(value.get("items"), list):
        yield value, document.line, NoLayout() if document.node is None else YamlLayout(document.node)
        return
    # The API server leaves kind and version out of the items of a ServiceList.
    defaults = {"kind": kind.removesuffix("List"), "apiVersion": value.get("apiVersion")}
    nodes = document.items
    for index, written in enumerate(value["items"]):
        item = parse_item(written)
        item = defaults | item if kind != "List" and isinstance(item, dict) else item
        if nodes:
            yield item, document.first + nodes[index].start_mark.line, YamlLayout(nodes[index])
        else:
            yield item, document.lines[index] if document.lines else document.line, NoLayout()


def _read_value(
    path: str, value: Any, line: int, layout: Layout, compat: Compat | None
) -> tuple[FileObject | None, tuple[Problem, ...]]:
    if value is None:
        return None, ()
    if not isinstance(value, Mapping):
        return None, (file_problem(path, line, f"is {describe_type(value)}, not a Kubernetes object"),)
    if not value.get("kind") or not value.get("apiVersion"):
        reason = "has no kind or no apiVersion, so it is not a Kubernetes object"
        return None, (file_problem(path, line, reason, severity="info"),)
    return read_written(value, f"{path}:{line}", layout, compat)


def _move(part: Part, line: int) -> Part:
    """Return an unchanged document at its new place in the file."""
    shift = line - part.line
    if not shift:
        return part
    objects = tuple(_moved(found, shift) for found in part.objects)
    problems = tuple(
        msgspec.structs.replace(problem, origin=shifted(problem.origin, shift)) for problem in part.problems
    )
    return Part(part.text, line, objects, problems)


def _moved(found: FileObject, shift: int) -> FileObject:
    moved = msgspec.structs.replace(found, origin=shifted(found.origin, shift))
    if isinstance(moved, WrittenEndpoints):
        slices = tuple(msgspec.structs.replace(one, origin=moved.origin) for one in moved.slices)
        moved = msgspec.structs.replace(moved, slices=slices)
    return moved


def _why_cut(parts: Sequence[Part], previous: Content) -> str:
    """Return why the file seems to end before what its writer meant to write, empty if it does not.

    What is cut at the end of a line, in the last document, looks like an edit and is taken for one.
    """
    last = parts[-1].text
    if last and previous.ends_line and not last.endswith(b"\n"):
        return "the file ends without a line feed, unlike before: it may be cut off"
    begun = any(part.text.startswith(last) and part.text != last for part in previous.parts)
    if begun and _missing(parts, previous) and not _is_blank(parts[-1]):
        return "the file ends within a document that was longer: it may be cut off"
    return ""


def _is_blank(part: Part) -> bool:
    documents = parse_yaml(Chunk(part.line, part.text))
    for document in documents:
        take_apart(document)
    return all(document.value is None for document in documents)


def _missing(parts: Sequence[Part], previous: Content) -> list[Part]:
    """Return the documents that held objects and are in the file no more."""
    texts = {part.text for part in parts if part.whole}
    declared = {(type(o), o.key) for part in parts for o in part.objects}
    return [
        part
        for part in previous.parts
        if part.objects
        and part.text not in texts
        and declared.isdisjoint((type(o), o.key) for o in part.objects)
    ]


def _keep_last_good(parts: list[Part], previous: Content) -> list[Part]:
    """Give each document that cannot be parsed the objects it held last.

    Which document of the previous text it was is told by the names it mentions, else by the order. If it is
    the last of the file, the file may be cut off there: then it keeps all that is missing.
    """
    broken = [index for index, part in enumerate(parts) if not part.whole]
    missing = _Missing(_missing(parts, previous) if broken else [])
    for index in broken:
        part = parts[index]
        # If it is the last of the file, the file may be cut off there.
        kept = missing.take_all() if index == len(parts) - 1 else missing.take_like(part.text)
        if not kept:
            break
        problem = _keeping(part.problems[0], [o for one in kept for o in one.objects])
        parts[index] = Part(kept[0].text, part.line, kept[0].objects, (problem,), whole=False)
        parts += (Part(one.text, one.line, one.objects, whole=False) for one in kept[1:])
    return parts


class _Missing:
    """Documents that are in the file no more, each to be taken once, by the names that it mentions."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = dict(enumerate(parts))
        self._named: defaultdict[bytes, list[int]] = defaultdict(list)
        for number, part in self._parts.items():
            for name in {o.key.name.encode() for o in part.objects}:
                self._named[name].append(number)

    def take_all(self) -> list[Part]:
        """Return all that are left."""
        parts, self._parts = self._parts, {}
        return list(parts.values())

    def take_like(self, text: bytes) -> list[Part]:
        """Return the one that shares most names with this text, else the first; nothing if none is left."""
        names = set(_NAME.findall(text[:SEARCHED]))
        shared = Counter(n for name in names for n in self._named.get(name, ()) if n in self._parts)
        number = min(shared, key=lambda n: (-shared[n], n)) if shared else next(iter(self._parts), None)
        return [self._parts.pop(number)] if number is not None else []


def _keeping(problem: Problem, objects: Sequence[FileObject]) -> Problem:
    """Return the problem with these objects as what stays in force."""
    if not objects:
        return problem
    first = objects[0]
    more = f" and {len(objects) - 1} more" if len(objects) > 1 else ""
    name = f"{kind_of(first)} {'/'.join(dict.fromkeys((first.key.namespace, first.key.name)))}"
    effect = f"what it held last stays in force: {name}{more}"
    return msgspec.structs.replace(problem, effect=effect)


def file_problem(
    path: str,
    line: int,
    reason: str,
    field: str = "",
    effect: str = "it is left out",
    severity: Severity = "error",
) -> Problem:
    """Return a problem of a file, or of a place in it, that belongs to no object."""
    return Problem("", path, field, "", reason, "", effect, "File", f"{path}:{line}", severity)
