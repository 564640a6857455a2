"""A proxy in this process on a real uvloop, with real sockets on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from discovery.model import Endpoint, ServiceKey
from middleware.registry import MIDDLEWARES, by_name
from middleware.testing import FakeWindows
from nodeagent.plan.model import (
    BackendKey,
    BackendSpec,
    LayerSpec,
    Listener,
    Protocol,
    Rule,
    UpstreamProtocol,
    Weighted,
)
from nodeagent.proxy.accept import local_address
from nodeagent.proxy.data_plane import DataPlane
from nodeagent.proxy.http1.client import Http1Upstream
from nodeagent.proxy.http1.server import Http1Connection
from nodeagent.settings import Limits
from nodeagent.stats.columns import FIRST_SLOT, REFUSALS, Layout

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Table:
    """One worker's shared table: a dict."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}

    def update(self, key: bytes, change: Callable[[int], int | None]) -> None:
        value = change(self.numbers.get(key, 0))
        if value is not None:
            self.numbers[key] = value


class Mesh:
    """A proxy under test: `endpoint` starts servers, `serve` routes to them, `connect` is a client."""

    def __init__(self, limits: Limits) -> None:
        self.layout = Layout(MIDDLEWARES, REFUSALS)
        self.cells = memoryview(bytearray(8 * 64 * self.layout.slot_columns)).cast("q")
        loop = asyncio.get_running_loop()
        self._skipped = 0.0
        self.proxy = DataPlane(
            loop,
            limits,
            self.layout,
            self.cells,
            Table(),
            FakeWindows(),
            now=lambda: time.monotonic() + self._skipped,
        )
        self.servers: list[asyncio.Server] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.peers: list[asyncio.StreamWriter] = []
        self.layers: dict[BackendKey, tuple[LayerSpec, ...]] = {}
        self.listener: Listener | None = None
        self.upstream: UpstreamProtocol = "http1"
        self.more: dict[str, Any] = {}
        """Further fields of the Service's backend."""
        self.sockets: list[socket.socket] = []

    def skip(self, seconds: float) -> None:
        """Have the proxy's clock say that this much time has passed; no timer of the loop runs sooner."""
        self._skipped += seconds

    async def endpoint(self, handler: Handler, port: int = 0) -> Endpoint:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.peers.append(writer)
            try:
                await handler(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                return
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", port)
        self.servers.append(server)
        return Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])

    async def serve(
        self,
        *endpoints: Endpoint,
        protocol: Protocol = "http",
        annotations: Mapping[str, str] | None = None,
        layers: Sequence[LayerSpec] = (),
        trailers: bool = False,
        upstream: UpstreamProtocol = "http1",
        backends: Mapping[str, Sequence[Endpoint]] | None = None,
    ) -> Listener:
        """Serve a Service with these endpoints; `backends` are further Services that layers may choose."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: self.proxy.accepted(local_address), "127.64.0.10", 0)
        self.servers.append(server)
        port = server.sockets[0].getsockname()[1]
        specs = [*layers]
        for middleware in MIDDLEWARES:
            options = middleware.parse(annotations or {})
            if options is not None:
                assert isinstance(options, middleware.options), options
                specs.append(LayerSpec(middleware.name, options))
        scopes = {spec.name: by_name(spec.name).scope for spec in specs}
        key = ServiceKey("default", "web")
        backend = BackendKey(key, port)
        rule = Rule(
            "all",
            (Weighted(backend),),
            layers=tuple(spec for spec in specs if scopes[spec.name] in ("rule", "try")),
        )
        outer = tuple(spec for spec in specs if scopes[spec.name] in ("connection", "request", "listener"))
        named = {name: BackendKey(ServiceKey("default", name), port) for name in backends or {}}
        listener = Listener(
            key, "web", "127.64.0.10", port, port, protocol, (rule,), outer, tuple(named.items()), trailers
        )
        for name, others in (backends or {}).items():
            self.proxy.apply(backends=[(BackendSpec(named[name], tuple(others)), FIRST_SLOT)])
        self.listener = listener
        self.upstream = upstream
        self.layers = {backend: tuple(spec for spec in specs if scopes[spec.name] == "backend")}
        self.apply(listener)
        self.endpoints(listener, *endpoints)
        return listener

    def unreachable(self) -> Endpoint:
        """Return an endpoint that never accepts a connection, and never refuses one."""
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        address = full.getsockname()
        self.sockets.append(full)
        for _ in range(3):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(address)
            self.sockets.append(waiting)
        return Endpoint(*address)

    def apply(self, *listeners: Listener, removed: tuple[tuple[str, int], ...] = ()) -> None:
        self.proxy.apply([(listener, FIRST_SLOT) for listener in listeners], removed)

    def endpoints(self, listener: Listener, *endpoints: Endpoint) -> None:
        """Give the Service of a listener other endpoints."""
        key = BackendKey(listener.service, listener.port)
        layers = self.layers.get(key, ())
        spec = BackendSpec(key, tuple(endpoints), layers=layers, protocol=self.upstream, **self.more)
        self.proxy.apply(backends=[(spec, FIRST_SLOT)])

    @property
    def clients(self) -> list[Http1Connection]:
        """The clients' connections to http ports, as the proxy has them."""
        return [one for one in self.proxy.runtime.connections if isinstance(one, Http1Connection)]

    @property
    def upstreams(self) -> list[Http1Upstream]:
        """The connections to endpoints of http ports."""
        return [one for one in self.proxy.runtime.connections if isinstance(one, Http1Upstream)]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert self.listener is not None
        reader, writer = await asyncio.open_connection(*self.listener.key)
        self.writers.append(writer)
        return reader, writer

    async def ask(self, request: bytes) -> bytes:
        """Send a request on a new connection and return all that comes until the far side closes."""
        reader, writer = await self.connect()
        writer.write(request)
        async with asyncio.timeout(10):
            return await reader.read(-1)

    def count(self, column: int) -> int:
        return int(self.cells[self.layout.base(FIRST_SLOT) + column])

    def metric(self, middleware: str, name: str) -> int:
        metric = next(metric for metric in by_name(middleware).metrics if metric.name == name)
        return self.count(self.layout.column(metric))

    async def close(self) -> None:
        for writer in (*self.writers, *self.peers):
            writer.close()
        self.proxy.close()
        for server in self.servers:
            server.close()
        for one in self.sockets:
            one.close()
        await until(lambda: not self.proxy.runtime.connections)


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until the condition holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition never came true"
        await asyncio.sleep(0.005)


async def settled(number: Callable[[], int], below: int, quiet: float = 0.3) -> int:
    """Wait until a number has stopped growing; it must do so below a bound."""
    loop = asyncio.get_running_loop()
    seen, since = number(), loop.time()
    while loop.time() - since < quiet:
        await asyncio.sleep(0.01)
        if (now := number()) != seen:
            seen, since = now, loop.time()
        assert seen < below, f"it grew to {seen} and should have stopped below {below}"
    return seen


@contextlib.asynccontextmanager
async def sweeping(mesh: Mesh, every: float = 0.02) -> AsyncIterator[None]:
    """Sweep as a worker does, only more often: limits may be fractions of a second."""

    async def sweep() -> None:
        while True:
            mesh.proxy.sweep()
            await asyncio.sleep(every)

    task = asyncio.create_task(sweep())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """Return the next head, empty line included."""
    async with asyncio.timeout(10):
        return await reader.readuntil(b"\r\n\r\n")


def answering(body: bytes = b"ok", extra: bytes = b"", seen: list[bytes] | None = None) -> Handler:
    """A keep-alive server that answers every bodiless request alike and notes the heads it saw."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if seen is not None:
                seen.append(head)
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (extra, len(body)))
            if not head.startswith(b"HEAD "):
                writer.write(body)

    return handle
