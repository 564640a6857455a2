"""gRPC by its own library, client and server, through the data plane between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from discovery.model import Endpoint
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, until

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


async def unary(request: bytes, context: Any) -> bytes:
    await context.send_initial_metadata([one for one in context.invocation_metadata() if one[0] == "x-large"])
    context.set_trailing_metadata((("sum", str(len(request))), ("blob-bin", b"\0\xff")))
    return request[::-1]


async def refuses(_request: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: é")
    raise AssertionError


async def sleeps(_request: bytes, context: Any) -> bytes:
    await asyncio.sleep(60)
    return b""


async def counts(request: bytes, _context: Any) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


async def adds(requests: Any, _context: Any) -> bytes:
    return b"%d" % sum([int(request) async for request in requests])


async def echoes(requests: Any, _context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def service(self, details: Any) -> Any:
        self.seen.append(details)
        return {
            "/test/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/test/Refuses": grpc.unary_unary_rpc_method_handler(refuses),
            "/test/Sleeps": grpc.unary_unary_rpc_method_handler(sleeps),
            "/test/Counts": grpc.unary_stream_rpc_method_handler(counts),
            "/test/Adds": grpc.stream_unary_rpc_method_handler(adds),
            "/test/Echoes": grpc.stream_stream_rpc_method_handler(echoes),
        }.get(details.method)


@contextlib.asynccontextmanager
async def channel_through(mesh: Mesh, handlers: Any, **annotations: str) -> AsyncIterator[Any]:
    """Yield a channel to a server of gRPC through a data plane in front of it."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    asked = {f"svc.mesh/{name.replace('_', '-')}": value for name, value in annotations.items()}
    listener = await mesh.serve(Endpoint("127.0.0.1", port), upstream="http2", annotations=asked)
    address, mesh_port = listener.key
    async with grpc.aio.insecure_channel(f"{address}:{mesh_port}", options=OPTIONS) as channel:
        yield channel
    await server.stop(None)


@pytest.fixture
async def calls(mesh: Mesh) -> AsyncIterator[tuple[Mesh, Any, Handlers]]:
    """A data plane, a channel through it, and what is behind it."""
    handlers = Handlers()
    async with channel_through(mesh, handlers) as channel:
        yield mesh, channel, handlers


Calls = tuple[Mesh, Any, Handlers]


async def test_unary(calls: Calls) -> None:
    mesh, channel, handlers = calls
    call = channel.unary_unary("/test/Unary")(
        b"abc", metadata=(("x-blob-bin", bytes(range(256))), ("x-a", "1"))
    )
    assert await call == b"cba"
    trailing = dict(await call.trailing_metadata())
    assert (trailing["sum"], trailing["blob-bin"]) == ("3", b"\0\xff")
    metadata = dict(handlers.seen[0].invocation_metadata)
    assert metadata["x-blob-bin"] == bytes(range(256))
    assert mesh.count(columns.REQUESTS_2XX) == 1
    assert mesh.count(columns.UPSTREAM_CONNECTIONS) == 1


async def test_large_metadata(calls: Calls) -> None:
    _, channel, handlers = calls
    value = "x" * 7_000
    call = channel.unary_unary("/test/Unary")(b"", metadata=(("x-large", value),))
    assert await call == b""
    assert dict(await call.initial_metadata())["x-large"] == value
    assert dict(handlers.seen[0].invocation_metadata)["x-large"] == value


async def test_an_error(calls: Calls) -> None:
    _, channel, _ = calls
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary("/test/Refuses")(b"")
    assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert raised.value.details() == "not now: é"


async def test_no_such_method(calls: Calls) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await calls[1].unary_unary("/test/Nothing")(b"")
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_streams(calls: Calls) -> None:
    _, channel, _ = calls
    got = [answer async for answer in channel.unary_stream("/test/Counts")(b"1000")]
    assert got == [b"%d" % number for number in range(1000)]

    async def numbers() -> AsyncIterator[bytes]:
        for number in range(1000):
            yield b"%d" % number

    assert await channel.stream_unary("/test/Adds")(numbers()) == b"499500"


async def test_ping_pong(calls: Calls) -> None:
    call = calls[1].stream_stream("/test/Echoes")()
    for number in range(200):
        await call.write(b"%d" % number)
        assert await call.read() == b"%d" % number
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF


async def test_messages_of_8_mib(calls: Calls) -> None:
    message = bytes(range(256)) * (32 * 1024)
    assert await calls[1].unary_unary("/test/Unary")(message) == message[::-1]


async def test_messages_of_8_mib_each_way_at_once(calls: Calls) -> None:
    message = bytes(range(256)) * (32 * 1024)
    call = calls[1].stream_stream("/test/Echoes")(iter([message, message]))
    assert [answer async for answer in call] == [message, message]


async def test_a_thousand_at_once(calls: Calls) -> None:
    mesh, channel, _ = calls
    call = channel.unary_unary("/test/Unary")
    got = await asyncio.gather(*(call(b"%d" % number) for number in range(1000)))
    assert got == [(b"%d" % number)[::-1] for number in range(1000)]
    assert mesh.count(columns.REQUESTS_2XX) == 1000


async def test_a_deadline(calls: Calls) -> None:
    mesh, channel, _ = calls
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary("/test/Sleeps")(b"", timeout=0.2)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: not any(one.busy for one in mesh.proxy.runtime.connections))


UNTOLD = "remove grpc-timeout"
"""What keeps the endpoint from ending a call at its deadline, as the caller does not: it has no timer."""


async def test_the_mesh_keeps_the_deadline(mesh: Mesh) -> None:
    async with channel_through(mesh, Handlers(), request_headers=UNTOLD) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary("/test/Sleeps")(b"", metadata=(("grpc-timeout", "150m"),))
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "grpc_timeout" in str(raised.value.details())
    assert mesh.count(columns.MESH_RESPONSES) == 1
    await until(lambda: not any(one.busy for one in mesh.proxy.runtime.connections))


async def test_the_mesh_keeps_the_deadline_of_a_stream(mesh: Mesh) -> None:
    """What has come by then is there, and the status behind it."""
    async with channel_through(mesh, Handlers(), request_headers=UNTOLD) as channel:
        call = channel.stream_stream("/test/Echoes")(metadata=(("grpc-timeout", "2S"),))
        await call.write(b"one")
        assert await call.read() == b"one"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "grpc_timeout" in str(raised.value.details())


async def test_the_endpoint_s_context_knows_what_is_left(mesh: Mesh) -> None:
    left: list[float | None] = []

    async def tells(_request: bytes, context: Any) -> bytes:
        left.append(context.time_remaining())
        return b""

    method = grpc.unary_unary_rpc_method_handler(tells)
    handlers = grpc.method_handlers_generic_handler("test", {"Tells": method})
    async with channel_through(mesh, handlers, timeout="40s", fault="delay 300ms") as channel:
        for timeout in (30, 300, None):
            await channel.unary_unary("/test/Tells")(b"", timeout=timeout)
    caller, owner, nobody = left
    assert caller is not None
    assert caller < 29.8
    assert owner is not None
    assert owner < 40.0
    assert nobody is None


async def test_a_cancellation(calls: Calls) -> None:
    mesh, channel, handlers = calls
    call = channel.unary_unary("/test/Sleeps")(b"")
    await until(lambda: handlers.seen)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: not any(one.busy for one in mesh.proxy.runtime.connections))


async def test_the_mesh_s_own_answers(calls: Calls) -> None:
    """They are of gRPC: the caller learns the status and the reason."""
    mesh, channel, _ = calls
    assert mesh.listener is not None
    mesh.endpoints(mesh.listener)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary("/test/Unary")(b"abc")
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "no_endpoint" in str(raised.value.details())
    assert mesh.count(columns.MESH_RESPONSES) == 1
