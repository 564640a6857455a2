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
"""The receiver of the bytes does not keep up."""
OWN_FULL: Final = 2
"""The peer itself has not taken what we have sent to it."""
AHEAD: Final = 4
"""It has sent more than can be used yet."""
TURN: Final = 8
"""Other connections have their turn first."""


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
        """The address of the client that this connection is used for; empty if there is none."""
        return ""

    @property
    def held(self) -> int:
        """Bytes that wait here for their receiver."""
        return self.transport.get_write_buffer_size()

    @property
    def busy(self) -> int:
        """How many exchanges are in flight on it; 1 unless a subclass counts them."""
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
        """Remove a reason; continue to read if it was the last."""
        if self._holds:
            left = self._holds & ~reason
            if not left and not self.transport.is_closing():
                self.transport.resume_reading()
            self._holds = left

    def reset(self) -> None:
        """Break the connection off, so that the peer sees a reset and does not take it for a regular end."""
        if not self.lost:
            self.deadline = FOREVER
            reset(self.transport)

    def expire(self, now: float) -> None:
        """Its time is over: close it, unless a subclass does something else."""
        self.reset()

    def drain(self, now: float) -> None:
        """The worker drains. The connection is served to its end, unless a subclass does something else."""


def probe_peer(transport: asyncio.Transport) -> None:
    """Have the kernel find out, within two minutes, that the peer of a quiet connection has gone."""
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def reset(transport: asyncio.Transport) -> None:
    """Close a transport with a TCP reset, also one that is closing but cannot get rid of its last bytes.

    Do not call it after `connection_lost`: the descriptor may belong to another connection by then.
    """
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
