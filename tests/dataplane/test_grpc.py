"""gRPC by its own library, client and server, through the data plane between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from discovery.model import Endpoint
from middleware.grpc import GrpcStatus
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


async def greets(requests: Any, context: Any) -> AsyncIterator[bytes]:
    await context.send_initial_metadata((("x-greeting", "hello"),))
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
            "/test/Greets": grpc.stream_stream_rpc_method_handler(greets),
        }.get(details.method)


@contextlib.asynccontextmanager
async def serving(handlers: Any) -> AsyncIterator[Endpoint]:
    """Run a server of gRPC."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Endpoint("127.0.0.1", port)
    await server.stop(None)


@contextlib.asynccontextmanager
async def channel_to(mesh: Mesh, *endpoints: Endpoint, **annotations: str) -> AsyncIterator[Any]:
    """Serve these endpoints, and make a channel of a caller; `retry_on` is `svc.mesh/retry-on`."""
    asked = {f"svc.mesh/{name.replace('_', '-')}": value for name, value in annotations.items()}
    listener = await mesh.serve(*endpoints, upstream="http2", annotations=asked)
    address, mesh_port = listener.key
    async with grpc.aio.insecure_channel(f"{address}:{mesh_port}", options=OPTIONS) as channel:
        yield channel


@contextlib.asynccontextmanager
async def channel_through(mesh: Mesh, handlers: Any, **annotations: str) -> AsyncIterator[Any]:
    """Yield a channel to a server of gRPC through a data plane in front of it."""
    async with serving(handlers) as endpoint, channel_to(mesh, endpoint, **annotations) as channel:
        yield channel


@pytest.fixture
async def calls(mesh: Mesh) -> AsyncIterator[tuple[Mesh, Any, Handlers]]:
    """A server of gRPC, a data plane in front of it, and a channel through that."""
    handlers = Handlers()
    async with serving(handlers) as endpoint, channel_to(mesh, endpoint) as channel:
        yield mesh, channel, handlers


def counted(mesh: Mesh) -> dict[str, int]:
    """Return how many calls have ended with which status."""
    counts = {status.name: mesh.count(columns.GRPC_CALLS + status) for status in GrpcStatus}
    return {name: count for name, count in counts.items() if count}


async def fails(call: Any) -> grpc.StatusCode:
    """Return the status that a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code()


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
    assert counted(mesh) == {"OK": 1}


async def test_large_metadata(calls: Calls) -> None:
    _, channel, handlers = calls
    value = "x" * 7_000
    call = channel.unary_unary("/test/Unary")(b"", metadata=(("x-large", value),))
    assert await call == b""
    assert dict(await call.initial_metadata())["x-large"] == value
    assert dict(handlers.seen[0].invocation_metadata)["x-large"] == value


async def test_an_error(calls: Calls) -> None:
    mesh, channel, _ = calls
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary("/test/Refuses")(b"")
    assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert raised.value.details() == "not now: é"
    assert counted(mesh) == {"FAILED_PRECONDITION": 1}


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
    assert counted(mesh) in ({"CANCELLED": 1}, {"DEADLINE_EXCEEDED": 1})  # both ends keep the time


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
    """What has come by then is passed on, followed by the status."""
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
    assert counted(mesh) == {"UNAVAILABLE": 1}


async def test_a_limit_of_the_mesh_is_a_deadline(mesh: Mesh) -> None:
    async with serving(Handlers()) as endpoint, channel_to(mesh, endpoint, timeout="100ms") as channel:
        status = await fails(channel.unary_unary("/test/Sleeps")(b""))
    assert status == grpc.StatusCode.DEADLINE_EXCEEDED
    assert counted(mesh) == {"DEADLINE_EXCEEDED": 1}


async def test_a_rate_limit_is_an_exhausted_resource(mesh: Mesh) -> None:
    async with serving(Handlers()) as endpoint, channel_to(mesh, endpoint, rate_limit="1/h") as channel:
        call = channel.unary_unary("/test/Unary")
        assert await call(b"ab") == b"ba"
        assert await fails(call(b"ab")) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert counted(mesh) == {"OK": 1, "RESOURCE_EXHAUSTED": 1}


class Unavailable(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Fails every call, with its metadata sent before or not, or after a message."""

    def __init__(self) -> None:
        self.calls = 0

    def service(self, details: Any) -> Any:
        self.calls += 1
        if details.method == "/test/Counts":
            return grpc.unary_stream_rpc_method_handler(self.streams)
        return grpc.unary_unary_rpc_method_handler(self.fails)

    async def fails(self, request: bytes, context: Any) -> bytes:
        if request == b"head first":
            await context.send_initial_metadata((("x-from", "unavailable"),))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        raise AssertionError

    async def streams(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        if request == b"message first":
            yield b"a message"
        await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")


@pytest.mark.parametrize("request_", [b"status alone", b"head first"])
async def test_what_is_unavailable_is_asked_of_another(mesh: Mesh, request_: bytes) -> None:
    bad = Unavailable()
    async with (
        serving(bad) as one,
        serving(Handlers()) as other,
        channel_to(mesh, one, other, retry_attempts="1", retry_on="unavailable") as channel,
    ):
        call = channel.unary_unary("/test/Unary")
        for _ in range(4):
            assert await call(request_) == request_[::-1]
    assert bad.calls == 2
    assert counted(mesh) == {"OK": 4}
    assert mesh.metric("retry", "svcmesh_retries") == 2


async def test_a_stream_that_has_begun_is_not_asked_again(mesh: Mesh) -> None:
    bad = Unavailable()
    async with (
        serving(bad) as one,
        channel_to(mesh, one, retry_attempts="1", retry_on="unavailable") as channel,
    ):
        call = channel.unary_stream("/test/Counts")(b"message first")
        assert await call.read() == b"a message"
        assert await fails(call.read()) == grpc.StatusCode.UNAVAILABLE
    assert bad.calls == 1


async def test_ping_pong_where_heads_are_held(mesh: Mesh) -> None:
    """The head of a call whose caller still sends is not: both might wait for each other."""
    async with (
        serving(Handlers()) as endpoint,
        channel_to(mesh, endpoint, retry_attempts="1", retry_on="unavailable") as channel,
    ):
        call = channel.stream_stream("/test/Greets")()
        assert dict(await call.initial_metadata())["x-greeting"] == "hello"
        for number in range(20):
            await call.write(b"%d" % number)
            assert await call.read() == b"%d" % number
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF


async def test_calls_that_fail_open_the_circuit(mesh: Mesh) -> None:
    bad = Unavailable()
    breaker = "ResponseCodeRatio(500, 600, 0, 600) > 0.5"
    async with serving(bad) as one, channel_to(mesh, one, circuit_breaker=breaker) as channel:
        call = channel.unary_unary("/test/Unary")
        async with asyncio.timeout(30):
            while mesh.metric("circuit-breaker", "svcmesh_circuit_breaker_opened") == 0:
                assert await fails(call(b"head first")) == grpc.StatusCode.UNAVAILABLE
        before = bad.calls
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"")
    assert "circuit_open" in str(raised.value.details())
    assert bad.calls == before


async def test_a_stream_whose_endpoint_dies_ends_as_unavailable(calls: Calls) -> None:
    """As without the mesh, so that the caller connects again."""
    mesh, channel, _ = calls
    call = channel.stream_stream("/test/Echoes")()
    await call.write(b"a")
    assert await call.read() == b"a"
    for connection in list(mesh.proxy.runtime.connections):
        if not connection.of_client:
            connection.reset()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "upstream_reset" in str(raised.value.details())
    assert counted(mesh) == {"UNAVAILABLE": 1}
