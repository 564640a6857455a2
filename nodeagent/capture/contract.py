"""The interface of a capture: how connections to mesh addresses come to the workers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from nodeagent.plan.model import ListenerKey


class CaptureError(Exception):
    """The kernel refused; the message says what, and what is in force now."""


class Capture(Protocol):
    """Steers `(mesh address, port)` to the workers and refuses the rest of the mesh range at once."""

    async def start(self) -> None:
        """Set the capture up, and repair what a killed predecessor left. Idempotent.

        Raises:
            CaptureError: the machine does not allow it (a missing privilege or kernel feature).
        """
        ...

    async def apply(self, keys: Iterable[ListenerKey]) -> None:
        """Make exactly these TCP addresses and ports reach the workers, in one transaction. Idempotent.

        Raises:
            CaptureError: nothing was changed.
        """
        ...

    async def verify(self) -> None:
        """Repair what somebody else removed or changed since the last `apply`; to be called every few
        seconds.

        Raises:
            CaptureError: it could not be repaired.
        """
        ...

    async def close(self) -> None:
        """Remove everything that was made, except what a successor has taken over."""
        ...
