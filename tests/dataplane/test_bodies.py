"""Bodies on their way: an endpoint that answers before the request has ended, chunks, and trailers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, read_head, until

CHUNKED = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n%b\r\n"
CLOSE = b"Connection: close\r\n"
GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
RETRY = {"svc.mesh/retry-attempts": "1"}
"""Any layer at all: routes with layers take another way through the proxy."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """Return the next chunk's data; none for the last chunk, whose trailers are left unread."""
    size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
    return (await reader.readexactly(size + 2))[:-2] if size else b""


async def read_chunked(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return a chunked body's data, and its trailer section with the empty line behind it."""
    data = b""
    while piece := await read_chunk(reader):
        data += piece
    trailers = b""
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        trailers += line
    return data, trailers


@pytest.mark.parametrize("annotations", [{}, RETRY], ids=["plain", "layers"])
class TestEarlyAnswers:
    """The endpoint answers while the client still sends."""

    @pytest.mark.parametrize("framing", ["length", "chunked"])
    async def test_an_early_refusal_reaches_the_client_that_sends_on(
        self, mesh: Mesh, annotations: Mapping[str, str], framing: str
    ) -> None:
        """The refusal's head and body come apart, and the client goes on between them."""
        more = asyncio.Event()

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"some")
            writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\n")
            await reader.readuntil(b"more")
            more.set()
            writer.write(b"too large")
            while await reader.read(65536):
                pass

        await mesh.serve(await mesh.endpoint(refuse), annotations=annotations)
        reader, writer = await mesh.connect()
        if framing == "length":
            writer.write(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000\r\n\r\n")
        else:
            writer.write(CHUNKED % b"" + b"f4240\r\n")
        writer.write(b"some")
        async with asyncio.timeout(2):
            assert (await read_head(reader)).startswith(b"HTTP/1.1 413 ")
            writer.write(b"more")
            await more.wait()
            assert await reader.readexactly(9) == b"too large"

    @pytest.mark.parametrize("framing", ["length", "chunked"])
    async def test_an_echo_streams_both_ways(
        self, mesh: Mesh, annotations: Mapping[str, str], framing: str
    ) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(20 if b"Content-Length: " in head else 0):
                    writer.write(chunk(await reader.readexactly(10)))
                while b"Content-Length: " not in head and (data := await read_chunk(reader)):
                    writer.write(chunk(data))
                if b"Content-Length: " not in head:
                    await reader.readexactly(2)
                writer.write(b"0\r\n\r\n")

        await mesh.serve(await mesh.endpoint(echo), annotations=annotations)
        reader, writer = await mesh.connect()
        async with asyncio.timeout(2):
            for _ in range(2):  # the connections serve on afterwards
                if framing == "length":
                    writer.write(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 200\r\n\r\n")
                else:
                    writer.write(CHUNKED % b"")
                assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
                for number in range(20):
                    data = b"ping %05d" % number
                    writer.write(data if framing == "length" else chunk(data))
                    assert await read_chunk(reader) == data
                if framing == "chunked":
                    writer.write(b"0\r\n\r\n")
                assert await read_chunked(reader) == (b"", b"")
        assert len(mesh.peers) == 1
        assert mesh.count(columns.REQUESTS_2XX) == 2

    async def test_a_whole_answer_before_the_body_has_ended_ends_both_connections(
        self, mesh: Mesh, annotations: Mapping[str, str]
    ) -> None:
        """What is left of the body must not be taken for the next request, by nobody."""
        heads: list[bytes] = []

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            while await reader.read(65536):
                pass

        await mesh.serve(await mesh.endpoint(refuse), annotations=annotations)
        reader, writer = await mesh.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n" % (2 * len(GET)))
        async with asyncio.timeout(2):
            assert (await read_head(reader)).startswith(b"HTTP/1.1 403 ")
            writer.write(GET + GET + GET)
            assert await reader.read(-1) == b"no"
        assert len(heads) == 1


class TestTrailers:
    """Trailer fields end at the mesh, unless the client has said that it wants them."""

    async def send(self, mesh: Mesh, extra: bytes, answer: bytes) -> tuple[bytes, bytes, bytes, bytes]:
        """Send a chunked request with a trailer; return head, data and trailers as the endpoint saw them,
        and what the client got."""
        seen: list[bytes] = []

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            seen.extend(await read_chunked(reader))
            writer.write(answer)

        await mesh.serve(await mesh.endpoint(take))
        body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"
        async with asyncio.timeout(2):
            got = await mesh.ask(CHUNKED % (CLOSE + extra) + body)
        head, data, trailers = seen
        return head, data, trailers, got

    async def test_a_requests_trailers_do_not_reach_the_endpoint(self, mesh: Mesh) -> None:
        _, data, trailers, got = await self.send(mesh, b"", b"HTTP/1.1 204 No Content\r\n\r\n")
        assert (data, trailers) == (b"hello world", b"")
        assert got.startswith(b"HTTP/1.1 204 ")

    @pytest.mark.parametrize("step", [1, 3, 7])
    async def test_however_the_bytes_come(self, mesh: Mesh, step: int) -> None:
        received = b""

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal received
            await reader.readuntil(b"\r\n\r\n")
            received = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        await mesh.serve(await mesh.endpoint(take))
        reader, writer = await mesh.connect()
        message = CHUNKED % b"" + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"
        async with asyncio.timeout(2):
            for start in range(0, len(message), step):
                writer.write(message[start : start + step])
                await asyncio.sleep(0)
            assert (await read_head(reader)).startswith(b"HTTP/1.1 204 ")
        assert received.endswith(b"\r\n0\r\n\r\n")
        assert b"X-" not in received

    ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n"

    async def test_a_responses_trailers_do_not_reach_the_client(self, mesh: Mesh) -> None:
        *_, got = await self.send(mesh, b"", self.ANSWER)
        assert got.endswith(b"\r\n\r\n2\r\nok\r\n0\r\n\r\n")

    async def test_a_response_of_length_has_none_to_lose(self, mesh: Mesh) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n0\r\nX-Sum: 2\r\n"
        *_, got = await self.send(mesh, b"", answer)
        assert got.endswith(b"\r\n\r\n0\r\nX-Sum: 2\r\n")

    async def test_a_client_that_wants_them_gets_them(self, mesh: Mesh) -> None:
        head, *_, got = await self.send(mesh, b"TE: trailers\r\nConnection: te\r\n", self.ANSWER)
        assert b"\r\nTE: trailers\r\n" in head
        assert got.endswith(b"\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n")


class TestChunkSizes:
    """A chunk has at most 2**31 - 1 bytes: larger sizes overflow in some servers."""

    @pytest.mark.parametrize("size", [b"80000000", b"ffffffff", b"100000000", b"7fffffffffffffff"])
    async def test_a_larger_one_is_refused(self, mesh: Mesh, size: bytes) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"hello")
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        await mesh.serve(await mesh.endpoint(answer))
        async with asyncio.timeout(2):
            got = await mesh.ask(CHUNKED % CLOSE + size + b"\r\nhello")
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b'details="chunk: ' in got

    async def test_the_largest_one_passes(self, mesh: Mesh) -> None:
        received = asyncio.Event()

        async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"hello")
            received.set()
            await reader.read(-1)

        await mesh.serve(await mesh.endpoint(wait))
        _, writer = await mesh.connect()
        writer.write(CHUNKED % b"" + b"7fffffff\r\nhello")
        async with asyncio.timeout(2):
            await received.wait()

    async def test_one_in_a_response_breaks_it_off(self, mesh: Mesh) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n80000000\r\nhello")
            await reader.read(-1)

        await mesh.serve(await mesh.endpoint(answer))
        _, writer = await mesh.connect()
        writer.write(GET)
        await until(lambda: mesh.count(columns.UPSTREAM_PROTOCOL_ERROR) == 1, seconds=3)
        await until(lambda: mesh.count(columns.CONNECTIONS_ACTIVE) == 0)
