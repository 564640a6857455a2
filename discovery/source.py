"""The contract of a source: where Services, EndpointSlices and Pods are read from.

A source yields batches of events. The first batches describe all that exists and end with `Synced`;
what follows are changes. A source never raises for bad input: it yields a `Malformed` event for the object
and goes on. It raises only `SourceError`, for what makes the source itself impossible (a path that does not
exist at start, a kubeconfig that cannot be read).

What vanished while a source had lost touch (after `Stale`) it tells itself: it yields `Deleted` for each
object that a relist does not bring again, before the `Synced` that ends it. Whoever folds the events needs no
notion of a relist.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from discovery.model import MeshObject, ObjectKey, Problem


class SourceError(Exception):
    """The source cannot be used at all; the message says what to mend."""


class Upserted(msgspec.Struct, frozen=True):
    """The object exists with this content now."""

    object: MeshObject


class Deleted(msgspec.Struct, frozen=True):
    """The object exists no more."""

    key: ObjectKey


class Malformed(msgspec.Struct, frozen=True):
    """What `origin` (a file, or a kind and name at the API server) holds now cannot be used, or not all.

    Replaces what was said of the same origin before; an empty `problems` says that it is in order again.
    """

    origin: str
    problems: tuple[Problem, ...] = ()


class Synced(msgspec.Struct, frozen=True):
    """All that exists has been told once; sent again after every relist."""


class Stale(msgspec.Struct, frozen=True):
    """The source has lost touch: what was told last may be out of date. Ends with the next `Synced`."""

    reason: str


Event = Upserted | Deleted | Malformed | Synced | Stale


class Source(Protocol):
    """Where the mesh learns what exists."""

    async def check(self) -> None:
        """Find out, before anything depends on it, whether the source can be used at all.

        Asks nobody over the network: what may become right by waiting is no error.

        Raises:
            SourceError: it cannot, and waiting will not help.
        """
        ...

    def watch(self) -> AsyncIterator[tuple[Event, ...]]:
        """Yield batches of events until the iterator is closed.

        Raises:
            SourceError: the source cannot be used at all.
        """
        ...
