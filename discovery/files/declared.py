"""What many files declare together, told as events.

The same object in two places: the first in the order of paths, then of lines, is in force, and the other is
reported; when the first goes, the other takes over. Only what changed is told. Pure.
"""

from __future__ import annotations

import msgspec

from discovery.bounds import bounded
from discovery.files.content import EMPTY, Content, FileObject
from discovery.manifest import kind_of
from discovery.manifest.written import FileOnly, FileOnlyKey
from discovery.model import ObjectKey, Problem
from discovery.position import place_of
from discovery.source import Deleted, Malformed, Upserted

FileKey = ObjectKey | FileOnlyKey
Identity = tuple[type, FileKey]
"""Kind and key: keys of different kinds may be equal."""


class Beside(msgspec.Struct, frozen=True):
    """An object that is none of the mesh's exists with this content now."""

    object: FileOnly


class Removed(msgspec.Struct, frozen=True):
    """Such an object exists no more."""

    key: FileOnlyKey


Declared = Upserted | Deleted | Malformed | Beside | Removed
"""What is told: events, and the same of objects that only files are read for."""


class Declarations:
    """The contents of all files, and what has been told of them."""

    def __init__(self) -> None:
        self._contents: dict[str, Content] = {}
        self._objects: dict[str, dict[Identity, list[FileObject]]] = {}
        self._claims: dict[Identity, set[str]] = {}
        """The paths that declare an object."""
        self._dirty: set[Identity] = set()
        self._dirty_paths: set[str] = set()
        self._told: dict[Identity, FileObject] = {}
        self._duplicates: dict[str, dict[Identity, tuple[Problem, ...]]] = {}
        self._losers: dict[Identity, list[str]] = {}
        """The paths in whose duplicates an object is noted."""
        self._told_problems: dict[str, tuple[Problem, ...]] = {}

    @property
    def paths(self) -> frozenset[str]:
        """The files that hold, or lately held, something."""
        return frozenset(self._contents)

    @property
    def waiting(self) -> int:
        """How many objects may have changed since events were last taken."""
        return len(self._dirty)

    def content(self, path: str) -> Content:
        """Return what the file held when it was last read."""
        return self._contents.get(path, EMPTY)

    def put(self, path: str, content: Content) -> None:
        """Take note of what a file holds now."""
        if self._contents.get(path) is content:
            return
        self._contents[path] = content
        self._replace(path, content)

    def remove(self, path: str) -> None:
        """Take note that a file is no more."""
        if self._contents.pop(path, None) is not None:
            self._replace(path, EMPTY)

    def _replace(self, path: str, content: Content) -> None:
        before = self._objects.pop(path, {})
        after: dict[Identity, list[FileObject]] = {}
        for found in content.objects():
            after.setdefault((type(found), found.key), []).append(found)
        for identity in before.keys() - after.keys():
            self._claims[identity].discard(path)
            self._dirty.add(identity)
        for identity, objects in after.items():
            if before.get(identity) != objects:
                self._claims.setdefault(identity, set()).add(path)
                self._dirty.add(identity)
        if after:
            self._objects[path] = after
        self._dirty_paths.add(path)

    def take_events(self) -> tuple[Declared, ...]:
        """Return what is to be told since the last call, in a fixed order: deletions, objects, problems."""
        deleted: list[Declared] = []
        upserted: list[Declared] = []
        for identity in sorted(self._dirty, key=_order):
            winner = self._judge(identity)
            told = self._told.get(identity)
            if winner is None:
                if told is not None:
                    del self._told[identity]
                    key = identity[1]
                    deleted.append(Removed(key) if isinstance(key, FileOnlyKey) else Deleted(key))
            elif winner is not told and winner != told:
                self._told[identity] = winner
                upserted.append(Beside(winner) if isinstance(winner, FileOnly) else Upserted(winner))
        problems = [event for path in sorted(self._dirty_paths) if (event := self._tell_problems(path))]
        self._dirty.clear()
        self._dirty_paths.clear()
        return (*deleted, *upserted, *problems)

    def _judge(self, identity: Identity) -> FileObject | None:
        """Return the object in force, and note the others as duplicates."""
        paths = sorted(self._claims.get(identity, ()))
        for path in self._losers.pop(identity, ()):
            del self._duplicates[path][identity]
            self._dirty_paths.add(path)
        if not paths:
            self._claims.pop(identity, None)
            return None
        winner = self._objects[paths[0]][identity][0]
        for path in paths:
            losers = [o for o in self._objects[path][identity] if o is not winner]
            if losers:
                noted = self._duplicates.setdefault(path, {})
                noted[identity] = bounded([_duplicate(winner, loser) for loser in losers])
                self._losers.setdefault(identity, []).append(path)
                self._dirty_paths.add(path)
        return winner

    def _tell_problems(self, path: str) -> Malformed | None:
        duplicates = self._duplicates.get(path, {})
        if not duplicates:
            self._duplicates.pop(path, None)
        problems = self._contents.get(path, EMPTY).all_problems()
        problems += tuple(p for identity in sorted(duplicates, key=_order) for p in duplicates[identity])
        if problems == self._told_problems.get(path, ()):
            return None
        if problems:
            self._told_problems[path] = problems
        else:
            del self._told_problems[path]
        return Malformed(path, problems)


def _order(identity: Identity) -> tuple[str, FileKey]:
    return identity[0].__name__, identity[1]


def _duplicate(winner: FileObject, loser: FileObject) -> Problem:
    return Problem(
        namespace=loser.key.namespace,
        name=loser.key.name,
        field="metadata.name",
        value=loser.key.name,
        reason=f"is defined twice, at {winner.origin} and at {loser.origin}",
        expected="one definition",
        effect=f"the one at {winner.origin} is in force",
        kind=kind_of(loser),
        origin=place_of(loser.origin, loser.lines, "metadata.name"),
    )
