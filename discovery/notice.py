"""A notice for the owner of a Service, and the contract of what delivers it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

import msgspec

from discovery.model import ServiceKey


class Notice(msgspec.Struct, frozen=True):
    """One notice about one Service."""

    service: ServiceKey
    uid: str
    """Of the Service, as Kubernetes has it: another Service of the same name has another."""
    type: Literal["Normal", "Warning"]
    reason: str
    """One word in CamelCase, such as `InvalidAnnotation`."""
    note: str
    """A sentence or two for people."""
    identity: tuple[str, ...]
    """What distinguishes notices: if this, `uid` and `reason` are equal, the notice is delivered once."""


class Announcer(Protocol):
    """Tells notices to owners."""

    def tell(self, notices: Iterable[Notice]) -> None:
        """Deliver these soon; never waits and never fails."""
        ...

    async def run(self) -> None:
        """Tell, until cancelled."""
        ...
