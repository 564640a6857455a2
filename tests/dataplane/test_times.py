"""How long an exchange may take, and from when on its time runs."""

from __future__ import annotations

import asyncio
import socket

import pytest

from nodeagent.settings import Limits
from tests.dataplane.harness import Mesh, answering, read_head, sweeping, until
from tests.dataplane.peers import SMALL, client, limited, small_buffers

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
STALL_TIME = 0.2
RESPONSE_TIME = 0.2

POSTS = {
    "length": (b"Content-Length: 5", b"hello"),
    "chunked": (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
}


def post(framing: str) -> tuple[bytes, bytes]:
    """Return a request's head and its body."""
    field, body = POSTS[framing]
    return b"POST / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n%b\r\n\r\n" % field, body


class TestStallTime:
    """The time in which a peer that owes a byte must send or take one. A client that has sent its whole
    request owes none."""

    @pytest.fixture
    def limits(self) -> Limits:
        return limited(stall_time=STALL_TIME)

    @pytest.mark.parametrize("framing", POSTS)
    @pytest.mark.parametrize("split", [False, True], ids=["at once", "later"])
    async def test_a_request_with_a_body_may_be_answered_late(
        self, mesh: Mesh, framing: str, split: bool
    ) -> None:
        head, body = post(framing)

        async def think(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(body)
            await asyncio.sleep(4 * STALL_TIME)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")

        await mesh.serve(await mesh.endpoint(think))
        async with sweeping(mesh), asyncio.timeout(5):
            reader, writer = await mesh.connect()
            writer.write(head if split else head + body)
            if split:
                await until(lambda: mesh.peers)
                writer.write(body)
            answer = await reader.read(-1)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"late")

    async def test_an_endpoint_that_takes_a_body_slowly_but_steadily_gets_all_of_it(self, mesh: Mesh) -> None:
        size = 512 * 1024

        async def take_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            left = size
            while left:
                left -= len(await reader.read(8192))
                await asyncio.sleep(0.01)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")

        await mesh.serve(await mesh.endpoint(take_slowly))
        async with sweeping(mesh), asyncio.timeout(20):
            reader, writer = await mesh.connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n" % size)
            await until(lambda: mesh.upstreams)
            for upstream in mesh.upstreams:
                connection = upstream.transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
            writer.write(bytes(size))
            assert (await reader.read(-1)).endswith(b"slow")

    async def test_a_client_that_reads_slowly_but_steadily_gets_everything(self, mesh: Mesh) -> None:
        size = 512 * 1024
        await mesh.serve(await mesh.endpoint(answering(bytes(size))))
        small_buffers(mesh)
        async with sweeping(mesh), client(mesh) as asking, asyncio.timeout(20):
            for request in (GET, GET_CLOSE):
                await asking.send(request)
                received = 0
                while received < size:
                    received += len(await asking.receive(8192))
                    await asyncio.sleep(0.01)

    @pytest.mark.parametrize("framing", ["none", *POSTS])
    async def test_a_steady_response_may_take_longer(self, mesh: Mesh, framing: str) -> None:
        head, body = post(framing) if framing in POSTS else (GET_CLOSE, b"")

        async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(body or b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n")
            for _ in range(40):
                writer.write(b".")
                await asyncio.sleep(STALL_TIME / 10)

        await mesh.serve(await mesh.endpoint(trickle))
        async with sweeping(mesh), asyncio.timeout(5):
            answer = await mesh.ask(head + body)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"." * 40)

    async def test_a_steady_upload_may_take_longer(self, mesh: Mesh) -> None:
        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"0\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        await mesh.serve(await mesh.endpoint(swallow))
        head, _ = post("chunked")
        async with sweeping(mesh), asyncio.timeout(5):
            reader, writer = await mesh.connect()
            writer.write(head)
            for _ in range(40):
                writer.write(b"1\r\nx\r\n")
                await asyncio.sleep(STALL_TIME / 10)
            writer.write(b"0\r\n\r\n")
            assert (await reader.read(-1)).startswith(b"HTTP/1.1 200 OK\r\n")

    @pytest.mark.parametrize("framing", POSTS)
    async def test_a_body_that_stops_is_given_up(self, mesh: Mesh, framing: str) -> None:
        lost = asyncio.Event()

        async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.read(-1)
            finally:
                lost.set()

        head, body = post(framing)
        await mesh.serve(await mesh.endpoint(wait))
        async with sweeping(mesh), asyncio.timeout(5):
            answer = await mesh.ask(head + body[:4])
            assert answer.startswith(b"HTTP/1.1 408 ")
            await lost.wait()


class TestResponseTime:
    """From the last byte of a request to the response's head: `Limits.response_time`."""

    @pytest.fixture
    def limits(self) -> Limits:
        return limited(response_time=RESPONSE_TIME)

    @pytest.mark.parametrize("framing", ["none", *POSTS])
    async def test_a_silent_endpoint_is_a_504(self, mesh: Mesh, framing: str) -> None:
        lost = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.read(-1)
            finally:
                lost.set()

        head, body = post(framing) if framing in POSTS else (GET_CLOSE, b"")
        await mesh.serve(await mesh.endpoint(silent))
        async with sweeping(mesh), asyncio.timeout(5):
            answer = await mesh.ask(head + body)
            await lost.wait()
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b'details="response_timeout: ' in answer
        assert answer.endswith(b"(response_timeout)\n")

    async def test_the_clients_connection_serves_on(self, mesh: Mesh) -> None:
        asked = 0

        async def silent_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            if asked == 1:
                await reader.read(-1)
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        await mesh.serve(await mesh.endpoint(silent_once))
        async with sweeping(mesh), asyncio.timeout(5):
            reader, writer = await mesh.connect()
            writer.write(GET + GET)
            assert (await read_head(reader)).startswith(b"HTTP/1.1 504 ")
            await reader.readuntil(b"(response_timeout)\n")
            assert (await read_head(reader)).startswith(b"HTTP/1.1 204 ")

    async def test_its_time_begins_with_the_last_byte_of_the_request(self, mesh: Mesh) -> None:
        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"0\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        await mesh.serve(await mesh.endpoint(swallow))
        head, _ = post("chunked")
        async with sweeping(mesh), asyncio.timeout(5):
            reader, writer = await mesh.connect()
            writer.write(head)
            for _ in range(20):
                writer.write(b"1\r\nx\r\n")
                await asyncio.sleep(RESPONSE_TIME / 5)
            writer.write(b"0\r\n\r\n")
            assert (await reader.read(-1)).startswith(b"HTTP/1.1 200 OK\r\n")

    async def test_a_body_may_come_later_than_that(self, mesh: Mesh) -> None:
        async def slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            await asyncio.sleep(4 * RESPONSE_TIME)
            writer.write(b"late")

        await mesh.serve(await mesh.endpoint(slow_body))
        async with sweeping(mesh), asyncio.timeout(5):
            assert (await mesh.ask(GET_CLOSE)).endswith(b"late")

    async def test_an_interim_response_is_none(self, mesh: Mesh) -> None:
        async def processing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await reader.read(-1)

        await mesh.serve(await mesh.endpoint(processing))
        async with sweeping(mesh), asyncio.timeout(5):
            answer = await mesh.ask(GET_CLOSE)
        assert answer.startswith(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 504 ")

    async def test_an_idempotent_request_may_be_sent_to_another_endpoint(self, mesh: Mesh) -> None:
        """A silent endpoint is a failed one: `retry-on: gateway-error` means its 504, too."""

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(-1)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        await mesh.serve(
            await mesh.endpoint(silent),
            await mesh.endpoint(answer),
            annotations={"svc.mesh/retry-attempts": "1", "svc.mesh/retry-on": "gateway-error"},
        )
        async with sweeping(mesh), asyncio.timeout(5):
            assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 204 ")
            assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 204 ")
