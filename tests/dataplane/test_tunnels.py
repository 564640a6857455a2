"""Every conversation ends, and leaves no descriptor behind: switched protocols, tcp ports and exchanges.

Counted are the descriptors of this process, which both peers of the proxy are in as well: a test ends its
own side, the endpoint's handler ends the other, and then the number must be what it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from discovery.model import Endpoint
from nodeagent.plan.model import Protocol
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, descriptors, sweeping, until
from tests.dataplane.peers import client, limited, with_reset
from tests.dataplane.test_resilience import reset_on_close

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
TUNNELS = 50

Conversation = Callable[[Mesh], Awaitable[None]]


@contextlib.asynccontextmanager
async def leaving_none(mesh: Mesh) -> AsyncIterator[None]:
    """Check that as many descriptors are open afterwards as were before, once all has been closed."""
    before = descriptors()
    async with sweeping(mesh):
        yield
        with contextlib.suppress(AssertionError):
            await until(lambda: descriptors() <= before, seconds=3)
    assert descriptors() - before <= 0
    assert mesh.count(columns.CONNECTIONS_ACTIVE) == 0


@pytest.fixture
def limits() -> Limits:
    """Idle connections to endpoints are closed with the next sweep: they are no leak."""
    return limited(upstream_idle_time=0.0, connect_time=0.3)


class Talker:
    """An endpoint of both kinds of ports: it says hello, then does what it was told to."""

    def __init__(self, ending: str) -> None:
        self.ending = ending

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readexactly(1)) == b"G":
            await reader.readuntil(b"\r\n\r\n")
            writer.write(SWITCHED)
        writer.write(b"hello")
        if self.ending == "endpoint first":
            writer.write_eof()
            await reader.read(-1)
        elif self.ending == "endpoint resets":
            reset_on_close(writer)
        elif self.ending != "endpoint closes":
            with contextlib.suppress(ConnectionError):
                await reader.read(-1)
        if self.ending == "client first":
            writer.write(b"bye")


ENDINGS = ("client first", "endpoint first", "client resets", "endpoint resets", "endpoint closes")


async def converse(mesh: Mesh, protocol: Protocol, ending: str) -> None:
    """Open one tunnel or tcp connection and end it."""
    async with client(mesh) as talking:
        await talking.send(UPGRADE if protocol == "http" else b"?")
        try:
            received = await talking.receive_until(b"hello")
            if ending == "client resets":
                with_reset(talking.socket)
                return
            if ending == "client first":
                talking.socket.shutdown(socket.SHUT_WR)
                received += await talking.receive_until(b"bye")
            assert (received + await talking.receive_all()).endswith((b"hello", b"bye"))
        except (ConnectionError, AssertionError):
            assert ending == "endpoint resets"
        if ending == "endpoint first":
            await talking.send(b"and so")
            talking.socket.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("protocol", ["http", "tcp"])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_tunnel_that_has_ended_is_closed(mesh: Mesh, protocol: Protocol, ending: str) -> None:
    await mesh.serve(await mesh.endpoint(Talker(ending)), protocol=protocol)
    async with leaving_none(mesh):
        await asyncio.gather(*(converse(mesh, protocol, ending) for _ in range(TUNNELS)))


@pytest.mark.parametrize("protocol", ["http", "tcp"])
@pytest.mark.parametrize("early", [False, True], ids=["switched", "not yet switched"])
async def test_one_that_one_side_has_ended_goes_on(mesh: Mesh, protocol: Protocol, early: bool) -> None:
    """The other direction may be used for as long as it takes."""

    async def talk_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readexactly(1)) == b"G":
            await reader.readuntil(b"\r\n\r\n")
            writer.write(SWITCHED)
        writer.write(b"go on")
        await reader.read(-1)
        for number in range(20):
            writer.write(b"%d," % number)
            await asyncio.sleep(0.01)

    await mesh.serve(await mesh.endpoint(talk_on), protocol=protocol)
    async with leaving_none(mesh), client(mesh) as talking, asyncio.timeout(3):
        await talking.send(UPGRADE if protocol == "http" else b"?")
        if not early:
            await talking.receive_until(b"go on")
        talking.socket.shutdown(socket.SHUT_WR)
        assert (await talking.receive_all()).endswith(b"18,19,")


@contextlib.contextmanager
def unreachable() -> Iterator[Endpoint]:
    """An endpoint whose backlog is full: connecting to it takes until the time for it is up."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            blocker = stack.enter_context(socket.socket())
            blocker.setblocking(False)
            blocker.connect_ex(full.getsockname())
        yield Endpoint("127.0.0.1", full.getsockname()[1])


@pytest.mark.parametrize("protocol", ["http", "tcp"])
@pytest.mark.parametrize("leave", ["close", "half-close", "reset", "wait"])
async def test_a_client_that_leaves_while_its_endpoint_is_connected(
    mesh: Mesh, protocol: Protocol, leave: str
) -> None:
    async def ask(number: int) -> None:
        async with client(mesh) as leaving:
            await leaving.send(GET)
            await until(lambda: mesh.count(columns.CONNECTIONS) == TUNNELS)
            if leave == "half-close":
                leaving.socket.shutdown(socket.SHUT_WR)
            if leave in ("half-close", "wait"):
                with contextlib.suppress(ConnectionError):
                    await leaving.receive()
            if leave == "reset":
                with_reset(leaving.socket)

    with unreachable() as endpoint:
        await mesh.serve(endpoint, protocol=protocol)
        async with leaving_none(mesh):
            await asyncio.gather(*(ask(number) for number in range(TUNNELS)))


async def reset_before_the_answer(mesh: Mesh) -> None:
    async with client(mesh) as leaving:
        await leaving.send(GET)
        await until(lambda: len(mesh.peers) == TUNNELS)
        with_reset(leaving.socket)


async def reset_within_the_answer(mesh: Mesh) -> None:
    async with client(mesh) as leaving:
        await leaving.send(GET.replace(b"/", b"/large", 1))
        await leaving.receive(1000)
        with_reset(leaving.socket)


async def leave_within_the_request(mesh: Mesh) -> None:
    async with client(mesh) as leaving:
        await leaving.send(GET[:-2] + b"Content-Length: 100\r\n\r\nsome")


async def half_close(mesh: Mesh) -> None:
    async with client(mesh) as leaving:
        await leaving.send(GET.replace(b"/", b"/quick", 1))
        leaving.socket.shutdown(socket.SHUT_WR)
        assert (await leaving.receive_all()).endswith(b"ok")


async def lose_the_endpoint(mesh: Mesh) -> None:
    async with client(mesh) as asking:
        await asking.send(GET.replace(b"/", b"/reset", 1))
        assert (await asking.receive_until(b"(upstream_reset)\n")).startswith(b"HTTP/1.1 502 ")


async def nonsense(mesh: Mesh) -> None:
    async with client(mesh) as asking:
        await asking.send(b"nonsense\r\n\r\n")
        assert (await asking.receive_all()).startswith(b"HTTP/1.1 400 ")


async def serve_any(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as the path says; any other path waits for the client to leave."""
    while True:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        if path == b"/quick":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        elif path == b"/large":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + bytes(10_000_000))
            await writer.drain()
        else:
            if path == b"/reset":
                reset_on_close(writer)
                return
            await reader.read(-1)
            return


class TestExchanges:
    """However an exchange ends."""

    @pytest.mark.parametrize(
        "conversation",
        [
            reset_before_the_answer,
            reset_within_the_answer,
            leave_within_the_request,
            half_close,
            lose_the_endpoint,
            nonsense,
        ],
    )
    async def test_it_leaves_nothing_behind(self, mesh: Mesh, conversation: Conversation) -> None:
        await mesh.serve(await mesh.endpoint(serve_any))
        async with leaving_none(mesh), asyncio.timeout(5):
            await asyncio.gather(*(conversation(mesh) for _ in range(TUNNELS)))


class TestTimeouts:
    """Whatever a client is expired for."""

    @pytest.fixture
    def limits(self) -> Limits:
        return limited(head_time=0.2, idle_time=0.2, stall_time=0.2, upstream_idle_time=0.0)

    @pytest.mark.parametrize(
        "beginning",
        [b"", b"GET / HT", GET[:-2] + b"Content-Length: 9\r\n\r\n", GET.replace(b"/", b"/large", 1)],
        ids=["idle", "head", "body", "does not read"],
    )
    async def test_it_leaves_nothing_behind(self, mesh: Mesh, beginning: bytes) -> None:
        await mesh.serve(await mesh.endpoint(serve_any))
        async with leaving_none(mesh), contextlib.AsyncExitStack() as stack:
            for _ in range(TUNNELS):
                await (await stack.enter_async_context(client(mesh))).send(beginning)
            await until(lambda: mesh.count(columns.CONNECTIONS) == TUNNELS)
            await until(lambda: mesh.count(columns.CONNECTIONS_ACTIVE) == 0)


async def test_a_client_that_is_gone_before_it_is_looked_at(mesh: Mesh) -> None:
    """Its reset comes so early that the accepted socket has no peer's address any more."""
    route = await mesh.serve(await mesh.endpoint(serve_any))
    async with leaving_none(mesh):
        for _ in range(TUNNELS):
            with_reset(socket.create_connection(route.key))  # on purpose not awaited
        await half_close(mesh)  # who comes later is accepted later


@pytest.mark.parametrize("protocol", ["http", "tcp"])
async def test_a_peer_that_vanishes_is_found_out(mesh: Mesh, protocol: Protocol) -> None:
    """By the kernel, which has to be asked to: on both sides, within two minutes."""
    await mesh.serve(await mesh.endpoint(Talker("")), protocol=protocol)
    reader, writer = await mesh.connect()
    writer.write(UPGRADE if protocol == "http" else b"x")
    assert (await reader.readuntil(b"hello")).endswith(b"hello")
    both = [one.transport.get_extra_info("socket") for one in mesh.proxy.runtime.connections]  # type: ignore[attr-defined]
    assert [one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for one in both] == [1, 1]
    for one in both:
        asked = [
            one.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        ]
        assert asked[0] + asked[1] * asked[2] <= 120
