"""The contract of a source: where Services, EndpointSlices and Pods are read from.

A source yields batches of events. The first batches describe everything that exists and end with `Synced`;
after that come changes. A source never raises for bad input: it yields a `Malformed` event for the object and
goes on. It raises only `SourceError`, if the source itself cannot work (a path that does not exist
at start, a kubeconfig that cannot be read).

A source reports also what vanished while it was out of touch (after `Stale`): it yields `Deleted` for each
object that is missing after a relist, before the `Synced` at its end. So consumers of the events need not
know about relists.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from discovery.model import MeshObject, ObjectKey, Problem


class SourceError(Exception):
    """The source cannot be used at all; the message says what to change."""


class Upserted(msgspec.Struct, frozen=True):
    """The object exists with this content now."""

    object: MeshObject


class Deleted(msgspec.Struct, frozen=True):
    """The object does not exist any more."""

    key: ObjectKey


class Malformed(msgspec.Struct, frozen=True):
    """What `origin` (a file, or a kind and name at the API server) holds now cannot be used, or not all.

    Replaces what was reported for the same origin before; an empty `problems` says that it is in order again.
    """

    origin: str
    problems: tuple[Problem, ...] = ()


class Synced(msgspec.Struct, frozen=True):
    """Everything that exists has been reported once; sent again after every relist."""


class Stale(msgspec.Struct, frozen=True):
    """The source is out of touch: what was last reported may be out of date. Ends with the next `Synced`."""

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
