"""The cache on a real data plane: what endpoints are asked, and what clients get. For HTTP/2 see
`tests/http2/test_cache.py`."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from middleware.cache import MIDDLEWARE
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, answering, read_head, until
from tests.dataplane.test_resilience import reset_on_close

GET = b"GET /a HTTP/1.1\r\nHost: web\r\n\r\n"
GET_CLOSE = b"GET /a HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
ON = {"svc.mesh/cache": "on size=1Mi object=128Ki"}
KEPT = b"Cache-Control: max-age=60\r\n"


def count(mesh: Mesh, name: str) -> int:
    return mesh.metric("cache", f"svcmesh_cache_{name}")


def busy(mesh: Mesh) -> int:
    """Return how many clients wait for a response."""
    return sum(bool(one.busy) for one in mesh.clients)


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


class Gate:
    """An endpoint that answers when it is let, and counts what it is asked."""

    def __init__(self, head: bytes = KEPT, pieces: tuple[bytes, ...] = (b"whole",)) -> None:
        self.head = head
        self.pieces = pieces
        self.asked: list[bytes] = []
        self.open = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            await self.open.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n" % self.head)
            for piece in self.pieces:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")


async def test_a_response_is_asked_for_once(mesh: Mesh) -> None:
    seen: list[bytes] = []
    await mesh.serve(await mesh.endpoint(answering(b"hello", KEPT, seen)), annotations=ON)
    first, second = await mesh.ask(GET_CLOSE), await mesh.ask(GET_CLOSE)
    assert body_of(first) == body_of(second) == b"hello"
    assert len(seen) == 1
    assert b"Cache-Status: svc.mesh; fwd=uri-miss; fwd-status=200; stored\r\n" in first
    assert b"Cache-Status: svc.mesh; hit; ttl=" in second
    assert b"\r\nAge: " in second
    assert b'Proxy-Status: svc.mesh; details="cached"' in second
    assert second.count(b"Content-Length: 5\r\n") == 1
    assert (count(mesh, "hits"), count(mesh, "misses"), count(mesh, "stored")) == (1, 1, 1)
    assert count(mesh, "bytes") > 0


async def test_a_head_is_answered_from_what_a_get_has_brought(mesh: Mesh) -> None:
    seen: list[bytes] = []
    await mesh.serve(await mesh.endpoint(answering(b"hello", KEPT, seen)), annotations=ON)
    await mesh.ask(GET_CLOSE)
    answer = await mesh.ask(GET_CLOSE.replace(b"GET", b"HEAD"))
    assert body_of(answer) == b""
    assert b"Content-Length: 5\r\n" in answer
    assert len(seen) == 1


async def test_a_chunked_body_passes_at_once_and_is_kept_when_it_has_passed(mesh: Mesh) -> None:
    more = asyncio.Event()
    asked = 0

    async def streaming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n3\r\none\r\n" % KEPT)
            await more.wait()
            writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    await mesh.serve(await mesh.endpoint(streaming), annotations=ON)
    reader, writer = await mesh.connect()
    writer.write(GET)
    await read_head(reader)
    async with asyncio.timeout(10):
        assert await reader.readexactly(8) == b"3\r\none\r\n"  # though the body has not come
    more.set()
    await until(lambda: count(mesh, "stored") == 1)
    answer = await mesh.ask(GET_CLOSE)
    assert body_of(answer) == b"onetwo"
    assert b"Content-Length: 6\r\n" in answer
    assert asked == 1


async def test_a_body_that_is_too_large_passes_and_is_not_kept(mesh: Mesh) -> None:
    gate = Gate(pieces=(b"x" * 65536,) * 8)
    gate.open.set()
    await mesh.serve(await mesh.endpoint(gate.handle), annotations=ON)
    for _ in range(2):
        answer = await mesh.ask(GET_CLOSE)
        assert answer.count(b"x" * 1000) >= 8 * 65
    assert len(gate.asked) == 2
    assert count(mesh, "stored") == 0


async def test_a_body_that_is_cut_is_not_kept(mesh: Mesh) -> None:
    asked = 0

    async def cutting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n3\r\none\r\n" % KEPT)

    await mesh.serve(await mesh.endpoint(cutting), annotations=ON)
    for expected in (1, 2):
        reader, writer = await mesh.connect()
        writer.write(GET)
        await read_head(reader)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readuntil(b"0\r\n\r\n")
        assert asked == expected
    assert count(mesh, "stored") == 0


async def test_equal_requests_are_sent_once(mesh: Mesh) -> None:
    gate = Gate()
    await mesh.serve(await mesh.endpoint(gate.handle), annotations=ON)
    asking = [asyncio.create_task(mesh.ask(GET_CLOSE)) for _ in range(20)]
    await until(lambda: gate.asked and busy(mesh) == 20)
    gate.open.set()
    answers = await asyncio.gather(*asking)
    assert len(gate.asked) == 1
    assert [b"whole" in answer for answer in answers] == [True] * 20
    assert count(mesh, "collapsed") == 19


async def test_if_the_one_that_is_sent_is_given_up_another_is_sent(mesh: Mesh) -> None:
    gate = Gate()
    await mesh.serve(await mesh.endpoint(gate.handle), annotations=ON)
    _, writer = await mesh.connect()
    writer.write(GET)
    await until(lambda: gate.asked)
    asking = [asyncio.create_task(mesh.ask(GET_CLOSE)) for _ in range(5)]
    await until(lambda: busy(mesh) == 6)
    reset_on_close(writer)
    writer.close()
    await until(lambda: len(gate.asked) == 2)
    gate.open.set()
    for answer in await asyncio.gather(*asking):
        assert b"whole" in answer
    assert len(gate.asked) == 2


async def test_one_that_waits_too_long_is_sent(mesh: Mesh) -> None:
    gate = Gate()
    await mesh.serve(await mesh.endpoint(gate.handle), annotations={"svc.mesh/cache": "on collapse=50ms"})
    asking = [asyncio.create_task(mesh.ask(GET_CLOSE)) for _ in range(3)]
    await until(lambda: len(gate.asked) == 3)
    gate.open.set()
    for answer in await asyncio.gather(*asking):
        assert b"whole" in answer


async def test_a_failure_is_not_that_of_those_that_wait(mesh: Mesh) -> None:
    asked = 0
    fail = asyncio.Event()

    async def failing_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        if asked == 1:
            await fail.wait()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\nok" % KEPT)
        await reader.read(1)

    await mesh.serve(await mesh.endpoint(failing_once), annotations=ON)
    asking = [asyncio.create_task(mesh.ask(GET_CLOSE)) for _ in range(4)]
    await until(lambda: busy(mesh) == 4)
    fail.set()
    answers = sorted((await asyncio.gather(*asking)), key=lambda answer: answer[:12])
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 3 + [b"HTTP/1.1 502"]


async def test_a_stale_response_is_used_while_it_is_validated(mesh: Mesh) -> None:
    seen: list[bytes] = []
    hold = asyncio.Event()

    async def validating(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            seen.append(head)
            if b'If-None-Match: "1"\r\n' in head:
                await hold.wait()
                writer.write(b'HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nETag: "1"\r\n\r\n')
            else:
                caching = b'Cache-Control: max-age=0, stale-while-revalidate=60\r\nETag: "1"\r\n'
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n%b\r\none" % caching)

    await mesh.serve(await mesh.endpoint(validating), annotations=ON)
    assert body_of(await mesh.ask(GET_CLOSE)) == b"one"
    for _ in range(3):  # while the endpoint is asked, once, and does not answer
        answer = await mesh.ask(GET_CLOSE)
        assert body_of(answer) == b"one"
        assert b"svc.mesh; hit; ttl=" in answer
    assert len(seen) == 2
    hold.set()
    await until(lambda: count(mesh, "validated") == 1)
    assert b"svc.mesh; hit; ttl=" in await mesh.ask(GET_CLOSE)
    assert len(seen) == 2
    assert (count(mesh, "stale"), count(mesh, "hits")) == (3, 1)
    assert mesh.count(columns.REQUESTS + 2) == 5, "the validation is not a request to the Service"
    assert not any(one.busy for one in mesh.upstreams)


async def test_a_validation_that_fails_beside_hurts_nobody(mesh: Mesh) -> None:
    asked = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        if asked == 1:
            caching = b"Cache-Control: max-age=0, stale-while-revalidate=60\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n%b\r\none" % caching)
            await reader.read(1)

    await mesh.serve(await mesh.endpoint(once), annotations=ON)
    for number in range(1, 4):
        assert body_of(await mesh.ask(GET_CLOSE)) == b"one"
        await until(lambda number=number: asked >= number)  # type: ignore[misc]
    await until(lambda: not any(one.busy for one in mesh.upstreams))


async def test_a_stale_response_is_used_if_the_endpoints_fail(mesh: Mesh) -> None:
    caching = b"Cache-Control: max-age=0, stale-if-error=60\r\n"
    endpoint = await mesh.endpoint(answering(b"hello", caching))
    listener = await mesh.serve(endpoint, annotations=ON)
    await mesh.ask(GET_CLOSE)
    mesh.endpoints(listener)
    answer = await mesh.ask(GET_CLOSE)
    assert body_of(answer) == b"hello"
    assert b'Cache-Status: svc.mesh; fwd=stale; detail="no_endpoint"; ttl=' in answer


async def test_a_post_makes_what_is_kept_invalid(mesh: Mesh) -> None:
    seen: list[bytes] = []
    await mesh.serve(await mesh.endpoint(answering(b"hello", KEPT, seen)), annotations=ON)
    await mesh.ask(GET_CLOSE)
    await mesh.ask(b"POST /a HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    await mesh.ask(GET_CLOSE)
    assert [head.partition(b" ")[0] for head in seen] == [b"GET", b"POST", b"GET"]


async def test_a_websocket_is_not_answered_from_the_cache(mesh: Mesh) -> None:
    async def switching(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"Upgrade: websocket" in head:
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
                )
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\nok" % KEPT)

    await mesh.serve(await mesh.endpoint(switching), annotations=ON)
    await mesh.ask(GET_CLOSE)
    upgrade = GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert (await mesh.ask(upgrade)).startswith(b"HTTP/1.1 101 ")


async def test_a_get_with_a_body_has_no_part_in_it(mesh: Mesh) -> None:
    asked: list[bytes] = []

    async def reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(await reader.readexactly(4) if b"Content-Length: 4" in head else b"")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\nok" % KEPT)

    await mesh.serve(await mesh.endpoint(reading), annotations=ON)
    fat = GET_CLOSE.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\nevil")
    assert b"fwd=bypass" in await mesh.ask(fat)
    assert b"fwd=uri-miss" in await mesh.ask(GET_CLOSE)
    assert asked == [b"evil", b""]


async def test_changes_of_responses_for_one_client_are_not_kept(mesh: Mesh) -> None:
    seen: list[bytes] = []
    annotations = {**ON, "svc.mesh/response-headers": "add x-for=you"}
    await mesh.serve(await mesh.endpoint(answering(b"hello", KEPT, seen)), annotations=annotations)
    for _ in range(3):
        assert (await mesh.ask(GET_CLOSE)).count(b"x-for: you\r\n") == 1
    assert len(seen) == 1


async def test_a_validation_that_hangs_ends_when_the_plane_does(mesh: Mesh) -> None:
    """And it holds no connection to the endpoint open longer than that."""
    asked = 0

    async def hanging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            if asked == 1:
                caching = b"Cache-Control: max-age=0, stale-while-revalidate=60\r\n"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n%b\r\none" % caching)

    await mesh.serve(await mesh.endpoint(hanging), annotations=ON)
    for _ in range(3):
        assert body_of(await mesh.ask(GET_CLOSE)) == b"one"
    assert asked == 2
    assert sum(bool(one.busy) for one in mesh.upstreams) == 1
    await mesh.close()
    assert not mesh.upstreams


async def test_a_purge_of_a_running_cache(mesh: Mesh) -> None:
    """A new mark in the annotation drops what is kept, and what is under way is passed on and not kept; the
    cache goes on, with its other responses."""
    gate = Gate()
    gate.open.set()
    listener = await mesh.serve(await mesh.endpoint(gate.handle), annotations=ON)
    other = GET_CLOSE.replace(b"/a", b"/b")
    assert [body_of(await mesh.ask(one)) for one in (GET_CLOSE, other)] == [b"5\r\nwhole\r\n0\r\n\r\n"] * 2
    gate.open.clear()
    reader, writer = await mesh.connect()
    writer.write(GET.replace(b"/a", b"/a/slow"))
    await until(lambda: len(gate.asked) == 3)

    options = MIDDLEWARE.parse({**ON, "svc.mesh/cache-purge": "1 path=/a"})
    (rule,) = listener.rules
    layers = tuple(replace(one, options=options) if one.name == "cache" else one for one in rule.layers)
    mesh.apply(replace(listener, rules=(replace(rule, layers=layers),)))
    assert count(mesh, "purged") == 1
    gate.open.set()
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n0\r\n\r\n")).endswith(b"5\r\nwhole\r\n0\r\n\r\n")
    await until(lambda: not busy(mesh))

    for request in (GET_CLOSE, other, GET_CLOSE.replace(b"/a", b"/a/slow")):
        await mesh.ask(request)
        assert b"Cache-Status: svc.mesh; hit" in await mesh.ask(request)
    paths = [one.split(b" ")[1] for one in gate.asked]
    assert paths == [b"/a", b"/b", b"/a/slow", b"/a", b"/a/slow"]
