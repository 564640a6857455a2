"""Peers that asyncio's streams would not be: slow ones, hasty ones, and such as run beside the loop.

`Client` reads only when told to and knows how much it could send. `on_thread` serves an endpoint whose next
move does not wait for the loop under test. Both use blocking calls or bare sockets, never the proxy's code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator

from discovery.model import Endpoint
from nodeagent.settings import Limits
from tests.dataplane.harness import Mesh

SMALL = 16 * 1024
"""What a small socket buffer is asked to hold; the kernel makes twice as much of it."""


def small_buffers(mesh: Mesh) -> None:
    """Give what the last route's listener will accept small buffers in the kernel."""
    with socket.socket(fileno=os.dup(mesh.servers[-1].sockets[0].fileno())) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)


def limited(**changes: float) -> Limits:
    """Return the limits with these fields changed; fails where there is no such limit."""
    missing = set(changes) - set(Limits.__struct_fields__)
    assert not missing, f"Limits has no {', '.join(sorted(missing))}"
    return Limits(**changes)  # type: ignore[arg-type]


def with_reset(connection: socket.socket) -> None:
    """Close a socket so that the far side sees a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Client:
    """A client on a bare socket with small buffers."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(10):
            await self._loop.sock_sendall(self.socket, data)

    async def send_until_blocked(self, data: bytes, most: int, patience: float = 0.5) -> int:
        """Send `data` again and again; return the bytes that the far side took until it took no more."""
        sent = 0
        while sent < most:
            piece = memoryview(data)[sent % len(data) :]
            try:
                sent += self.socket.send(piece)
            except BlockingIOError:
                try:
                    async with asyncio.timeout(patience):
                        await _writable(self._loop, self.socket)
                except TimeoutError:
                    break
            await asyncio.sleep(0)
        return sent

    async def receive(self, most: int = 65536) -> bytes:
        """Return the next bytes; none at the end of the stream."""
        async with asyncio.timeout(10):
            return await self._loop.sock_recv(self.socket, most)

    async def receive_until(self, end: bytes, count: int = 1) -> bytes:
        """Return what comes up to the `count`-th occurrence of `end`, and whatever came right behind it."""
        received = bytearray()
        seen = 0
        searched = 0
        while seen < count:
            data = await self.receive()
            assert data, f"the connection ended after {seen} of {count} {end!r}"
            received += data
            while seen < count and (found := received.find(end, searched)) >= 0:
                seen += 1
                searched = found + len(end)
        return bytes(received)

    async def receive_all(self) -> bytes:
        """Return everything up to the end of the stream."""
        received = bytearray()
        while data := await self.receive():
            received += data
        return bytes(received)


async def _writable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    ready = loop.create_future()
    loop.add_writer(connection.fileno(), ready.set_result, None)
    try:
        await ready
    finally:
        loop.remove_writer(connection.fileno())


@contextlib.asynccontextmanager
async def client(mesh: Mesh) -> AsyncIterator[Client]:
    """Connect to the mesh's route."""
    assert mesh.listener is not None
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, mesh.listener.key)
        yield Client(connection)


@contextlib.contextmanager
def on_thread(serve: Callable[[socket.socket], None]) -> Iterator[Endpoint]:
    """Serve an endpoint on threads of its own, one for each connection, with a blocking socket."""
    accepted: list[socket.socket] = []

    def handle(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                accepted.append(connection)
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield Endpoint("127.0.0.1", listener.getsockname()[1])
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for connection in accepted:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Read from a blocking socket up to `end`; a stream that ends earlier is a `ConnectionError`."""
    received = b""
    while end not in received:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the stream has ended")
        received += data
    return received
