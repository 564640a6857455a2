"""A data plane without sockets: loop and clock moved by hand, transports that record, a dialer that waits.

Transports behave as uvloop's do where it matters: `write` may call `pause_writing` at once, `connection_lost`
comes in a later turn, and what comes while reading is paused waits.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from discovery.model import Endpoint, ServiceKey
from middleware.contract import Ended, ExchangeError
from middleware.registry import MIDDLEWARES
from middleware.testing import FakeTable, FakeWindows
from nodeagent.plan.model import BackendKey, BackendSpec, LayerSpec, Listener, Rule, Weighted
from nodeagent.proxy.connection import Connection
from nodeagent.proxy.data_plane import DataPlane
from nodeagent.proxy.http1.client import Http1Upstream
from nodeagent.proxy.http1.server import Http1Connection
from nodeagent.proxy.listeners import RunningListener
from nodeagent.proxy.pool import Address, Pool
from nodeagent.settings import Limits
from nodeagent.stats.columns import FIRST_SLOT, REFUSALS, Layout

HIGH, LOW = 2048, 512
"""Bytes a transport keeps before it asks its protocol to pause, and at which it lets it go on."""


class Loop:
    """Turns of a loop, and its timers, by hand."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._soon: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._timers: list[Timer] = []

    def now(self) -> float:
        return self.time

    def get_debug(self) -> bool:
        return False

    def call_soon(self, call: Callable[..., Any], *args: Any, context: object = None) -> None:
        self._soon.append((call, args))

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        timer = Timer(self.time + delay, call)
        self._timers.append(timer)
        return timer

    def run(self, turns: int = 1000) -> None:
        """Run until nothing is left to do at this moment, or so many turns."""
        while self._soon and turns:
            turns -= 1
            for _ in range(len(self._soon)):
                call, args = self._soon.popleft()
                call(*args)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.time + seconds
        self.run()
        while due := [timer for timer in self._timers if timer.runs and timer.when <= end]:
            timer = min(due, key=lambda one: one.when)
            timer.runs = False
            self.time = max(self.time, timer.when)
            timer.call()
            self.run()
        self._timers = [timer for timer in self._timers if timer.runs]
        self.time = end


class Timer:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call = call
        self.runs = True

    def cancel(self) -> None:
        self.runs = False


class Wire:
    """A transport, and the peer behind it: what it has `received`, whether it reads, how it ended."""

    def __init__(self, loop: Loop, with_socket: bool, source: str = "") -> None:
        self._loop = loop
        self._source = source
        self._socket = self if with_socket else None
        self.protocol = cast("Connection", None)
        self.received = bytearray()
        self.peer_reads = True
        self.ended = ""
        """How our side ended, as the peer sees it: `eof`, `closed` or `reset`."""
        self.paused = False
        self.lost = False
        self._unsent = bytearray()
        self._arriving: deque[bytes | None] = deque()
        """What the peer has sent and we have not read; None: its end of stream."""
        self._closing = False
        self._full = False
        self._linger = False
        self._eof = False

    # What protocols call

    def write(self, data: bytes) -> None:
        assert not self.lost, "nothing is written to what is gone"
        assert not self._eof, "nothing is written behind the end"
        if self._closing:
            return
        if self.peer_reads and not self._unsent:
            self.received += data
            return
        self._unsent += data
        if len(self._unsent) > HIGH and not self._full:
            self._full = True
            self.protocol.pause_writing()

    def write_eof(self) -> None:
        assert not self._closing
        self._eof = True
        self._flush()

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        assert not self._closing
        assert not self.paused, "paused twice"
        self.paused = True

    def resume_reading(self) -> None:
        assert not self._closing
        assert self.paused, "resumed twice"
        self.paused = False
        self._loop.call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_extra_info(self, name: str) -> Any:
        if name == "peername":
            return (self._source, 1)
        return self._socket if name == "socket" else None

    def set_protocol(self, protocol: Connection) -> None:
        self.protocol = protocol

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._linger = self._linger or isinstance(value, bytes)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._flush()

    def abort(self) -> None:
        if not self.lost:
            self._closing = True
            self._unsent.clear()
            self.ended = "reset" if self._linger or self._arriving else "closed"
            self._loop.call_soon(self._lose, None)

    def poll(self, timeout: int) -> bool:
        """Whether something has come that is not read yet."""
        return bool(self._arriving)

    # What the peer does

    def send(self, data: bytes) -> None:
        """The peer sends bytes."""
        self._arriving.append(data)
        self._loop.call_soon(self._deliver)

    def half_close(self) -> None:
        """The peer sends its end of stream."""
        self._arriving.append(None)
        self._loop.call_soon(self._deliver)

    def break_off(self) -> None:
        """The peer resets."""
        if not self.lost:
            self._closing = True
            self._unsent.clear()
            self._loop.call_soon(self._lose, ConnectionResetError())

    def read(self, most: int = 1 << 30) -> None:
        """The peer reads what waits for it."""
        self.received += self._unsent[:most]
        del self._unsent[:most]
        self._flush()
        if self._full and len(self._unsent) <= LOW and not self.lost:
            self._full = False
            self.protocol.resume_writing()

    def _deliver(self) -> None:
        while self._arriving and not (self.paused or self._closing):
            data = self._arriving.popleft()
            if data is not None:
                self.protocol.data_received(data)
            elif not self.protocol.eof_received():
                self.close()

    def _flush(self) -> None:
        if self._unsent and self.peer_reads:
            self.received += self._unsent
            self._unsent.clear()
        if self._unsent:
            return
        if self._eof and not self.ended:
            self.ended = "eof"
        if self._closing and not self.lost:
            self.ended = "closed"
            self._loop.call_soon(self._lose, None)

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(error)


class Dial:
    """A connection that is being made until the test decides."""

    def __init__(
        self,
        dialer: Dialer,
        address: Address,
        make: Callable[[], Connection],
        done: Callable[[Connection | None, Exception | None], None],
    ) -> None:
        self.address = address
        self._dialer = dialer
        self._make = make
        self._done = done

    def accept(self) -> Wire:
        """The endpoint accepts."""
        self._dialer.waiting.remove(self)
        protocol = self._make()
        wire = Wire(self._dialer.loop, with_socket=False)
        wire.protocol = protocol
        protocol.connection_made(cast("asyncio.Transport", wire))
        if isinstance(protocol, Http1Upstream):
            protocol._poll = cast("select.poll", wire)
        self._dialer.accepted.append((self.address, wire))
        self._done(protocol, None)
        return wire

    def refuse(self, error: Exception | None = None) -> None:
        """The endpoint refuses, or the time is over."""
        self._dialer.waiting.remove(self)
        self._done(None, error or ConnectionRefusedError(111, "Connection refused"))

    def cancel(self) -> None:
        self._dialer.waiting.remove(self)


class Dialer:
    """Dials wait for the test."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.waiting: list[Dial] = []
        self.accepted: list[tuple[Address, Wire]] = []

    def dial(
        self,
        address: Address,
        make: Callable[[], Connection],
        seconds: float,
        done: Callable[[Connection | None, Exception | None], None],
    ) -> Dial:
        dial = Dial(self, address, make, done)
        self.waiting.append(dial)
        return dial


class Observer:
    """Hears of everything."""

    wants_all = True

    def __init__(self) -> None:
        self.exchanges: list[Ended] = []
        self.refusals: list[ExchangeError] = []
        self.bugs: list[Exception] = []

    def ended(self, ended: Ended) -> None:
        self.exchanges.append(ended)

    def refused(self, service: str, port: int, source: str, error: ExchangeError) -> None:
        self.refusals.append(error)

    def layer_failed(self, service: str, port: int, error: Exception) -> None:
        self.bugs.append(error)


ENDPOINTS = (Endpoint("10.1.0.1", 8080), Endpoint("10.1.0.2", 8080))
KEY = ("127.64.0.10", 80)


class Mesh:
    """One Service on a data plane without sockets."""

    def __init__(
        self,
        limits: Limits | None = None,
        layers: Sequence[LayerSpec] = (),
        endpoints: Sequence[Endpoint] = ENDPOINTS[:1],
        others: Sequence[str] = (),
    ) -> None:
        self.loop = Loop()
        self.dialer = Dialer(self.loop)
        self.observer = Observer()
        self.layout = Layout(MIDDLEWARES, REFUSALS)
        self.cells = memoryview(bytearray(8 * 4 * self.layout.slot_columns)).cast("q")
        self.plane = DataPlane(
            cast("asyncio.AbstractEventLoop", self.loop),
            limits or Limits(),
            self.layout,
            self.cells,
            FakeTable(),
            FakeWindows(),
            self.observer,
            dialer=self.dialer,
            now=self.loop.now,
        )
        service = ServiceKey("default", "web")
        key = BackendKey(service, 80)
        rule = Rule("all", (Weighted(key),), layers=tuple(layers))
        named = tuple((name, BackendKey(ServiceKey("default", name), 80)) for name in others)
        spec = Listener(service, "http", *KEY, 80, "http", (rule,), backends=named)
        self.plane.apply([(spec, FIRST_SLOT)], (), [(BackendSpec(key, tuple(endpoints)), FIRST_SLOT)])

    @property
    def listener(self) -> RunningListener:
        listener = self.plane.listeners.get(KEY)
        assert listener is not None
        return listener

    @property
    def pools(self) -> list[Pool]:
        return [pool for pool in self.plane.backends.pools._pools.values() if isinstance(pool, Pool)]

    @property
    def upstreams(self) -> list[Http1Upstream]:
        """The connections to endpoints."""
        return [one for one in self.plane.runtime.connections if isinstance(one, Http1Upstream)]

    def connect(self, source: str = "10.1.2.3") -> Wire:
        """A client connects."""
        wire = Wire(self.loop, with_socket=True, source=source)
        self.plane.accepted(lambda _: KEY).connection_made(cast("asyncio.Transport", wire))
        assert isinstance(wire.protocol, Http1Connection)
        return wire

    def count(self, column: int) -> int:
        return int(self.cells[self.layout.base(FIRST_SLOT) + column])

    def advance(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass; the worker sweeps once a second."""
        while seconds > 0:
            self.loop.advance(min(step, seconds))
            self.plane.sweep()
            self.loop.run()
            seconds -= step
