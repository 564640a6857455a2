"""What one file holds: its objects and its problems, read with what it held before at hand.

Two things need the past. A document whose bytes did not change is not parsed again, so that a change in a
file of a thousand Services costs one of them. And where a document cannot be parsed any more, the objects it
held last stay in force until it is mended. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import chain
from typing import Any

import msgspec

from discovery.compat import Compat
from discovery.files.documents import Chunk, Document, Unparsable, parse_json, parse_yaml, split
from discovery.manifest import describe_type, kind_of, read_object
from discovery.model import MeshObject, Problem

MAX_DOCUMENTS = 200_000
"""Of one file."""


class Part(msgspec.Struct, frozen=True):
    """One document of a file (one `---` to the next), or what is still in force of it."""

    digest: bytes
    """Of its text; empty if it must be read again next time, whatever its text."""
    line: int
    objects: tuple[MeshObject, ...] = ()
    problems: tuple[Problem, ...] = ()


class Content(msgspec.Struct, frozen=True):
    """What one file holds."""

    digest: bytes = b""
    parts: tuple[Part, ...] = ()
    problems: tuple[Problem, ...] = ()
    """Problems of the file as a whole."""

    def objects(self) -> Iterator[MeshObject]:
        """Yield every object, in the order of the file."""
        return chain.from_iterable(part.objects for part in self.parts)

    def all_problems(self) -> tuple[Problem, ...]:
        """Return the problems of the file and of all its documents."""
        return (*self.problems, *chain.from_iterable(part.problems for part in self.parts))


EMPTY = Content()


def unusable(path: str, reason: str, previous: Content) -> Content:
    """Return what is in force when a file as a whole cannot be read: what it held last, and why."""
    if previous.parts:
        problem = file_problem(path, 1, reason, effect="what it held last stays in force")
    else:
        problem = file_problem(path, 1, reason, effect="the file is left out")
    return Content(b"", previous.parts, (problem,))


def read_content(path: str, text: bytes, previous: Content, compat: Compat | None = None) -> Content:
    """Read a file; `compat` is as in `discovery.manifest.read_object`, and the same for all its readings."""
    digest = _digest(text)
    if digest == previous.digest:
        return previous
    if b"\0" in text:
        return unusable(path, "is not text: it holds zero bytes", previous)
    if text.count(b"\n---") > MAX_DOCUMENTS:
        return unusable(path, f"holds more than {MAX_DOCUMENTS} documents", previous)
    if path.endswith(".json"):
        return _read_json(path, text, digest, previous, compat)
    parts: list[Part] = []
    broken: list[tuple[int, Chunk]] = []
    known = {part.digest: part for part in previous.parts if part.digest}
    chunks = split(text.removeprefix(b"\xef\xbb\xbf"))
    for index, chunk in enumerate(chunks):
        part_digest = _digest(chunk.text)
        if (same := known.get(part_digest)) is not None:
            parts.append(_move(path, same, chunk.line))
            continue
        try:
            part = Part(part_digest, chunk.line)
            for document in parse_yaml(chunk):
                part = _add(path, part, document, compat)
            parts.append(part)
        except Unparsable as error:
            parts.append(Part(b"", chunk.line, (), (_syntax_problem(path, error),)))
            broken.append((index, chunk))
    if broken:
        _keep_last_good(parts, broken, previous)
    # With a broken document the same text may mean something else once its neighbours change.
    return Content(b"" if broken else digest, tuple(parts))


def _read_json(path: str, text: bytes, digest: bytes, previous: Content, compat: Compat | None) -> Content:
    try:
        return Content(digest, (_add(path, Part(digest, 1), parse_json(text), compat),))
    except Unparsable as error:
        parts = tuple(msgspec.structs.replace(part, problems=()) for part in previous.parts)
        problem = _syntax_problem(path, error)
        return Content(b"", parts, (_with_effect(problem, [o for part in parts for o in part.objects]),))


def _add(path: str, part: Part, document: Document, compat: Compat | None) -> Part:
    """Return the part with the objects of one more document; those of a `List` count one by one."""
    objects, problems = list(part.objects), list(part.problems)
    for value, line in _expand(document):
        if value is None:
            continue
        if not isinstance(value, Mapping):
            problems.append(file_problem(path, line, f"is {describe_type(value)}, not a Kubernetes object"))
            continue
        if not value.get("kind") or not value.get("apiVersion"):
            reason = "has no kind or no apiVersion, so it is not a Kubernetes object"
            problems.append(file_problem(path, line, reason, severity="info"))
            continue
        found, wrong = read_object(value, f"{path}:{line}", compat)
        problems += wrong
        if found is not None:
            objects.append(found)
    return Part(part.digest, part.line, tuple(objects), tuple(problems))


def _expand(document: Document) -> Iterator[tuple[Any, int]]:
    """Yield the objects of a document with their lines: itself, or the items of a `List`."""
    value = document.value
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List") or not isinstance(value.get("items"), list):
        yield value, document.line
        return
    # The API server leaves kind and version out of the items of a ServiceList.
    defaults = {"kind": kind.removesuffix("List"), "apiVersion": value.get("apiVersion")}
    lines = [document.first + node.start_mark.line for node in document.items]
    for item, line in zip(value["items"], lines or [document.line] * len(value["items"]), strict=True):
        yield (defaults | item if kind != "List" and isinstance(item, dict) else item), line


def _move(path: str, part: Part, line: int) -> Part:
    """Return an unchanged document at its new place in the file."""
    shift = line - part.line
    if not shift:
        return part
    objects = tuple(msgspec.structs.replace(o, origin=_shifted(path, o.origin, shift)) for o in part.objects)
    problems = tuple(
        msgspec.structs.replace(p, origin=_shifted(path, p.origin, shift)) for p in part.problems
    )
    return Part(part.digest, line, objects, problems)


def _shifted(path: str, origin: str, shift: int) -> str:
    return f"{path}:{int(origin.rpartition(':')[2]) + shift}"


def _keep_last_good(parts: list[Part], broken: list[tuple[int, Chunk]], previous: Content) -> None:
    """Give each document that cannot be parsed the objects it held last.

    Which document of the previous text it was is told by the names it mentions, else by the order.
    """
    current = {part.digest for part in parts if part.digest}
    declared = {(type(o), o.key) for part in parts for o in part.objects}
    orphans = [
        part
        for part in previous.parts
        if part.objects
        and part.digest not in current
        and declared.isdisjoint((type(o), o.key) for o in part.objects)
    ]
    for index, chunk in broken:
        if not orphans:
            return
        names = set(_NAME.findall(chunk.text))
        likeness = [sum(o.key.name.encode() in names for o in part.objects) for part in orphans]
        last = orphans.pop(likeness.index(max(likeness)))
        part = parts[index]
        problems = tuple(_with_effect(problem, last.objects) for problem in part.problems)
        parts[index] = Part(b"", part.line, last.objects, problems)


_NAME = re.compile(rb"\bname: *[\"']?([-.a-z0-9]+)")


def _with_effect(problem: Problem, objects: list[MeshObject] | tuple[MeshObject, ...]) -> Problem:
    if not objects:
        return problem
    first = objects[0]
    more = f" and {len(objects) - 1} more" if len(objects) > 1 else ""
    effect = f"what it held last stays in force: {kind_of(first)} {'/'.join(first.key)}{more}"
    return msgspec.structs.replace(problem, effect=effect)


def _syntax_problem(path: str, error: Unparsable) -> Problem:
    field = f"line {error.line}, column {error.column}"
    return file_problem(path, error.line, error.reason, field=field, effect="the document is left out")


def file_problem(
    path: str,
    line: int,
    reason: str,
    field: str = "",
    effect: str = "it is left out",
    severity: Any = "error",
) -> Problem:
    """Return a problem of a file, or of a place in it, that belongs to no object."""
    return Problem("", path, field, "", reason, "", effect, "File", f"{path}:{line}", severity)


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).digest()
