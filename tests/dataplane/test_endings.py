"""How a response ends must tell its client whether it is whole: a break must never look like an end."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, sweeping, until
from tests.dataplane.peers import Client, client, limited, small_buffers
from tests.dataplane.test_resilience import reset_on_close

BODIES = {
    "until close": b"\r\nhello",
    "length": b"Content-Length: 10\r\n\r\nhello",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "within a chunk": b"Transfer-Encoding: chunked\r\n\r\n8\r\nhello",
}
"""What the endpoint sends after its status line."""
REQUESTS = {
    "1.1": b"GET / HTTP/1.1\r\nHost: web\r\n\r\n",
    "1.1, close": b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n",
    "1.0": b"GET / HTTP/1.0\r\n\r\n",
}


class Breaking:
    """An endpoint that sends the beginning of a response and, when told to, closes or resets."""

    def __init__(self, beginning: bytes, ending: str) -> None:
        self.beginning = beginning
        self.ending = ending
        self.go = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + self.beginning)
        await self.go.wait()
        if self.ending == "reset":
            reset_on_close(writer)


async def until_reset(connection: Client) -> bytes:
    """Return what comes until a reset; an end is a failure."""
    received = b""
    while True:
        try:
            data = await connection.receive()
        except ConnectionResetError:
            return received
        assert data, "the connection ended as if the response were whole"
        received += data


@pytest.mark.parametrize("version", REQUESTS)
class TestCutShort:
    """A response that its endpoint did not end is broken off with a reset, whatever its framing."""

    @pytest.mark.parametrize(
        ("framing", "ending"),
        [("until close", "reset"), *((f, e) for f in list(BODIES)[1:] for e in ("close", "reset"))],
    )
    async def test_the_client_sees_a_reset(self, mesh: Mesh, version: str, framing: str, ending: str) -> None:
        endpoint = Breaking(BODIES[framing], ending)
        await mesh.serve(await mesh.endpoint(endpoint))
        async with client(mesh) as asking, asyncio.timeout(3):
            await asking.send(REQUESTS[version])
            received = await asking.receive_until(b"hello")
            endpoint.go.set()
            received += await until_reset(asking)
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"0\r\n\r\n" not in body
        await until(lambda: mesh.count(columns.UPSTREAM_TRUNCATED) == 1)

    async def test_a_body_until_close_that_is_closed_is_whole(self, mesh: Mesh, version: str) -> None:
        endpoint = Breaking(BODIES["until close"], "close")
        endpoint.go.set()
        await mesh.serve(await mesh.endpoint(endpoint))
        async with client(mesh) as asking, asyncio.timeout(3):
            await asking.send(REQUESTS[version])
            if version == "1.0":
                assert (await asking.receive_all()).endswith(b"\r\n\r\nhello")
            else:
                assert (await asking.receive_until(b"0\r\n\r\n")).endswith(b"5\r\nhello\r\n0\r\n\r\n")
        assert mesh.count(columns.UPSTREAM_TRUNCATED) == 0


async def test_a_malformed_response_body_ends_in_a_reset(mesh: Mesh) -> None:
    go = asyncio.Event()

    async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await go.wait()
        writer.write(b"no size\r\n")
        await reader.read(-1)

    await mesh.serve(await mesh.endpoint(garble))
    async with client(mesh) as asking, asyncio.timeout(3):
        await asking.send(REQUESTS["1.1"])
        await asking.receive_until(b"hello")
        go.set()
        assert b"0\r\n" not in await until_reset(asking)
    assert mesh.count(columns.UPSTREAM_PROTOCOL_ERROR) == 1


def closing_states(port: int) -> list[str]:
    """Return the states of this port's sockets that wait for a client to take what it never will."""
    states = []
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if int(local.partition(":")[2], 16) == port and state not in ("01", "06", "0A"):
            states.append(state)  # none of ESTABLISHED, TIME-WAIT, LISTEN
    return states


class TestStalledClients:
    """A client that never reads costs nothing once its time is up, not even a socket in the kernel."""

    @pytest.fixture
    def limits(self) -> Limits:
        return limited(stall_time=0.2)

    @pytest.mark.parametrize("version", ["1.1", "1.0"])
    async def test_no_socket_is_left_behind(self, mesh: Mesh, version: str) -> None:
        async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
            while True:
                writer.write(bytes(100_000))
                await writer.drain()

        route = await mesh.serve(await mesh.endpoint(large))
        small_buffers(mesh)
        async with sweeping(mesh), asyncio.timeout(10), contextlib.AsyncExitStack() as waiting:
            for _ in range(30):
                await (await waiting.enter_async_context(client(mesh))).send(REQUESTS[version])
            await until(lambda: mesh.count(columns.CONNECTIONS) == 30)
            await until(lambda: mesh.count(columns.CONNECTIONS_ACTIVE) == 0)
            assert closing_states(route.port) == []

    async def test_nor_by_what_the_mesh_answers_itself(self, mesh: Mesh) -> None:
        route = await mesh.serve()
        small_buffers(mesh)
        async with sweeping(mesh), client(mesh) as asking, asyncio.timeout(5):
            await asking.send(REQUESTS["1.1"] * 800 + b"nonsense\r\n\r\n")
            await until(lambda: mesh.count(columns.CONNECTIONS) == 1)
            await until(lambda: mesh.count(columns.CONNECTIONS_ACTIVE) == 0)
            assert closing_states(route.port) == []
