"""The probes against real servers: gRPC by its own library, HTTP of both versions, TCP, and bad ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
import pytest
import uvloop
from aiohttp import web

from hack.kit.ports import free_port
from nodeagent.health.asking import USER_AGENT, Asker, asking
from nodeagent.health.book import Address, Probe
from nodeagent.health.http2_question import MOST_BYTES
from nodeagent.plan.model import HealthCheck, UpstreamProtocol
from nodeagent.proxy.http2 import frames
from tests.http2.wire import BACK, answers, data, head

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
GRPC = HealthCheck("grpc", timeout=5.0)
HTTP = HealthCheck("http", timeout=5.0)
TCP = HealthCheck("tcp", timeout=5.0)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """As the agent."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    async with asking() as one:
        yield one


class Health(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A server's health service: `statuses` by the bytes of the request."""

    def __init__(self) -> None:
        self.statuses = {b"": SERVING, b"\x0a\x03a.B": NOT_SERVING}
        self.asked: list[Any] = []

    def service(self, details: Any) -> Any:
        async def check(request: bytes, context: Any) -> bytes:
            self.asked.append((details, context.time_remaining()))
            status = self.statuses.get(request)
            if status is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
                raise AssertionError
            return status

        if details.method != "/grpc.health.v1.Health/Check":
            return None
        return grpc.unary_unary_rpc_method_handler(check)


@contextlib.asynccontextmanager
async def grpc_server(*handlers: Any) -> AsyncIterator[Address]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield ("127.0.0.1", port)
    await server.stop(None)


@contextlib.asynccontextmanager
async def raw_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Address]:
    writers = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[:2]
    server.close()
    for writer in writers:
        writer.close()


def says(*answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return a server that says this whatever it is asked, and then leaves."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        for piece in answer:
            writer.write(piece)
            await writer.drain()
        writer.close()

    return serve


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Accept and say nothing."""


def probe(address: Address, check: HealthCheck, protocol: UpstreamProtocol = "http1") -> Probe:
    return Probe(address, check, protocol)


async def test_grpc(asker: Asker) -> None:
    health = Health()
    async with grpc_server(health) as address:
        assert await asker.ask(probe(address, GRPC)) == ""
        health.statuses[b""] = NOT_SERVING
        assert await asker.ask(probe(address, GRPC)) == "NOT_SERVING"
        health.statuses[b""] = SERVING
        assert await asker.ask(probe(address, GRPC)) == ""
        named = HealthCheck("grpc", timeout=5.0, service="a.B")
        assert await asker.ask(probe(address, named)) == "NOT_SERVING"
        unknown = HealthCheck("grpc", timeout=5.0, service="a.C")
        assert await asker.ask(probe(address, unknown)) == "grpc-status 5: it does not know the service"
    details, left = health.asked[0]
    assert dict(details.invocation_metadata)["user-agent"] == USER_AGENT
    assert left < 5.1


async def test_grpc_without_a_health_service(asker: Asker) -> None:
    async with grpc_server() as address:
        failure = await asker.ask(probe(address, GRPC))
    assert failure == "grpc-status 12: it has no grpc.health.v1.Health"


class Web:
    """An HTTP server whose `/healthz` answers `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.fields: list[Mapping[str, str]] = []

    @contextlib.asynccontextmanager
    async def serves(self) -> AsyncIterator[Address]:
        async def healthz(request: web.Request) -> web.Response:
            self.fields.append(dict(request.headers))
            location = {"Location": "/elsewhere"} if 300 <= self.status < 400 else {}
            return web.Response(status=self.status, headers=location)

        app = web.Application()
        app.router.add_get("/healthz", healthz)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][:2]
        await runner.cleanup()


async def test_http(asker: Asker) -> None:
    server = Web()
    check = HealthCheck("http", timeout=5.0, path="/healthz")
    async with server.serves() as address:
        for server.status in (200, 204, 302, 404, 503):
            failure = f"status {server.status}" if server.status >= 400 else ""
            assert await asker.ask(probe(address, check)) == failure
        assert await asker.ask(probe(address, HTTP)) == "status 404"
    assert server.fields[0]["User-Agent"] == USER_AGENT
    assert server.fields[0]["Connection"] == "close"


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (answers(1, 200), ""),
        (answers(1, 302), ""),
        (answers(1, 503), "status 503"),
        (answers(1, 200, end=False) + data(1, b"fine"), ""),
        (answers(1, 103, end=False) + answers(1, 200), ""),
        (answers(1, 200, end=False) + head(1, ("x-sum", "1")), ""),
        (frames.ping_frame(b"12345678", ack=False) + answers(1, 200), ""),
        (frames.goaway_frame(1, 0) + answers(1, 200), ""),
        (frames.goaway_frame(0, 11), "took no request and said GOAWAY with code 11"),
        (frames.reset_frame(1, 7), "broke the request off with code 7"),
        (answers(1, 200, end=False), "closed the connection without answering"),
        (answers(3, 200), "does not speak HTTP/2 as it should: an answer that nobody asked for"),
        (data(1, b"x"), "does not speak HTTP/2 as it should: DATA where there can be none"),
        (answers(1, 200, ("X", "y")), "does not speak HTTP/2 as it should: capitals in the field name 'X'"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "does not speak HTTP/2 as it should"),
    ],
)
async def test_http2(asker: Asker, answer: bytes, failure: str) -> None:
    async with raw_server(says(BACK + answer)) as address:
        told = await asker.ask(probe(address, HTTP, "http2"))
    assert told is not None
    assert told.startswith(failure)
    assert bool(told) == bool(failure)


async def test_http2_with_an_endless_answer(asker: Asker) -> None:
    body = data(1, b"x" * 16_000, end=False) * (MOST_BYTES // 16_000 + 1)
    async with raw_server(says(BACK + answers(1, 200, end=False), body, body)) as address:
        assert await asker.ask(probe(address, HTTP, "http2")) == "answers too much"


async def test_tcp(asker: Asker) -> None:
    async with raw_server(silent) as address:
        assert await asker.ask(probe(address, TCP)) == ""


@pytest.mark.parametrize("check", [GRPC, HTTP, TCP], ids=lambda check: check.kind)
async def test_nobody_is_there(asker: Asker, check: HealthCheck) -> None:
    assert "connect" in str(await asker.ask(probe(("127.0.0.1", free_port()), check)))


@pytest.mark.parametrize("protocol", ["http1", "http2"])
async def test_no_answer(asker: Asker, protocol: UpstreamProtocol) -> None:
    async with raw_server(silent) as address:
        check = HealthCheck("http", timeout=0.05)
        assert await asker.ask(probe(address, check, protocol)) == "no answer within 0.05s"


async def test_a_server_that_is_none(asker: Asker) -> None:
    async with raw_server(says(b"220 mail.example\r\n")) as address:
        assert await asker.ask(probe(address, HTTP))
        assert await asker.ask(probe(address, GRPC))


@pytest.mark.parametrize("check", [GRPC, HTTP, TCP], ids=lambda check: check.kind)
async def test_a_node_that_has_no_descriptor_left_blames_nobody(asker: Asker, check: HealthCheck) -> None:
    async with raw_server(silent) as address:
        held = [os.open(os.devnull, os.O_RDONLY)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            assert await asker.ask(probe(address, check)) is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in held:
                os.close(descriptor)
