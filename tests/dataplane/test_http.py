"""HTTP/1.1 through the proxy: framing, connection management, what is forwarded and what is not."""

from __future__ import annotations

import asyncio
import re

import msgspec
import pytest

from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, answering, read_head, until

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"


async def test_keep_alive_on_both_sides(mesh: Mesh) -> None:
    await mesh.serve(await mesh.endpoint(answering()))
    reader, writer = await mesh.connect()
    for _ in range(5):
        writer.write(GET)
        assert await read_head(reader) == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        assert await reader.readexactly(2) == b"ok"
    assert len(mesh.peers) == 1
    assert mesh.count(columns.REQUESTS_2XX) == 5
    assert mesh.count(columns.UPSTREAM_CONNECTIONS) == 1


async def test_pipelined_requests_are_answered_in_order(mesh: Mesh) -> None:
    async def echo_path(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    await mesh.serve(await mesh.endpoint(echo_path), await mesh.endpoint(echo_path))
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: web\r\n\r\n" % n for n in range(50))
    answer = await mesh.ask(requests + GET_CLOSE)
    assert re.findall(rb"\n\r\n(/[0-9]*)", answer) == [b"/%d" % n for n in range(50)] + [b"/"]


async def test_endpoints_take_turns(mesh: Mesh) -> None:
    endpoints = [await mesh.endpoint(answering(name)) for name in (b"one", b"two", b"three")]
    await mesh.serve(*endpoints)
    answers = [(await mesh.ask(GET_CLOSE)).rpartition(b"\n")[2] for _ in range(6)]
    assert answers == [b"one", b"two", b"three"] * 2


async def test_forwarded_for_and_hop_by_hop(mesh: Mesh) -> None:
    seen: list[bytes] = []
    await mesh.serve(await mesh.endpoint(answering(seen=seen)))
    await mesh.ask(
        b"GET http://web/x?y=1 HTTP/1.1\r\nHost: web\r\nConnection: close, x-private\r\nX-Private: 1\r\n"
        b"X-Forwarded-For: 1.2.3.4\r\nKeep-Alive: timeout=5\r\nX-Public: 2\r\n\r\n"
    )
    assert seen == [
        b"GET /x?y=1 HTTP/1.1\r\nHost: web\r\nX-Public: 2\r\nX-Forwarded-For: 1.2.3.4, 127.0.0.1\r\n\r\n"
    ]


async def test_what_a_client_says_of_those_before_it_passes(mesh: Mesh) -> None:
    """It may be an ingress that knows; docs/middleware/headers.md says whom endpoints may believe."""
    seen: list[bytes] = []
    await mesh.serve(await mesh.endpoint(answering(seen=seen)))
    fields = (
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nX-Real-IP: 1.2.3.4\r\n"
        b"Forwarded: for=1.2.3.4;proto=https\r\n"
    )
    await mesh.ask(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n" + fields + b"\r\n")
    assert seen == [b"GET / HTTP/1.1\r\nHost: web\r\n" + fields + b"X-Forwarded-For: 127.0.0.1\r\n\r\n"]


async def test_response_hop_by_hop_fields_are_removed(mesh: Mesh) -> None:
    extra = b"Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nX-End: 2\r\n"
    await mesh.serve(await mesh.endpoint(answering(extra=extra)))
    answer = await mesh.ask(GET_CLOSE)
    assert answer == b"HTTP/1.1 200 OK\r\nX-End: 2\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


async def test_head_has_no_body(mesh: Mesh) -> None:
    await mesh.serve(await mesh.endpoint(answering(b"x" * 100)))
    reader, writer = await mesh.connect()
    writer.write(GET.replace(b"GET", b"HEAD") + GET)
    assert b"Content-Length: 100" in await read_head(reader)
    assert b"Content-Length: 100" in await read_head(reader)
    assert await reader.readexactly(100) == b"x" * 100


async def test_informational_responses_pass(mesh: Mesh) -> None:
    async def hint_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    await mesh.serve(await mesh.endpoint(hint_first))
    answer = await mesh.ask(GET_CLOSE)
    assert answer == (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
        b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    )


async def test_expect_continue(mesh: Mesh) -> None:
    async def ask_for_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Expect: 100-continue" in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(5)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body)

    await mesh.serve(await mesh.endpoint(ask_for_body))
    reader, writer = await mesh.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert await read_head(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    await read_head(reader)
    assert await reader.readexactly(5) == b"hello"


async def test_chunked_bodies_and_wanted_trailers_pass_both_ways(mesh: Mesh) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"X-Sum: 1\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)

    await mesh.serve(await mesh.endpoint(echo), trailers=True)
    reader, writer = await mesh.connect()
    head = b"POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"
    for byte in head + body:
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert b"Transfer-Encoding: chunked" in await read_head(reader)
    assert await reader.readexactly(len(body)) == body


@pytest.mark.parametrize("keep", [b"", b"Connection: keep-alive\r\n"])
async def test_http_1_0_client_gets_a_chunked_body_plain(mesh: Mesh, keep: bytes) -> None:
    async def chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        writer.write(b"6\r\n world\r\n0\r\nX-T: 1\r\n\r\n")

    await mesh.serve(await mesh.endpoint(chunks))
    answer = await mesh.ask(b"GET / HTTP/1.0\r\n" + keep + b"\r\n")
    assert answer == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello world"


async def test_http_1_0_client_without_host(mesh: Mesh) -> None:
    seen: list[bytes] = []
    listener = await mesh.serve(await mesh.endpoint(answering(seen=seen)))
    await mesh.ask(b"\r\n\r\nGET / HTTP/1.0\r\n\r\n")
    assert b"Host: 127.64.0.10:%d\r\n" % listener.port in seen[0]


async def test_http_1_0_client_may_keep_alive(mesh: Mesh) -> None:
    await mesh.serve(await mesh.endpoint(answering()))
    reader, writer = await mesh.connect()
    for _ in range(2):
        writer.write(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert b"Connection: keep-alive\r\n" in await read_head(reader)
        assert await reader.readexactly(2) == b"ok"


async def test_body_until_close_becomes_chunked(mesh: Mesh) -> None:
    async def old_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")
        await writer.drain()

    await mesh.serve(await mesh.endpoint(old_server))
    reader, writer = await mesh.connect()
    for _ in range(2):
        writer.write(GET)
        assert await read_head(reader) == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert await reader.readuntil(b"0\r\n\r\n") == b"5\r\nhello\r\n0\r\n\r\n"


async def test_truncated_response_breaks_the_clients_connection(mesh: Mesh) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await writer.drain()

    await mesh.serve(await mesh.endpoint(cut))
    reader, writer = await mesh.connect()
    writer.write(GET)
    await read_head(reader)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(10)
    assert mesh.count(columns.UPSTREAM_TRUNCATED) == 1


async def test_upgrade_passes_through(mesh: Mesh) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Connection: upgrade\r\nUpgrade: websocket\r\n" in head
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := await reader.read(1000):
            writer.write(data.upper())
        writer.write(b"BYE")

    await mesh.serve(await mesh.endpoint(shout))
    reader, writer = await mesh.connect()
    writer.write(
        b"GET / HTTP/1.1\r\nHost: web\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    head = await read_head(reader)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Upgrade: websocket\r\n" in head
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"HELLO"
    writer.write_eof()
    assert await reader.read(-1) == b"BYE"


@pytest.mark.parametrize("request_line", [b"HEAD / HTTP/1.0", b"GET / HTTP/1.0"])
async def test_http_1_0_clients_hear_of_no_coding(mesh: Mesh, request_line: bytes) -> None:
    async def coded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = b"200 OK" if request_line.startswith(b"HEAD") else b"304 Not Modified"
        writer.write(b"HTTP/1.1 %b\r\nTransfer-Encoding: chunked\r\n\r\n" % status)

    await mesh.serve(await mesh.endpoint(coded))
    assert b"ransfer-" not in await mesh.ask(request_line + b"\r\n\r\n")


async def test_upgrade_required_says_to_what(mesh: Mesh) -> None:
    async def require(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: foo/2\r\n")
        writer.write(b"Content-Length: 0\r\n\r\n")

    await mesh.serve(await mesh.endpoint(require))
    answer = await mesh.ask(GET_CLOSE)
    assert b"\r\nUpgrade: foo/2\r\n" in answer
    assert b"\r\nConnection: upgrade\r\n" in answer


async def test_half_closing_client_is_answered(mesh: Mesh) -> None:
    await mesh.serve(await mesh.endpoint(answering()))
    reader, writer = await mesh.connect()
    writer.write(GET)
    writer.write_eof()
    assert (await reader.read(-1)).endswith(b"\r\n\r\nok")


async def test_response_before_the_body_has_come(mesh: Mesh) -> None:
    async def too_large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")

    await mesh.serve(await mesh.endpoint(too_large))
    answer = await mesh.ask(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000\r\n\r\nsome")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close\r\n" in answer


BAD_REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: web\r\nContent-Length: +1\r\n\r\n",
    b"GET / HTTP/1.1\nHost: web\n\n",
    b"GET / HTTP/1.1\r\nHost : web\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5_0\r\n",
]


@pytest.mark.parametrize("request_bytes", BAD_REQUESTS)
async def test_bad_request_is_refused_and_closed(mesh: Mesh, request_bytes: bytes) -> None:
    await mesh.serve(await mesh.endpoint(answering()))
    answer = await mesh.ask(request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Proxy-Status: svc.mesh; error=http_request_error" in answer


async def test_bad_request_behind_a_good_one_leaves_the_good_one_alone(mesh: Mesh) -> None:
    await mesh.serve(await mesh.endpoint(answering()))
    answer = await mesh.ask(GET + b"GET / HTTP/1.1\r\nHost : web\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 400 ")


@pytest.mark.parametrize(
    "response",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_bad_response_is_a_502(mesh: Mesh, response: bytes) -> None:
    async def badly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await reader.read(1)

    await mesh.serve(await mesh.endpoint(badly))
    answer = await mesh.ask(GET_CLOSE)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"error=http_protocol_error" in answer
    assert mesh.count(columns.UPSTREAM_PROTOCOL_ERROR) == 1


async def test_no_endpoint_is_a_503_that_says_so(mesh: Mesh) -> None:
    await mesh.serve()
    answer = await mesh.ask(GET_CLOSE)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'error=destination_unavailable; details="no_endpoint: default/web has no ready endpoint' in answer


async def test_large_bodies_stream_both_ways(mesh: Mesh) -> None:
    size = 8 * 1024 * 1024

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        left = size
        while left:
            data = await reader.read(min(left, 65536))
            left -= len(data)
            writer.write(data)
            await writer.drain()

    await mesh.serve(await mesh.endpoint(echo))
    reader, writer = await mesh.connect()
    payload = bytes(range(256)) * (size // 256)
    writer.write(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n" % size)

    async def send() -> None:
        for start in range(0, size, 100_000):
            writer.write(payload[start : start + 100_000])
            await writer.drain()

    sending = asyncio.create_task(send())
    await read_head(reader)
    async with asyncio.timeout(20):
        assert await reader.readexactly(size) == payload
    await sending


async def test_a_client_that_does_not_read_stops_the_endpoint(mesh: Mesh) -> None:
    written = 0
    stalled = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        block = b"x" * 65536
        while True:
            writer.write(block)
            try:
                async with asyncio.timeout(1):
                    await writer.drain()
            except TimeoutError:
                stalled.set()
                return
            written += len(block)

    await mesh.serve(await mesh.endpoint(flood))
    _, writer = await mesh.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(GET)
    async with asyncio.timeout(20):
        await stalled.wait()
    assert written < 64 * 1024 * 1024  # socket buffers, not ours


class TestTime:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(head_time=0.0, idle_time=0.0, stall_time=0.0)

    async def test_a_slow_head_is_answered_with_408(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(answering()))
        reader, writer = await mesh.connect()
        writer.write(b"GET / HT")
        await until(lambda: any(client._pending for client in mesh.clients))
        mesh.proxy.sweep()
        assert (await reader.read(-1)).startswith(b"HTTP/1.1 408 ")

    async def test_an_idle_connection_is_closed(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(answering()))
        reader, _ = await mesh.connect()
        await until(lambda: mesh.proxy.runtime.connections)
        mesh.proxy.sweep()
        assert await reader.read(-1) == b""

    async def test_a_body_that_never_comes_is_given_up(self, mesh: Mesh) -> None:
        async def wait_for_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(5)

        await mesh.serve(await mesh.endpoint(wait_for_body))
        reader, writer = await mesh.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\n")
        await until(lambda: mesh.peers)
        mesh.proxy.sweep()
        answer = await reader.read(-1)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"body_timeout" in answer

    async def test_a_request_whose_client_has_left_is_given_up(self, mesh: Mesh) -> None:
        lost = asyncio.Event()

        async def wait_for_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reader.read(1)
            lost.set()

        await mesh.serve(await mesh.endpoint(wait_for_end), annotations={"svc.mesh/retry-attempts": "2"})
        _, writer = await mesh.connect()
        writer.write(GET)
        writer.write_eof()
        await until(lambda: mesh.peers)
        await until(lambda: any(client._eof for client in mesh.clients))
        mesh.proxy.sweep()
        async with asyncio.timeout(10):
            await lost.wait()
        assert mesh.count(columns.REQUESTS_NONE) == 1


class TestLimits:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(connections_per_source=3, head_bytes=1000)

    async def test_connections_per_source(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(answering()))
        for _ in range(3):
            reader, writer = await mesh.connect()
            writer.write(GET)
            await read_head(reader)
        reader, writer = await mesh.connect()
        writer.write(GET)
        with pytest.raises(ConnectionResetError):
            await read_head(reader)

    async def test_the_worker_is_full(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(answering()))
        mesh.proxy.runtime.limits = msgspec.structs.replace(mesh.proxy.runtime.limits, connections=1)
        first, writer = await mesh.connect()
        writer.write(GET)
        await read_head(first)
        second, _ = await mesh.connect()
        with pytest.raises(ConnectionResetError):
            await second.read()
        assert mesh.cells[columns.WORKER_REFUSED_FULL] == 1
        writer.write(GET_CLOSE)
        assert (await first.read()).endswith(b"ok")

    async def test_a_head_that_is_too_large(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(answering()))
        answer = await mesh.ask(b"GET / HTTP/1.1\r\nHost: web\r\nX: " + b"x" * 1000)
        assert answer.startswith(b"HTTP/1.1 431 ")

    async def test_an_endless_pipeline_waits(self, mesh: Mesh) -> None:
        release = asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await release.wait()
            await answering()(reader, writer)

        await mesh.serve(await mesh.endpoint(slow))
        reader, writer = await mesh.connect()
        writer.write(GET * 2000)
        await until(lambda: any(len(client._pending) > 1000 for client in mesh.clients))
        release.set()
        for _ in range(2000):
            await read_head(reader)
            await reader.readexactly(2)


async def test_removed_route_finishes_what_is_under_way(mesh: Mesh) -> None:
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    listener = await mesh.serve(await mesh.endpoint(slow))
    idle, _ = await mesh.connect()
    reader, writer = await mesh.connect()
    writer.write(GET)
    await until(lambda: mesh.peers)
    mesh.apply(removed=(listener.key,))
    assert await idle.read(-1) == b""
    release.set()
    assert (await reader.read(-1)).endswith(b"Connection: close\r\n\r\nok")
    late, writer = await mesh.connect()
    writer.write(GET)
    with pytest.raises(ConnectionResetError):
        await read_head(late)


async def test_draining_worker_answers_with_connection_close(mesh: Mesh) -> None:
    await mesh.serve(await mesh.endpoint(answering()))
    reader, writer = await mesh.connect()
    writer.write(GET)
    await read_head(reader)
    await reader.readexactly(2)
    mesh.proxy.drain()
    writer.write(GET)
    assert (await reader.read(-1)).endswith(b"Connection: close\r\n\r\nok")
