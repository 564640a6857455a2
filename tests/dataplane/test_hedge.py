"""A second try beside a slow one: which answer the client gets, and what becomes of the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from discovery.model import Endpoint
from middleware.hedge import FEWEST
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, read_head, until
from tests.dataplane.test_resilience import reset_on_close

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
PUT_CLOSE = b"PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
POST_CLOSE = b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEDGED = {"svc.mesh/hedge": "90%", "svc.mesh/retry-budget": "100% min=10/s"}


class Turns:
    """Endpoints that share a count of requests: the first `quick` are answered, then each has its turn."""

    def __init__(self) -> None:
        self.quick = FEWEST + 10
        self.turns: list[Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]] = []
        self.taken = 0
        self.bodies: list[bytes] = []
        self.broken_off = asyncio.Event()
        self.go_on = asyncio.Event()
        self.first_has_gone: Callable[[], Awaitable[None]]

    async def endpoint(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(4) if b"Content-Length: 4" in head else b""
            if self.quick:
                self.quick -= 1
                writer.write(OK)
                continue
            turn = self.turns[self.taken]
            self.taken += 1
            self.bodies.append(body)
            await turn(reader, writer)

    async def hang(self, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        """Never answer; see the connection end."""
        with contextlib.suppress(ConnectionError):
            assert await reader.read(1) == b""
        self.broken_off.set()
        raise ConnectionResetError

    async def answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async def answer_later(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.go_on.wait()
        writer.write(OK)

    async def break_off(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.go_on.set()
        raise ConnectionResetError

    async def break_off_later(self, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await self.go_on.wait()
        raise ConnectionResetError

    async def answer_when_the_other_has_gone(
        self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.go_on.set()
        await self.first_has_gone()
        writer.write(OK)


async def serve(mesh: Mesh, turns: Turns, **more: str) -> None:
    annotations = HEDGED | {f"svc.mesh/{name.replace('_', '-')}": value for name, value in more.items()}
    endpoints = [await mesh.endpoint(turns.endpoint) for _ in range(2)]
    await mesh.serve(*endpoints, annotations=annotations)
    await learn(mesh)


async def learn(mesh: Mesh) -> None:
    """Have the mesh see how long answers take."""
    reader, writer = await mesh.connect()
    for _ in range(FEWEST + 10):
        writer.write(GET)
        await read_head(reader)
        await reader.readexactly(2)
    writer.close()
    mesh.skip(1.05)  # what is usual is found out once a second


@pytest.mark.parametrize(("request_", "body"), [(GET_CLOSE, b""), (PUT_CLOSE, b"body")])
async def test_the_second_answers_and_the_first_is_given_up(mesh: Mesh, request_: bytes, body: bytes) -> None:
    turns = Turns()
    turns.turns = [turns.hang, turns.answer]
    await serve(mesh, turns)
    assert (await mesh.ask(request_)).endswith(b"ok")
    assert turns.bodies == [body, body]
    async with asyncio.timeout(10):
        await turns.broken_off.wait()
    assert mesh.metric("retry", "svcmesh_hedges") == 1
    assert mesh.count(columns.REQUESTS_2XX) == FEWEST + 11


async def test_the_first_answers_and_the_second_is_given_up(mesh: Mesh) -> None:
    turns = Turns()

    async def hang_and_let_the_first_answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        turns.go_on.set()
        await turns.hang(reader, writer)

    turns.turns = [turns.answer_later, hang_and_let_the_first_answer]
    await serve(mesh, turns)
    assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
    async with asyncio.timeout(10):
        await turns.broken_off.wait()
    assert mesh.metric("retry", "svcmesh_hedges") == 1


async def test_the_second_goes_on_when_the_first_breaks(mesh: Mesh) -> None:
    turns = Turns()
    turns.turns = [turns.break_off_later, turns.answer_when_the_other_has_gone]
    turns.first_has_gone = lambda: until(lambda: len([one for one in mesh.upstreams if one.busy]) == 1)
    await serve(mesh, turns)
    assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
    assert turns.taken == 2


async def test_the_first_goes_on_when_the_second_breaks(mesh: Mesh) -> None:
    turns = Turns()
    turns.turns = [turns.answer_later, turns.break_off]
    await serve(mesh, turns)
    assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
    assert turns.taken == 2


async def test_the_client_leaves_and_both_are_given_up(mesh: Mesh) -> None:
    turns = Turns()
    turns.turns = [turns.hang, turns.hang]
    await serve(mesh, turns)
    _, writer = await mesh.connect()
    writer.write(GET)
    await until(lambda: turns.taken == 2)
    reset_on_close(writer)
    writer.transport.abort()
    await until(lambda: not [one for one in mesh.upstreams if one.busy])


async def test_the_time_of_a_request_ends_both(mesh: Mesh) -> None:
    turns = Turns()
    turns.turns = [turns.hang, turns.hang]
    await serve(mesh, turns, timeout="3s")
    answer = await mesh.ask(GET_CLOSE)
    assert b"(request_timeout)" in answer
    assert turns.taken == 2
    await until(lambda: not [one for one in mesh.upstreams if one.busy])


async def test_a_post_has_one_try(mesh: Mesh) -> None:
    turns = Turns()
    turns.turns = [turns.hang]
    await serve(mesh, turns, timeout="300ms")
    assert b"(request_timeout)" in await mesh.ask(POST_CLOSE)
    assert turns.taken == 1
    assert mesh.metric("retry", "svcmesh_hedges") == 0


async def test_one_endpoint_alone_gets_no_second_try(mesh: Mesh) -> None:
    turns = Turns()
    turns.turns = [turns.hang]
    await serve(mesh, turns, timeout="300ms")
    assert mesh.listener is not None
    mesh.endpoints(mesh.listener, await mesh.endpoint(turns.endpoint))
    assert b"(request_timeout)" in await mesh.ask(GET_CLOSE)
    assert turns.taken == 1


async def test_over_http2(mesh: Mesh) -> None:
    """Two proxies stand before the endpoints and speak HTTP/2; the first one's stream is reset."""
    turns = Turns()
    turns.turns = [turns.hang, turns.answer]
    behind = [Mesh(Limits()), Mesh(Limits())]
    try:
        listeners = [await one.serve(await one.endpoint(turns.endpoint)) for one in behind]
        endpoints = [Endpoint(*listener.key) for listener in listeners]
        await mesh.serve(*endpoints, annotations=HEDGED, upstream="http2")
        await learn(mesh)
        assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
        async with asyncio.timeout(10):
            await turns.broken_off.wait()
        assert mesh.metric("retry", "svcmesh_hedges") == 1
    finally:
        await mesh.close()
        for one in behind:
            await one.close()
