"""Connections to one endpoint: how many there may be, which requests wait for one, and what may be used
again."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, answering, read_head, settled, sweeping, until
from tests.dataplane.peers import client, limited, on_thread, read_until, with_reset
from tests.dataplane.test_resilience import closed_port

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


class Gate:
    """An endpoint that answers nothing until it is opened, then everything."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            self.waiting += 1
            await self.open.wait()
            self.waiting -= 1
            writer.write(NO_CONTENT)


class TestConnections:
    """No more than `upstream_connections` for each endpoint; other requests wait."""

    @pytest.fixture
    def limits(self) -> Limits:
        return limited(upstream_connections=4)

    async def test_requests_share_them(self, mesh: Mesh) -> None:
        gate = Gate()
        await mesh.serve(await mesh.endpoint(gate))
        asking = [asyncio.create_task(mesh.ask(GET_CLOSE)) for _ in range(20)]
        await until(lambda: gate.waiting == 4)
        await settled(lambda: len(mesh.peers), below=5)
        gate.open.set()
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*asking)
        assert all(answer.startswith(b"HTTP/1.1 204 ") for answer in answers)
        assert len(mesh.peers) == 4
        assert mesh.count(columns.UPSTREAM_CONNECTIONS) == 4

    async def test_an_endpoint_that_closes_after_each_answer(self, mesh: Mesh) -> None:
        """A place is free again when its connection is gone, not only when one is given back."""
        busy = most = 0

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.01)
            busy -= 1
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

        await mesh.serve(await mesh.endpoint(once))
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*(mesh.ask(GET_CLOSE) for _ in range(20)))
        assert all(answer.endswith(b"ok") for answer in answers)
        assert most <= 4
        assert len(mesh.peers) == 20

    async def test_each_endpoint_has_its_own(self, mesh: Mesh) -> None:
        gates = [Gate(), Gate()]
        await mesh.serve(*[await mesh.endpoint(gate) for gate in gates])
        asking = [asyncio.create_task(mesh.ask(GET_CLOSE)) for _ in range(12)]
        await until(lambda: all(gate.waiting == 4 for gate in gates))
        await settled(lambda: len(mesh.peers), below=9)
        for gate in gates:
            gate.open.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*asking)

    async def test_those_that_wait_hear_of_a_failure(self, mesh: Mesh) -> None:
        await mesh.serve(closed_port())
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*(mesh.ask(GET_CLOSE) for _ in range(20)))
        assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in answers)
        assert all(b"error=connection_refused" in answer for answer in answers)


class TestQueue:
    """Requests that wait for a connection: how many, and how long."""

    @pytest.fixture
    def limits(self) -> Limits:
        return limited(upstream_connections=1, upstream_queue=2)

    async def test_one_too_many_is_refused_at_once(self, mesh: Mesh) -> None:
        gate = Gate()
        await mesh.serve(await mesh.endpoint(gate))
        async with asyncio.timeout(5):
            first = asyncio.create_task(mesh.ask(GET_CLOSE))
            await until(lambda: gate.waiting == 1)
            asking = {asyncio.create_task(mesh.ask(GET_CLOSE)) for _ in range(3)}
            done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            answer = done.pop().result()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b'details="pool_full: ' in answer
            assert answer.endswith(b"(pool_full)\n")
            gate.open.set()
            answers = await asyncio.gather(first, *waiting)
        assert all(answer.startswith(b"HTTP/1.1 204 ") for answer in answers)
        assert len(mesh.peers) == 1

    async def test_a_client_that_leaves_makes_room(self, mesh: Mesh) -> None:
        gate = Gate()
        await mesh.serve(await mesh.endpoint(gate))
        async with asyncio.timeout(5):
            first = asyncio.create_task(mesh.ask(GET_CLOSE))
            await until(lambda: gate.waiting == 1)
            for gone in range(10):
                async with client(mesh) as leaving:
                    await leaving.send(GET)
                    await until(lambda: mesh.count(columns.CONNECTIONS_ACTIVE) == 2)
                    with_reset(leaving.socket)
                await until(lambda: mesh.count(columns.REQUESTS_NONE) == gone + 1)  # noqa: B023
            asking = [asyncio.create_task(mesh.ask(GET_CLOSE)) for _ in range(2)]
            await until(lambda: mesh.count(columns.CONNECTIONS_ACTIVE) == 3)
            gate.open.set()
            answers = await asyncio.gather(first, *asking)
        assert all(answer.startswith(b"HTTP/1.1 204 ") for answer in answers)
        assert len(mesh.peers) == 1


class TestQueueTime:
    """A request waits for a connection for `upstream_queue_time`."""

    @pytest.fixture
    def limits(self) -> Limits:
        return limited(upstream_connections=1, upstream_queue_time=0.2)

    @pytest.mark.parametrize("body", [b"", b"Content-Length: 4\r\n\r\nbody"], ids=["none", "body"])
    async def test_a_request_that_has_waited_too_long_is_refused(self, mesh: Mesh, body: bytes) -> None:
        gate = Gate()
        await mesh.serve(await mesh.endpoint(gate))
        async with sweeping(mesh), asyncio.timeout(5):
            first = asyncio.create_task(mesh.ask(GET_CLOSE))
            await until(lambda: gate.waiting == 1)
            answer = await mesh.ask(GET_CLOSE.removesuffix(b"\r\n") + (body or b"\r\n"))
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b'details="pool_timeout: ' in answer
            assert answer.endswith(b"(pool_timeout)\n")
            gate.open.set()
            assert (await first).startswith(b"HTTP/1.1 204 ")
            assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 204 ")
        assert len(mesh.peers) == 1


class TestSurplus:
    """What an endpoint sends unasked must not become the answer to the next request."""

    @pytest.mark.parametrize("method", [b"GET", b"POST"])
    async def test_a_second_answer_reaches_nobody(self, mesh: Mesh, method: bytes) -> None:
        """It comes while the worker is busy, so that it and the next request are found together."""
        go, sent = threading.Event(), threading.Event()

        def answer_twice(connection: socket.socket) -> None:
            while True:
                path = read_until(connection, b"\r\n\r\n").split(b" ")[1]
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
                if path == b"/first":
                    assert go.wait(5)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsurplus")
                    sent.set()

        with on_thread(answer_twice) as endpoint:
            await mesh.serve(endpoint)
            reader, writer = await mesh.connect()
            writer.write(b"GET /first HTTP/1.1\r\nHost: web\r\n\r\n")
            await reader.readuntil(b"/first")
            assert mesh.listener is not None
            with socket.create_connection(mesh.listener.key) as other:
                await until(lambda: mesh.count(columns.CONNECTIONS_ACTIVE) == 2)
                other.sendall(b"%b /next HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n" % method)
                go.set()
                assert sent.wait(5)  # on purpose not awaited: the loop does not run meanwhile
                other.setblocking(False)
                loop = asyncio.get_running_loop()
                received = b""
                async with asyncio.timeout(5):
                    while not received.endswith((b"/next", b"surplus")):
                        data = await loop.sock_recv(other, 65536)
                        assert data, received
                        received += data
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.endswith(b"/next")

    async def test_bytes_behind_an_answer_end_its_connection(self, mesh: Mesh) -> None:
        """The same in one piece: the client has its answer, and the rest is dropped."""

        async def chatty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 No\r\n")

        await mesh.serve(await mesh.endpoint(chatty))
        reader, writer = await mesh.connect()
        for _ in range(3):
            writer.write(GET)
            assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(2) == b"ok"
        assert len(mesh.peers) == 3

    async def test_a_connection_is_used_again_when_nothing_was_wrong(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(answering()))
        for _ in range(5):
            assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
        assert len(mesh.peers) == 1
