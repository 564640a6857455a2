"""What retry and circuit breaker learn from an exchange is what its endpoints did, not its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.dataplane.harness import Handler, Mesh, answering, read_head
from tests.dataplane.peers import client, with_reset
from tests.dataplane.test_resilience import reset_on_close

GET_CLOSE = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
UPLOAD_TIME = 0.3
UPLOADS = 12
"""At once: many more than the fewest outcomes that a breaker judges by."""

BREAKER = "svc.mesh/circuit-breaker"
SLOW = {BREAKER: "LatencyAtQuantileMS(50.0) > 100"}
FAILING = {BREAKER: "NetworkErrorRatio() > 0.1"}

Upload = Callable[[Mesh], Awaitable[None]]


def resetting(seen: list[bytes]) -> Handler:
    """A server that notes every request and resets its connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        reset_on_close(writer)

    return handle


@pytest.mark.parametrize(("good", "most"), [(1, 12), (2, 9)])
async def test_retries_do_not_make_a_bad_endpoint_everybodys_first_choice(
    mesh: Mesh, good: int, most: int
) -> None:
    """Each retry takes a turn; the bad endpoint must not get the next one every time."""
    seen: list[bytes] = []
    await mesh.serve(
        await mesh.endpoint(resetting(seen)),
        *[await mesh.endpoint(answering()) for _ in range(good)],
        annotations={"svc.mesh/retry-attempts": "2"},
    )
    answers = [await mesh.ask(GET_CLOSE) for _ in range(10)]
    assert len(seen) <= most * 2 // 3
    answers += [await mesh.ask(GET_CLOSE) for _ in range(10)]
    assert len(seen) <= most
    assert sum(answer.endswith(b"ok") for answer in answers) >= 18


async def begin(mesh: Mesh) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a head, then the beginning of its body, over some time."""
    reader, writer = await mesh.connect()
    writer.write(POST)
    for _ in range(6):
        writer.write(b"5\r\nhello\r\n")
        await asyncio.sleep(UPLOAD_TIME / 6)
    return reader, writer


async def slow_but_whole(mesh: Mesh) -> None:
    reader, writer = await begin(mesh)
    writer.write(b"0\r\n\r\n")
    assert (await read_head(reader)).startswith(b"HTTP/1.1 204 ")


async def malformed(mesh: Mesh) -> None:
    reader, writer = await begin(mesh)
    writer.write(b"no size\r\n")
    assert (await read_head(reader)).startswith(b"HTTP/1.1 400 ")


async def malformed_at_once(mesh: Mesh) -> None:
    assert (await mesh.ask(POST + b"no size\r\n")).startswith(b"HTTP/1.1 400 ")


async def given_up(mesh: Mesh) -> None:
    _, writer = await begin(mesh)
    writer.close()


async def broken_off(mesh: Mesh) -> None:
    async with client(mesh) as leaving:
        await leaving.send(POST + b"5\r\nhello\r\n")
        await asyncio.sleep(UPLOAD_TIME)
        with_reset(leaving.socket)


async def take_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that answers at once when it has all of a request."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"chunked" in head:
            await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")


class TestBreaker:
    """One client opens it for all others if what it does itself is held against the endpoints."""

    async def still_closed(self, mesh: Mesh, upload: Upload, rounds: int = 3) -> None:
        for _ in range(rounds):
            await asyncio.gather(*(upload(mesh) for _ in range(UPLOADS)))
            answer = await mesh.ask(GET_CLOSE)
            assert answer.startswith(b"HTTP/1.1 204 "), answer
        assert mesh.metric("circuit-breaker", "svcmesh_circuit_breaker_opened") == 0

    @pytest.mark.parametrize("upload", [slow_but_whole, malformed, given_up, broken_off])
    async def test_slow_uploads_are_no_latency(self, mesh: Mesh, upload: Upload) -> None:
        await mesh.serve(await mesh.endpoint(take_all), annotations=SLOW)
        async with asyncio.timeout(10):
            await self.still_closed(mesh, upload)

    @pytest.mark.parametrize("upload", [malformed, malformed_at_once, given_up, broken_off])
    async def test_what_clients_break_is_no_network_error(self, mesh: Mesh, upload: Upload) -> None:
        await mesh.serve(await mesh.endpoint(take_all), annotations=FAILING)
        async with asyncio.timeout(10):
            await self.still_closed(mesh, upload)

    async def test_a_slow_endpoint_opens_it(self, mesh: Mesh) -> None:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"0\r\n\r\n")
                await asyncio.sleep(UPLOAD_TIME)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        await mesh.serve(await mesh.endpoint(slow), annotations=SLOW)
        request = POST + b"5\r\nhello\r\n0\r\n\r\n"
        async with asyncio.timeout(10):
            for _ in range(2):
                await asyncio.gather(*(mesh.ask(request) for _ in range(UPLOADS)))
            assert b"(circuit_open)" in await mesh.ask(request)

    async def test_a_failing_endpoint_opens_it(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(resetting([])), annotations=FAILING)
        async with asyncio.timeout(10):
            while b"(circuit_open)" not in await mesh.ask(GET_CLOSE):
                pass
