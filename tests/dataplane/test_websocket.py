"""WebSockets by libraries of others, through the data plane between HTTP/1 and HTTP/2."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from aiohttp import web

from discovery.model import Endpoint
from nodeagent.plan.model import Listener, UpstreamProtocol
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, settled, until

LARGE = bytes(range(256)) * (16 * 1024)
CONNECT = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "web"),
    ("sec-websocket-version", "13"),
]
EXTENDED = {h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}


async def echo(request: web.Request) -> web.StreamResponse:
    """Send back what comes; the path `/refused` is not a WebSocket."""
    if request.path == "/refused":
        return web.Response(status=403, text="not for you")
    talking = web.WebSocketResponse(protocols=("chat",), max_msg_size=0)
    await talking.prepare(request)
    async for message in talking:
        await talking.send_bytes(message.data)
    return talking


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """An endpoint of aiohttp, which speaks HTTP/1."""
    application = web.Application()
    application.router.add_get("/{path:.*}", echo)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield Endpoint("127.0.0.1", runner.addresses[0][1])
    await runner.cleanup()


def next_hop(listener: Listener) -> Endpoint:
    """Return a listener of the mesh as an endpoint."""
    return Endpoint(*listener.key)


async def hops(mesh: Mesh, endpoint: Endpoint, middle: tuple[UpstreamProtocol, ...]) -> str:
    """Serve the endpoint of HTTP/1 through further hops of the mesh; return the address of the first."""
    listener = await mesh.serve(endpoint)
    for upstream in reversed(middle):
        listener = await mesh.serve(next_hop(listener), upstream=upstream)
    return f"http://{listener.address}:{listener.port}"


@pytest.mark.parametrize("middle", [(), ("http2",), ("http2", "http2"), ("http1", "http2")], ids=str)
async def test_messages_come_back(
    mesh: Mesh, endpoint: Endpoint, middle: tuple[UpstreamProtocol, ...]
) -> None:
    address = await hops(mesh, endpoint, middle)
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession() as session,
        session.ws_connect(address, protocols=("chat",), max_msg_size=0) as talking,
    ):
        assert talking.protocol == "chat"
        for number in range(100):
            await talking.send_bytes(b"%d" % number)
            assert await talking.receive_bytes() == b"%d" % number
        await talking.send_bytes(LARGE)
        assert await talking.receive_bytes() == LARGE
        await talking.close()
        assert talking.close_code == 1000
    await until(lambda: not any(one.busy for one in mesh.proxy.runtime.connections))
    assert mesh.count(columns.REQUESTS_1XX) == 1 + len(middle)


async def test_many_share_a_connection(mesh: Mesh, endpoint: Endpoint) -> None:
    address = await hops(mesh, endpoint, ("http2",))

    async def talk(session: aiohttp.ClientSession, number: int) -> None:
        async with session.ws_connect(address) as talking:
            for _ in range(10):
                await talking.send_bytes(b"%d" % number)
                assert await talking.receive_bytes() == b"%d" % number

    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        await asyncio.gather(*(talk(session, number) for number in range(50)))


async def test_a_refusal(mesh: Mesh, endpoint: Endpoint) -> None:
    address = await hops(mesh, endpoint, ("http2",))
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
            await session.ws_connect(f"{address}/refused")
        assert raised.value.status == 403


class Peer:
    """One side of HTTP/2, by the library h2."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: bool) -> None:
        self.reader = reader
        self.writer = writer
        self._came: list[Any] = []
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=client, header_encoding="utf-8")
        )

    def begin(self, settings: dict[Any, int] | None = None) -> None:
        if settings:
            self.connection.local_settings.update(settings)
            self.connection.update_settings(settings)
        self.connection.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())

    async def event(self) -> Any:
        """Return what comes next, with windows kept open; None: nothing comes any more."""
        while not self._came:
            data = await self.reader.read(65_536)
            if not data:
                return None
            self._came += self.connection.receive_data(data)
            for event in self._came:
                if isinstance(event, h2.events.DataReceived):
                    size = event.flow_controlled_length
                    self.connection.acknowledge_received_data(size, event.stream_id)
            self.flush()
        return self._came.pop(0)

    async def until(self, kind: type[Any]) -> Any:
        async with asyncio.timeout(10):
            while not isinstance(event := await self.event(), kind):
                assert event is not None, f"no {kind.__name__} came"
        return event


async def test_a_client_of_another_library(mesh: Mesh, endpoint: Endpoint) -> None:
    await mesh.serve(endpoint)
    client = Peer(*await mesh.connect(), client=True)
    client.begin()
    announced = await client.until(h2.events.RemoteSettingsChanged)
    assert announced.changed_settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL].new_value == 1
    client.connection.send_headers(1, CONNECT)
    client.flush()
    answer = await client.until(h2.events.ResponseReceived)
    fields = dict(answer.headers)
    assert fields[":status"] == "200"
    assert "sec-websocket-accept" not in fields
    client.connection.send_data(1, b"\x82\x85\0\0\0\0hello")
    client.flush()
    assert (await client.until(h2.events.DataReceived)).data == b"\x82\x05hello"
    client.connection.send_data(1, b"\x88\x82\0\0\0\0\x03\xe8", end_stream=True)
    client.flush()
    assert (await client.until(h2.events.DataReceived)).data == b"\x88\x02\x03\xe8"
    await client.until(h2.events.StreamEnded)
    await until(lambda: not any(one.busy for one in mesh.proxy.runtime.connections))


async def test_an_endpoint_of_another_library(mesh: Mesh) -> None:
    seen: list[dict[Any, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, client=False)
        peer.begin(EXTENDED)
        while event := await peer.event():
            if isinstance(event, h2.events.RequestReceived):
                seen.append(dict(event.headers))
                peer.connection.send_headers(event.stream_id, [(":status", "200")])
            elif isinstance(event, h2.events.DataReceived):
                frame = event.data
                masked = zip(frame[6:], frame[2:6] * len(frame), strict=False)
                payload = bytes(byte ^ mask for byte, mask in masked)
                peer.connection.send_data(event.stream_id, frame[:1] + bytes((len(payload),)) + payload)
            elif isinstance(event, h2.events.StreamEnded):
                peer.connection.end_stream(event.stream_id)
            peer.flush()

    listener = await mesh.serve(await mesh.endpoint(serve), upstream="http2")
    async with (
        asyncio.timeout(10),
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://{listener.address}:{listener.port}/chat?a=b") as talking,
    ):
        await talking.send_bytes(b"hello")
        assert await talking.receive_bytes() == b"hello"
    (fields,) = seen
    assert (fields[":method"], fields[":protocol"], fields[":scheme"]) == ("CONNECT", "websocket", "http")
    assert fields[":path"] == "/chat?a=b"
    assert fields["sec-websocket-version"] == "13"
    assert not {"sec-websocket-key", "connection", "upgrade"} & fields.keys()
    await until(lambda: not any(one.busy for one in mesh.proxy.runtime.connections))


async def test_an_endpoint_that_takes_none(mesh: Mesh) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, client=False)
        peer.begin()
        while event := await peer.event():
            assert not isinstance(event, h2.events.RequestReceived)

    listener = await mesh.serve(await mesh.endpoint(serve), upstream="http2")
    async with aiohttp.ClientSession() as session, asyncio.timeout(10):
        with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
            await session.ws_connect(f"http://{listener.address}:{listener.port}/")
    assert raised.value.status == 502
    assert raised.value.headers is not None
    assert "error=http_upgrade_failed" in raised.value.headers["Proxy-Status"]


@pytest.mark.parametrize("middle", [("http2",), ("http2", "http2")], ids=str)
async def test_a_slow_reader_holds_the_sender(mesh: Mesh, middle: tuple[UpstreamProtocol, ...]) -> None:
    """What is kept on the way is what windows and buffers hold, however much is sent."""
    sent = 0
    closing = asyncio.Event()

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        talking = web.WebSocketResponse()
        await talking.prepare(request)
        with contextlib.suppress(ConnectionError):
            while not closing.is_set():
                await talking.send_bytes(bytes(65_536))
                sent += 65_536
        return talking

    application = web.Application()
    application.router.add_get("/", pour)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = await hops(mesh, Endpoint("127.0.0.1", runner.addresses[0][1]), middle)
    async with aiohttp.ClientSession() as session:
        talking = await session.ws_connect(address)
        talking._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        await settled(lambda: sent, below=64 * 1024 * 1024)
        held = sum(one.held for one in mesh.proxy.runtime.connections)
        assert held < 8 * 1024 * 1024
        closing.set()
        talking._response.connection.transport.abort()  # type: ignore[union-attr]
    await until(lambda: not any(one.busy for one in mesh.proxy.runtime.connections))
    await runner.cleanup()
