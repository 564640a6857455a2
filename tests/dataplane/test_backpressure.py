"""A client that does not read: what is sent to it, read for it and taken from it must come to a stop.

And it harms nobody else: not the connections to endpoints that it has used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from nodeagent.stats import columns
from tests.dataplane.harness import Handler, Mesh, answering, settled, until
from tests.dataplane.peers import client, small_buffers

GET = b"GET /%s HTTP/1.1\r\nHost: web\r\n\r\n"
GET_CLOSE = b"GET /0 HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
MEBIBYTE = 1024 * 1024


def sized(seen: list[int], *, close: bool = False) -> Handler:
    """A server that answers `/N` with N bytes and notes each N."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.split(b" ")[1][1:])
            seen.append(size)
            extra = b"Connection: close\r\n" if close else b""
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (extra, size) + b"x" * size)
            await writer.drain()
            if close:
                return

    return handle


async def test_the_worker_tells_what_is_open_and_paused(mesh: Mesh) -> None:
    def gauges() -> list[int]:
        mesh.proxy.count()
        base = mesh.proxy.runtime.layout.base(columns.WORKER_SLOT)
        return mesh.proxy.runtime.cells[base + columns.WORKER_CLIENTS :][:6].tolist()

    await mesh.serve(await mesh.endpoint(sized([])))
    small_buffers(mesh)
    async with client(mesh) as slow, client(mesh) as idle, asyncio.timeout(5):
        await idle.send(GET % b"1")
        await idle.receive_until(b"x")
        assert gauges() == [2, 0, 0, 1, 0, 0]
        await slow.send(GET % b"%d" % (4 * MEBIBYTE))
        await until(lambda: gauges() == [2, 1, 1, 0, 0, 1])
        await slow.receive_until(b"x", count=4 * MEBIBYTE)
        await until(lambda: gauges() == [2, 0, 0, 1, 0, 0])
    await until(lambda: gauges() == [0, 0, 0, 1, 0, 0])


class TestOneEndpoint:
    """A response that ends while its client's buffer is full leaves a connection that serves the next one."""

    SIZES = range(80_000, 140_000, 6_000)
    """Some of them end within the very piece that fills the buffer."""

    async def test_another_client_is_answered(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(sized([])))
        small_buffers(mesh)
        for size in self.SIZES:
            async with client(mesh) as slow, asyncio.timeout(2):
                await slow.send(GET % b"%d" % size)
                assert (await slow.receive(20)).startswith(b"HTTP/1.1 200 OK")
                assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 200 OK")

    async def test_another_client_is_answered_once_the_slow_one_has_read(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(sized([])))
        small_buffers(mesh)
        for size in self.SIZES:
            async with client(mesh) as slow, asyncio.timeout(2):
                await slow.send(GET % b"%d" % size)
                assert len((await slow.receive_until(b"x", count=size)).partition(b"\r\n\r\n")[2]) == size
                assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 200 OK")

    async def test_a_slow_reader_gets_all_of_many_responses(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(sized([])))
        small_buffers(mesh)
        async with client(mesh) as slow, asyncio.timeout(10):
            await slow.send((GET % b"150000") * 20)
            answer = await slow.receive_until(b"x", count=20 * 150_000)
            assert answer.count(b"HTTP/1.1 200 OK") == 20


class TestPipelining:
    """Pipelined requests, and a client that reads none of the answers."""

    @pytest.mark.parametrize(
        ("endpoints", "close"),
        [(1, False), (1, True), (2, True)],
        ids=["one", "one, closing", "two, closing"],
    )
    async def test_endpoints_are_asked_for_no_more(self, mesh: Mesh, endpoints: int, close: bool) -> None:
        seen: list[int] = []
        await mesh.serve(*[await mesh.endpoint(sized(seen, close=close)) for _ in range(endpoints)])
        small_buffers(mesh)
        async with client(mesh) as slow:
            await slow.send((GET % b"100000") * 60)
            asked = await settled(lambda: len(seen), below=20)
            assert asked >= 1
            async with asyncio.timeout(10):
                answers = await slow.receive_until(b"x", count=60 * 100_000)
            assert answers.count(b"HTTP/1.1 200 OK") == 60

    async def test_the_next_response_is_held_back_whoever_sends_it(self, mesh: Mesh) -> None:
        """The first answer fills the client's buffer, the second one comes from another endpoint."""
        seen: list[int] = []
        written = 0

        async def sized_or_large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            while size := int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1][1:]):
                seen.append(size)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
                await writer.drain()
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(64):
                writer.write(bytes(MEBIBYTE))
                await writer.drain()
                written += MEBIBYTE

        await mesh.serve(await mesh.endpoint(sized_or_large), await mesh.endpoint(sized_or_large))
        small_buffers(mesh)
        for size in TestOneEndpoint.SIZES:
            async with client(mesh) as slow:
                await slow.send(GET % b"%d" % size + GET % b"0")
                await until(lambda: size in seen)  # noqa: B023
                written = 0
                await settled(lambda: written, below=16 * MEBIBYTE, quiet=0.1)  # noqa: B023

    @pytest.mark.parametrize(
        ("annotations", "status"),
        [({}, b"503"), ({"svc.mesh/rate-limit": "1/h burst=1"}, b"429")],
        ids=["no endpoint", "rate limit"],
    )
    async def test_what_the_mesh_answers_itself_is_held_back_too(
        self, mesh: Mesh, annotations: Mapping[str, str], status: bytes
    ) -> None:
        await mesh.serve(
            *([await mesh.endpoint(answering())] if annotations else []), annotations=annotations
        )
        small_buffers(mesh)
        if annotations:
            await mesh.ask(GET_CLOSE)  # the one that is within the limit
        request = GET % b"0"
        async with client(mesh) as slow:
            sent = await slow.send_until_blocked(request * 1000, most=4 * MEBIBYTE)
            assert sent < 2 * MEBIBYTE
            assert mesh.count(columns.BYTES_SENT) < 2 * MEBIBYTE
            whole = sent // len(request)
            async with asyncio.timeout(20):
                answers = await slow.receive_until(b"Proxy-Status", count=whole)
            assert answers.count(b"HTTP/1.1 " + status) == whole


async def test_a_client_that_does_not_read_a_stream_stops_its_endpoint(mesh: Mesh) -> None:
    """The same for one response without end, in chunks and until close."""
    written = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        head = await reader.readuntil(b"\r\n\r\n")
        chunked = b"/1" in head
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n" % (b"Transfer-Encoding: chunked\r\n" if chunked else b""))
        block = b"y" * 10_000
        while True:
            writer.write(b"2710\r\n%b\r\n" % block if chunked else block)
            await writer.drain()
            written += len(block)

    await mesh.serve(await mesh.endpoint(endless))
    small_buffers(mesh)
    for path in (b"0", b"1"):
        async with client(mesh) as slow:
            await slow.send(GET % path)
            before = written
            await settled(lambda: written - before, below=16 * MEBIBYTE)  # noqa: B023
