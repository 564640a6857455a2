"""gRPC of Go and of the C core (grpcio), each as client and as server, through a whole agent."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from hack.kit.ports import LOCALHOST
from hack.kit.waiting import until, until_async
from tests.interop.conftest import Server, Start
from tests.interop.grpcio_server import OPTIONS
from tests.interop.mesh import InteropMesh, built, run

LARGE = bytes(range(256)) * (32 * 1024)
TRIALS = (
    *("unary", "metadata", "error", "unimplemented", "server stream", "client stream", "ping pong", "8 MiB"),
    *("8 MiB each way on a stream", "a thousand at once", "deadline", "cancellation"),
)
Address = tuple[str, int]


@pytest.fixture(scope="module")
def grpcio(mesh: InteropMesh, start: Start) -> Address:
    """A server of grpcio, as clients of the mesh see it."""
    server = start(sys.executable, "-m", "tests.interop.grpcio_server", f"{LOCALHOST}:PORT")
    return mesh.serve(server.port, "grpc")


@pytest.fixture(scope="module")
def go(mesh: InteropMesh, go_grpc: Server) -> Address:
    """A server of Go's gRPC, as clients of the mesh see it."""
    return mesh.serve(go_grpc.port, "grpc")


@pytest.mark.parametrize("server", ["go", "grpcio"])
def test_go_calls(mesh: InteropMesh, server: str, request: pytest.FixtureRequest) -> None:
    address, port = request.getfixturevalue(server)
    said = run(built("h2peer"), "call-grpc", f"{address}:{port}", seconds=100).stdout
    assert said.splitlines() == [f"ok {name}" for name in TRIALS]
    until(lambda: mesh.at_rest(address))


class TestGrpcioCallsGo:
    """What grpcio asks of grpcio is in tests/dataplane/test_grpc.py."""

    @pytest.fixture
    async def channel(self, go: Address, mesh: InteropMesh) -> AsyncIterator[Any]:
        async with grpc.aio.insecure_channel(f"{go[0]}:{go[1]}", options=OPTIONS) as channel:
            yield channel

    async def test_unary_and_metadata(self, channel: Any) -> None:
        every, large = bytes(range(256)), "x" * 8000
        sent = (("x-every-bin", every), ("x-large", large), ("x-twice", "a"), ("x-twice", "b"))
        call = channel.unary_unary("/test/Unary")(b"abc", metadata=sent)
        assert await call == b"cba"
        header = list(await call.initial_metadata())
        assert ("x-every-bin", every) in header
        assert ("x-large", large) in header
        assert [value for name, value in header if name == "x-twice"] == ["a", "b"]
        assert set(await call.trailing_metadata()) == {("size", "3"), ("blob-bin", b"\0\xff")}

    async def test_an_error(self, channel: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary("/test/Refuses")(b"")
        error = raised.value
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not now: é")
        assert dict(error.trailing_metadata())["why-bin"] == b"\0\xff"

    async def test_streams(self, channel: Any) -> None:
        got = [answer async for answer in channel.unary_stream("/test/Counts")(b"1000")]
        assert got == [b"%d" % number for number in range(1000)]
        numbers = [b"%d" % number for number in range(1000)]
        assert await channel.stream_unary("/test/Adds")(iter(numbers)) == b"499500"

    async def test_ping_pong(self, channel: Any) -> None:
        call = channel.stream_stream("/test/Echoes")()
        for message in [b"%d" % number for number in range(200)] + [LARGE, LARGE]:
            await call.write(message)
            assert await call.read() == message
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF

    async def test_8_mib(self, channel: Any) -> None:
        assert await channel.unary_unary("/test/Unary")(LARGE) == LARGE[::-1]

    async def test_a_thousand_at_once(self, channel: Any) -> None:
        call = channel.unary_unary("/test/Unary")
        got = await asyncio.gather(*(call(b"%d" % number) for number in range(1000)))
        assert got == [(b"%d" % number)[::-1] for number in range(1000)]

    async def test_a_deadline(self, channel: Any) -> None:
        call = channel.unary_unary("/test/Sleeps")(b"", timeout=0.2, metadata=(("name", "deadline"),))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        # Go's server, whose clock may be first, resets the call with CANCEL, with or without a mesh.
        assert raised.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
        await self.until_asleep(channel, "deadline", b"false")

    async def test_a_cancellation(self, channel: Any) -> None:
        call = channel.unary_unary("/test/Sleeps")(b"", metadata=(("name", "cancellation"),))
        await self.until_asleep(channel, "cancellation", b"true")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await self.until_asleep(channel, "cancellation", b"false")

    async def until_asleep(self, channel: Any, name: str, want: bytes) -> None:
        """Wait until the server has begun with a call of Sleeps, or knows that it is over."""

        async def looks() -> bool:
            return bool(await channel.unary_unary("/test/Asleep")(name.encode()) == want)

        await until_async(looks)
