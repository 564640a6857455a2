"""How the workers of a killed agent learn that another one has taken over.

Workers outlive an agent that is killed and keep serving their last plan. The next agent, once ready, listens
on an abstract Unix socket (its name is seen within the network namespace only, and vanishes with its
process); orphaned workers try to connect to it, and drain when they can.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import Final

RETRY: Final = 0.5
"""Seconds between two tries."""
_CREDENTIALS: Final = struct.Struct("3i")
"""Process, user and group (unix(7), SO_PEERCRED)."""


def successor_address(mesh_range: str) -> str:
    """Return the name of the socket on which the agent for this mesh range says that it is ready."""
    return f"\0svcmesh/{mesh_range}"


class Presence:
    """Says, for as long as it is open, that an agent serves this mesh range."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._task: asyncio.Task[None] | None = None
        self._server: asyncio.AbstractServer | None = None

    def announce(self) -> None:
        """Begin to listen; while a predecessor that is being replaced still has the name, try again in the
        background.
        """
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while True:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                listener.bind(self._address)
                listener.listen(16)
                break
            except OSError:
                listener.close()
                await asyncio.sleep(RETRY)
        self._server = await asyncio.start_unix_server(_hang_up, sock=listener)

    async def close(self) -> None:
        """Leave."""
        if self._task is not None:
            self._task.cancel()
        if self._server is not None:
            self._server.close()


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def wait_for_successor(address: str) -> None:
    """Return when another agent is ready."""
    loop = asyncio.get_running_loop()
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            try:
                await loop.sock_connect(probe, address)
                if _is_ours(probe):
                    return
            except OSError:
                pass  # nobody listens yet
        await asyncio.sleep(RETRY)


def _is_ours(probe: socket.socket) -> bool:
    """Whether the process that listens runs as the same user: any process in the network namespace can take
    the name.
    """
    credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return bool(user == os.geteuid())
