"""The listening sockets of loopback capture: one for each mesh address and port, which may be taken.

A port that cannot be bound harms no other. It is tried again until it is free or not wanted any more.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterable

from nodeagent.capture.occupant import occupant
from nodeagent.control.messages import PortFailure
from nodeagent.plan.model import ListenerKey

Serve = Callable[[socket.socket], Awaitable[asyncio.Server]]


class LoopbackListeners:
    """Listens on every address and port that is wanted, as far as the system lets it.

    `serve` makes a server of a bound socket.
    """

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._servers: dict[ListenerKey, asyncio.Server] = {}
        self._failed: dict[ListenerKey, tuple[int | None, PortFailure]] = {}
        """With the system's number of the error."""

    @property
    def failures(self) -> tuple[PortFailure, ...]:
        """The ports that are wanted and could not be bound."""
        return tuple(failure for _, failure in self._failed.values())

    async def follow(self, wanted: Iterable[ListenerKey], unwanted: Iterable[ListenerKey]) -> None:
        """Listen on what is wanted besides what was before, and on what is unwanted no more."""
        for key in unwanted:
            self._failed.pop(key, None)
            server = self._servers.pop(key, None)
            if server is not None:
                server.close()
        for key in wanted:
            if key not in self._servers:
                await self._listen(key)

    async def retry(self) -> bool:
        """Try again what has failed; return whether `failures` differ from before."""
        before = dict(self._failed)
        for key in before:
            await self._listen(key)
        return self._failed != before

    def close(self) -> None:
        """Listen on nothing any more."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        self._failed.clear()

    async def _listen(self, key: ListenerKey) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(key)
            self._servers[key] = await self._serve(listener)
        except OSError as error:
            listener.close()
            known = self._failed.get(key)
            if known is None or known[0] != error.errno:
                self._failed[key] = (error.errno, _describe(key, error))
        else:
            self._failed.pop(key, None)


def _describe(key: ListenerKey, error: OSError) -> PortFailure:
    address, port = key
    # asyncio wraps the system's words in its own; the number says it plainly.
    reason = os.strerror(error.errno) if error.errno else str(error)
    taken_by = occupant(address, port, "tcp") if error.errno == errno.EADDRINUSE else ""
    return PortFailure(
        key,
        f"a worker cannot listen on {address}:{port}: {reason}" + (f" ({taken_by})" if taken_by else ""),
        "a port that nothing else on this machine listens on: stop that program, or give the Service "
        "another port",
        f"the mesh does not serve connections to {address}:{port}: they are refused, or reach that other "
        "program; the mesh tries again every second",
    )
