"""Objects by their labels, so that a selector's are found without a look at all the others. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key")
_Label = tuple[str, str, str]
"""Namespace, name, value."""


class LabelIndex(Generic[Key]):
    """Keys of objects, each with its namespace and labels."""

    def __init__(self) -> None:
        self._labels: dict[Key, frozenset[_Label]] = {}
        self._keys: defaultdict[_Label, set[Key]] = defaultdict(set)

    def put(self, key: Key, namespace: str, labels: Mapping[str, str]) -> None:
        """Take an object in, or its labels as they are now."""
        self.remove(key)
        self._labels[key] = _in(namespace, labels)
        for label in self._labels[key]:
            self._keys[label].add(key)

    def remove(self, key: Key) -> None:
        """Take an object out, if it is there."""
        for label in self._labels.pop(key, ()):
            self._keys[label].discard(key)
            if not self._keys[label]:
                del self._keys[label]

    def selected(self, namespace: str, selector: Mapping[str, str]) -> set[Key]:
        """Return the objects that have all these labels; none if no label is asked for."""
        found = sorted((self._keys.get(label, set()) for label in _in(namespace, selector)), key=len)
        return set.intersection(*found) if found else set()


class SelectorIndex(Generic[Key]):
    """Keys of objects that select others by labels."""

    def __init__(self) -> None:
        self._selectors: dict[Key, frozenset[_Label]] = {}
        self._keys: defaultdict[_Label, set[Key]] = defaultdict(set)
        """Under one label of each selector, which every object that it selects must have."""

    def put(self, key: Key, namespace: str, selector: Mapping[str, str]) -> None:
        """Take an object in, or its selector as it is now."""
        self.remove(key)
        labels = _in(namespace, selector)
        if labels:
            self._selectors[key] = labels
            self._keys[min(labels)].add(key)

    def remove(self, key: Key) -> None:
        """Take an object out, if it is there."""
        labels = self._selectors.pop(key, None)
        if labels is not None:
            self._keys[min(labels)].discard(key)
            if not self._keys[min(labels)]:
                del self._keys[min(labels)]

    def selecting(self, namespace: str, labels: Mapping[str, str]) -> set[Key]:
        """Return the objects that select whatever has these labels."""
        given = _in(namespace, labels)
        candidates = (key for label in given for key in self._keys.get(label, ()))
        return {key for key in candidates if self._selectors[key] <= given}


def _in(namespace: str, labels: Mapping[str, str]) -> frozenset[_Label]:
    return frozenset((namespace, name, value) for name, value in labels.items())
