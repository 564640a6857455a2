"""Copies of requests, on a real data plane: whole, beside the request, and never in its way."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from discovery.model import Endpoint
from nodeagent.plan.model import BackendSpec
from nodeagent.settings import Limits
from nodeagent.stats.columns import FIRST_SLOT
from tests.dataplane.harness import Handler, Mesh, answering, until
from tests.dataplane.test_grpc import Handlers, serving
from tests.dataplane.test_layers import GET_CLOSE, silent

MIRROR = {"svc.mesh/mirror": "next"}


CHUNKED = (
    b"PUT / HTTP/1.1\r\nHost: web\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n0\r\n\r\n"
)
THE_COPYS = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nmirror"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"


def reading(seen: list[bytes], answer: bytes = THE_COPYS) -> Handler:
    """A server that notes each request, body included, and answers."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = b""
            if b"Content-Length: " in head:
                size = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
                body = await reader.readexactly(size)
            elif b"chunked" in head.lower():
                body = await reader.readuntil(b"0\r\n\r\n")
            seen.append(head + body)
            writer.write(answer)

    return handle


async def mirrored(mesh: Mesh, *copies: Endpoint, to: Handler | None = None) -> None:
    endpoint = await mesh.endpoint(to or reading([], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    await mesh.serve(endpoint, annotations=MIRROR, backends={"next": copies})


def counts(mesh: Mesh) -> tuple[int, int, int]:
    names = ("svcmesh_mirrored_requests", "svcmesh_mirror_failures", "svcmesh_mirror_left_out")
    sent, failed, left_out = (mesh.metric("mirror", name) for name in names)
    return sent, failed, left_out


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET_CLOSE,
        b"POST /a?b HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1024,
        CHUNKED,
    ],
)
async def test_both_get_the_same_and_the_client_one_answer(mesh: Mesh, request_bytes: bytes) -> None:
    first: list[bytes] = []
    second: list[bytes] = []
    endpoint = await mesh.endpoint(reading(first, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    await mesh.serve(endpoint, annotations=MIRROR, backends={"next": [await mesh.endpoint(reading(second))]})
    for _ in range(2):
        answer = await mesh.ask(request_bytes)
        assert answer.endswith(b"\r\n\r\nok")
        await until(lambda: len(second) == len(first))
    assert first == second
    assert counts(mesh) == (2, 0, 0)
    assert len(mesh.upstreams) == 2, "each has one connection, used again"


async def test_a_copy_that_gets_no_answer_is_in_nobodys_way(mesh: Mesh) -> None:
    await mirrored(mesh, await mesh.endpoint(silent))
    for _ in range(3):
        assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
    assert counts(mesh) == (3, 0, 0)


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", SWITCHED])
async def test_a_copy_with_a_bad_answer(mesh: Mesh, answer: bytes) -> None:
    await mirrored(mesh, await mesh.endpoint(reading([], answer)))
    assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
    await until(lambda: counts(mesh) == (1, 1, 0))


async def test_without_an_endpoint_and_with_one_that_is_gone(mesh: Mesh) -> None:
    await mirrored(mesh)
    assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
    await until(lambda: counts(mesh) == (1, 1, 0))
    gone = await mesh.endpoint(answering())
    mesh.servers[-1].close()
    await mirrored(mesh, gone)
    assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
    await until(lambda: counts(mesh) == (2, 2, 0))


@pytest.mark.parametrize("limits", [Limits(replay_bytes=1024)])
async def test_a_body_that_is_not_kept_is_not_copied(mesh: Mesh) -> None:
    seen: list[bytes] = []
    await mirrored(mesh, await mesh.endpoint(reading(seen)))
    head = b"POST / HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n"
    assert (await mesh.ask(head + b"x" * 100_000)).endswith(b"ok")
    assert counts(mesh) == (0, 0, 1)
    assert seen == []


async def test_an_endless_answer_is_cut(mesh: Mesh) -> None:
    cut = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        finally:
            cut.set()

    await mirrored(mesh, await mesh.endpoint(endless))
    assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
    async with asyncio.timeout(10):
        await cut.wait()
    assert counts(mesh) == (1, 0, 0)


async def test_the_copy_of_a_request_that_failed(mesh: Mesh) -> None:
    seen: list[bytes] = []
    await mesh.serve(annotations=MIRROR, backends={"next": [await mesh.endpoint(reading(seen))]})
    assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 503 ")
    await until(lambda: len(seen) == 1)


async def test_calls_of_grpc_over_http2(mesh: Mesh) -> None:
    first, second = Handlers(), Handlers()
    async with serving(first) as endpoint, serving(second) as copy:
        listener = await mesh.serve(endpoint, upstream="http2", annotations=MIRROR, backends={"next": []})
        spec = BackendSpec(dict(listener.backends)["next"], (copy,), protocol="http2")
        mesh.proxy.apply(backends=[(spec, FIRST_SLOT)])
        address, port = listener.key
        async with grpc.aio.insecure_channel(f"{address}:{port}") as channel:
            for _ in range(2):
                assert await channel.unary_unary("/test/Unary")(b"abc") == b"cba"
            await until(lambda: len(second.seen) == 2)
        assert [one.method for one in second.seen] == ["/test/Unary"] * 2
        await until(lambda: counts(mesh) == (2, 0, 0))
