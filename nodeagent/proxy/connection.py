"""One transport and its owner: reading is held back by reasons, and it is owned until it is closed."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final, cast

from nodeagent.proxy.runtime import FOREVER, Runtime

NO_TRANSPORT: Final = cast("asyncio.Transport", None)
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

# Why nothing is read from a connection; it is read again when no reason is left.
PEER_FULL: Final = 1
"""Who gets the bytes does not keep up."""
OWN_FULL: Final = 2
"""Our side of it has not taken what we have sent."""
AHEAD: Final = 4
"""It has sent more than can be used yet."""
TURN: Final = 8
"""Others have their turn first."""


class Connection(asyncio.Protocol):
    """An open connection. Subclasses say what its bytes mean."""

    __slots__ = ("_holds", "deadline", "lost", "runtime", "transport", "write_paused")

    of_client = False

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.transport = NO_TRANSPORT
        self.deadline = FOREVER
        self.write_paused = False
        self.lost = False
        self._holds = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio calls this once."""
        self.transport = cast("asyncio.Transport", transport)
        self.runtime.connections[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio calls this once, last."""
        self.lost = True
        self.runtime.connections.pop(self, None)

    @property
    def owner(self) -> str:
        """The address of the client whose connection this is; empty if it is nobody's."""
        return ""

    @property
    def held(self) -> int:
        """Bytes that wait here for somebody."""
        return self.transport.get_write_buffer_size()

    @property
    def busy(self) -> int:
        """How much is under way on it; unless it knows better, the one thing that it is for."""
        return 1

    @property
    def paused(self) -> bool:
        """Whether nothing is read from it for now."""
        return self._holds != 0

    def hold(self, reason: int) -> None:
        """Read no more, for this reason."""
        if not self._holds and not self.transport.is_closing():
            self.transport.pause_reading()
        self._holds |= reason

    def let_go(self, reason: int) -> None:
        """Take back a reason; read on if it was the last."""
        if self._holds:
            left = self._holds & ~reason
            if not left and not self.transport.is_closing():
                self.transport.resume_reading()
            self._holds = left

    def reset(self) -> None:
        """Break off, so that the far side sees a reset: this is not the end of anything."""
        if not self.lost:
            self.deadline = FOREVER
            reset(self.transport)

    def expire(self, now: float) -> None:
        """Its time is up; unless it knows better, that is the end."""
        self.reset()

    def drain(self, now: float) -> None:
        """The worker drains; unless it knows better, it is served to its end."""


def probe_peer(transport: asyncio.Transport) -> None:
    """Have the kernel find out, within two minutes, that the peer of a quiet connection is no more."""
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def reset(transport: asyncio.Transport) -> None:
    """Close a transport with a TCP reset, also one that is closing but cannot get rid of its last bytes.

    Not after `connection_lost`: its descriptor may be somebody else's by then.
    """
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
