"""What a reflector has reported so far, so that after a new list only changes are reported.

Objects are trimmed here, as they come in, and only their trimmed form is kept (the registry keeps the same
values, so this costs a dictionary entry each). They are compared by content, not by resource version: a
heartbeat in a Pod's status is not a change for us, and after a restore from a backup a version may come
twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from discovery.kube.resource import Resource
from discovery.model import MeshObject, ObjectKey, Problem
from discovery.source import Deleted, Event, Malformed, Upserted

log = structlog.get_logger()

ReadObject = Callable[[Mapping[str, Any], str], tuple[MeshObject | None, tuple[Problem, ...]]]
"""`read_object(document, origin)` as `discovery.manifest` has it."""


class Inventory:
    """The objects of one resource as they were last reported."""

    def __init__(self, resource: Resource, read_object: ReadObject) -> None:
        self._resource = resource
        self._read_object = read_object
        self._told: dict[ObjectKey, MeshObject] = {}
        self._problems: dict[ObjectKey, tuple[Problem, ...]] = {}
        self._unseen: set[ObjectKey] | None = None

    def __len__(self) -> int:
        return len(self._told)

    def begin_list(self) -> None:
        """A list begins (or begins again): what is not seen until its end does not exist any more."""
        self._unseen = {*self._told, *self._problems}

    def end_list(self) -> list[Event]:
        """The list is complete; return what has gone."""
        gone = sorted(self._unseen or ())
        self._unseen = None
        return [event for key in gone for event in self._forget(key)]

    def put(self, document: Mapping[str, Any]) -> list[Event]:
        """The object exists with this content; return what is new about it.

        An object that cannot be read is reported and keeps its last good form, as all malformed input does.
        """
        named = self._name(document)
        if named is None:
            return []
        key, origin = named
        if self._unseen is not None:
            self._unseen.discard(key)
        # Items of a list do not say what they are.
        typed = {**document, "kind": self._resource.kind, "apiVersion": self._resource.api_version}
        found, problems = self._read_object(typed, "")
        if found is None and not problems:
            return self._forget(key)
        events = self._tell_problems(key, origin, problems)
        if found is not None and self._told.get(key) != found:
            self._told[key] = found
            events.append(Upserted(found))
        return events

    def remove(self, document: Mapping[str, Any]) -> list[Event]:
        """The object does not exist any more."""
        named = self._name(document)
        return [] if named is None else self._forget(named[0])

    def _tell_problems(self, key: ObjectKey, origin: str, problems: tuple[Problem, ...]) -> list[Event]:
        if self._problems.get(key, ()) == problems:
            return []
        if problems:
            self._problems[key] = problems
        else:
            del self._problems[key]
        return [Malformed(origin, problems)]

    def _forget(self, key: ObjectKey) -> list[Event]:
        events = self._tell_problems(key, self._resource.origin(*key), ())
        if self._told.pop(key, None) is not None:
            events.append(Deleted(key))
        return events

    def _name(self, document: Mapping[str, Any]) -> tuple[ObjectKey, str] | None:
        metadata = document.get("metadata")
        if isinstance(metadata, dict):
            namespace, name = metadata.get("namespace"), metadata.get("name")
            if not self._resource.namespaced:
                namespace = name
            if isinstance(namespace, str) and isinstance(name, str) and namespace and name:
                key = self._resource.key(namespace, name)
                return key, self._resource.origin(*key)
        log.warning(
            "source_object_nameless", kind=self._resource.kind, reason="no metadata.namespace or .name"
        )
        return None
