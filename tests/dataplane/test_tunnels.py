"""Every conversation ends, and leaves no descriptor behind: switched protocols, tcp ports and exchanges.

Counted are the descriptors of this process, which both peers of the proxy are in as well: a test ends its
own side, the endpoint's handler ends the other, and then the number must be what it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from nodeagent.plan.model import Protocol
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, descriptors, sweeping, until
from tests.dataplane.peers import client, limited, with_reset
from tests.dataplane.test_resilience import reset_on_close

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
TUNNELS = 50

Conversation = Callable[[Mesh], Awaitable[None]]


@contextlib.asynccontextmanager
async def leaving_none(mesh: Mesh) -> AsyncIterator[None]:
    """Check that as many descriptors are open afterwards as were before, once all has been closed."""
    before = descriptors()
    async with sweeping(mesh):
        yield
        with contextlib.suppress(AssertionError):
            await until(lambda: descriptors() <= before, seconds=3)
    assert descriptors() - before <= 0
    assert mesh.count(columns.CONNECTIONS_ACTIVE) == 0


@pytest.fixture
def limits() -> Limits:
    """Idle connections to endpoints are closed with the next sweep: they are no leak."""
    return limited(upstream_idle_time=0.0, connect_time=0.3)


class Talker:
    """An endpoint of both kinds of ports: it says hello, then does what it was told to."""

    def __init__(self, ending: str) -> None:
        self.ending = ending

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readexactly(1)) == b"G":
            await reader.readuntil(b"\r\n\r\n")
            writer.write(SWITCHED)
        writer.write(b"hello")
        if self.ending == "endpoint first":
            writer.write_eof()
            await reader.read(-1)
        elif self.ending == "endpoint resets":
            reset_on_close(writer)
        elif self.ending != "endpoint closes":
            with contextlib.suppress(ConnectionError):
                await reader.read(-1)
        if self.ending == "client first":
            writer.write(b"bye")


ENDINGS = ("client first", "endpoint first", "client resets", "endpoint resets", "endpoint closes")


async def converse(mesh: Mesh, protocol: Protocol, ending: str) -> None:
    """Open one tunnel or tcp connection and end it."""
    async with client(mesh) as talking:
        await talking.send(UPGRADE if protocol == "http" else b"?")
        try:
            received = await talking.receive_until(b"hello")
            if ending == "client resets":
                with_reset(talking.socket)
                return
            if ending == "client first":
                talking.socket.shutdown(socket.SHUT_WR)
                received += await talking.receive_until(b"bye")
            assert (received + await talking.receive_all()).endswith((b"hello", b"bye"))
        except (ConnectionError, AssertionError):
            assert ending == "endpoint resets"
        if ending == "endpoint first":
            await talking.send(b"and so")
            talking.socket.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0)


@pytest.mark.parametrize("protocol", ["http", "tcp"])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("stays", [False, True], ids=["closing", "half-closed"])
async def test_a_tunnel_that_has_ended_is_closed(
    mesh: Mesh, protocol: Protocol, ending: str, stays: bool
) -> None:
    await mesh.serve(await mesh.endpoint(Talker(ending)), protocol=protocol)
    async with leaving_none(mesh):
        await asyncio.gather(*(converse(mesh, protocol, ending) for _ in range(TUNNELS)))
