"""A server that speaks first may do so before its connection is known to be made; nothing is lost."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from discovery.model import Endpoint
from tests.dataplane.harness import Mesh

CONNECTIONS = 64
GREETING = b"220 ready\r\n"


@pytest.fixture
def greeter() -> Iterator[Endpoint]:
    """A server that greets and closes, on a thread of its own: its greeting can come at any moment."""

    def serve() -> None:
        for _ in range(CONNECTIONS):
            connection, _ = listener.accept()
            connection.sendall(GREETING)
            connection.close()

    with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Endpoint("127.0.0.1", listener.getsockname()[1])
        thread.join(10)


async def test_no_greeting_is_lost(mesh: Mesh, greeter: Endpoint) -> None:
    await mesh.serve(greeter, protocol="tcp")

    async def listen() -> bytes:
        reader, _ = await mesh.connect()
        async with asyncio.timeout(10):
            return await reader.read(-1)

    assert set(await asyncio.gather(*(listen() for _ in range(CONNECTIONS)))) == {GREETING}
