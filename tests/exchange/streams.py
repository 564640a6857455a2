"""The two streams of an exchange, and the dialer between, played by a test: no wire protocol is here.

A request is written `GET /`, a response `200 ok`. Three dots stand where more is to come or has come before:

    PUT / ...       a head whose body will follow        200 ok...     a response with a part of its body
    PUT / ab...     the same with a first piece          ...more...    a piece
    PUT / ab        a whole request                      ...rest       the last piece; `...` is an empty one

Other words are in small letters, see `FakeClient.words` and `FakeUpstream.words`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from middleware.contract import Reply
from nodeagent.proxy.errors import BodyTimeout, IdleTimeout
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.message import UNTIL_CLOSE, RequestHead, ResponseHead
from nodeagent.proxy.pool import Address, Pool, Pooled
from nodeagent.proxy.runtime import FOREVER
from nodeagent.proxy.streams import Source, UpstreamOwner, UpstreamStream
from tests.exchange.plane import NAMES, Plane
from tests.exchange.script import Stage

Heard = Callable[[str], None]


def shown(start: str, data: bytes, end: bool) -> str:
    """Write a head with the beginning of its body."""
    body = " " + data.decode() if data else ""
    return start + body + ("" if end else "..." if data else " ...")


def piece(data: bytes, end: bool) -> str:
    """Write a later piece of a body."""
    text = data.decode()
    return f"...{text}" if end else f"...{text}..."


def read_piece(text: str) -> tuple[bytes, bool]:
    """Read what `piece` writes."""
    assert text.startswith("...")
    end = text == "..." or not text.endswith("...")
    return text.removeprefix("...").removesuffix("...").encode(), end


def read_start(text: str, words: int) -> tuple[list[str], bytes, bool]:
    """Read what `shown` writes: the words of the head, data, end."""
    head, _, body = text.partition(" ") if words == 1 else _cut(text)
    end = not body.endswith("...")
    return head.split(), body.removesuffix("...").encode(), end


def _cut(text: str) -> tuple[str, str, str]:
    method, target, *body = text.split(" ", 2)
    return f"{method} {target}", " ", body[0] if body else ""


class FakeClient:
    """A client's stream: one exchange at a time. Implements `ClientStream`."""

    def __init__(self, plane: Plane, heard: Heard, source: str = "10.1.2.3") -> None:
        self.plane = plane
        self.source = Source(source)
        self.heard = heard
        self.write_paused = False
        self.received = self.sent = 0
        self.connect_time = 3.0
        self.http_version = "1.1"
        self.exchange: Exchange | None = None
        self.reads = True
        self.held = False
        """What it says is not read."""
        self.gone = False
        self.begun = 0
        self.words: dict[str, Callable[[], None]] = {
            "stops reading": self.stops_reading,
            "reads": self.reads_again,
            "leaves": self.leaves,
            "half-closes": lambda: self._exchange.request_data(b"", True),
            "waits for the endpoint too long": self._silent,
            "waits with its body too long": self._stalled,
            "is idle": lambda: self._exchange.idle(IdleTimeout("nothing moved")),
            "ends with trailers": lambda: self._exchange.request_trailers(b"x: y\r\n"),
            "stops in its body": lambda: self._exchange.request_failed(BodyTimeout("too late")),
        }

    @property
    def _exchange(self) -> Exchange:
        assert self.exchange is not None, "nothing is under way"
        return self.exchange

    # What it does

    def says(self, text: str) -> None:
        if text in self.words:
            self.words[text]()
        elif text.startswith("..."):
            self.body(*read_piece(text))
        else:
            (method, target), data, end = read_start(text, 2)
            self.asks(method, target, data, end)

    def asks(self, method: str, target: str, data: bytes = b"", end: bool = True, upgrade: str = "") -> None:
        assert self.exchange is None, "one exchange at a time"
        assert not self.write_paused, "nothing is read for a client that does not read"
        head = RequestHead(method.encode(), target.encode(), b"1", b"Host: web\r\n", 0)
        head.upgrade = upgrade.encode()
        if target.startswith("/upgrade"):
            head.upgrade = b"echo"
        self.received, self.sent = len(data), 0
        self.begun += 1
        exchange = self.exchange = Exchange(self, self.plane.listener, head, self.plane.runtime.now())
        exchange.start(data, end)

    def body(self, data: bytes, end: bool) -> None:
        assert not self.held, "what it says is not read"
        self.received += len(data)
        self._exchange.request_data(data, end)

    def stops_reading(self) -> None:
        """What is sent to it from now on fills its buffer."""
        self.reads = False

    def reads_again(self) -> None:
        self.reads = True
        if self.write_paused:
            self.write_paused = False
            if self.exchange is not None:
                self.exchange.client_resumed()

    def _silent(self) -> None:
        self._exchange.silent()

    def _stalled(self) -> None:
        self._exchange.stalled()

    def leaves(self) -> None:
        self.gone = True
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    # What the exchange calls

    def _write(self, size: int) -> None:
        self.sent += size
        if size and not self.reads and not self.write_paused:
            self.write_paused = True
            if self.exchange is not None:
                self.exchange.client_paused()

    def respond(self, head: ResponseHead, data: bytes, end: bool) -> None:
        assert not self.gone
        self.heard(shown(str(head.status), data, end))
        self._write(len(data) + 1)

    def send_data(self, data: bytes, end: bool) -> None:
        assert not self.gone
        self.heard(piece(data, end))
        self._write(len(data))

    def send_trailers(self, lines: bytes) -> None:
        assert not self.gone
        self.heard(f"...and {lines.decode().strip()}")

    def respond_reply(self, reply: Reply, close: bool) -> None:
        assert not self.gone
        self.heard(f"{reply.status} {reply.reason}" + (", closing" if close else ""))
        self._write(len(reply.body) + 1)

    def informational(self, head: ResponseHead) -> None:
        assert not self.gone
        self.heard(str(head.status))
        self._write(1)

    def finished(self, now: float, abort: bool) -> None:
        assert self.exchange is not None, "it ends once"
        assert not self.gone
        self.exchange = None
        self.held = False
        self.heard("broken off" if abort else "done")

    def pause_reading(self) -> None:
        if not self.held:
            self.held = True
            self.heard("hold on")

    def resume_reading(self) -> None:
        if self.held:
            self.held = False
            self.heard("go on")


class FakeUpstream:
    """A connection to an endpoint. Implements `Pooled`, as its pool sees it."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.loop = pool.runtime.loop
        self.heard: Heard = lambda _: None
        self.served = 0
        self.unprocessed = False
        self.counted = False
        self.deadline = FOREVER
        self.owner: UpstreamOwner | None = None
        self.paused = self.closing = self.lost = False
        self.tunnel = False
        self.full = False
        """The endpoint does not keep up."""
        self.surplus = False
        """It has sent what nobody asked for, and nobody has looked."""
        self.keep_alive = True
        self.moves = False
        """It has taken something since it was asked last."""
        self.asked = 0
        self._coming: deque[Callable[[UpstreamOwner], None] | None] = deque()
        """What has been sent and not been read; None: the end."""
        self.words: dict[str, Callable[[], None]] = {
            "closes": self.closes,
            "closes after it": self.closes_after,
            "has done nothing": self.has_done_nothing,
            "ends with trailers": lambda: self._comes(lambda owner: owner.response_trailers(b"x: y\r\n")),
            "stops reading": self.stops_reading,
            "reads": self.reads_again,
            "talks nonsense": lambda: self._comes(lambda owner: owner.response_failed("answered badly")),
            "talks unasked": self.talks_unasked,
            "half-closes": lambda: self._comes(lambda owner: owner.response_data(b"", True)),
        }

    # What the endpoint does

    def says(self, text: str) -> None:
        if text in self.words:
            self.words[text]()
        elif text.startswith("..."):
            data, end = read_piece(text)
            self.continues(data, end)
        else:
            (status,), data, end = read_start(text, 1)
            self.answers(int(status), data, end)

    def answers(self, status: int, data: bytes = b"", end: bool = True) -> None:
        head = ResponseHead(status, b"1", str(status).encode(), b"", 0)
        head.length = len(data) if end else UNTIL_CLOSE
        if status == 101:
            self._comes(lambda owner: self._switch(owner, head, data))
        elif status < 200:
            self._comes(lambda owner: owner.informational(head))
        else:
            self._comes(lambda owner: owner.response_started(head, data, end))

    def continues(self, data: bytes, end: bool) -> None:
        self._comes(lambda owner: owner.response_data(data, end))

    def _switch(self, owner: UpstreamOwner, head: ResponseHead, data: bytes) -> None:
        self.tunnel = True
        if self.counted:
            self.counted = False
            self.pool.lost()
        owner.response_started(head, data, False)

    def closes(self) -> None:
        """Nobody notices while it is paused."""
        self._coming.append(None)
        self._deliver()

    def closes_after(self) -> None:
        """Its answer says that it will close."""
        self.keep_alive = False

    def has_done_nothing(self) -> None:
        """As HTTP/2's REFUSED_STREAM says it."""
        self.unprocessed = True
        self.closes()

    def stops_reading(self) -> None:
        self.full = True
        if self.owner is not None:
            self.owner.pause_request()

    def reads_again(self) -> None:
        self.full = False
        self.moves = True
        if self.owner is not None:
            self.owner.resume_request()

    def talks_unasked(self) -> None:
        assert self.owner is None
        self.surplus = True

    def looks(self) -> None:
        """The loop finds what was sent unasked."""
        if self.surplus and self.owner is None and not self.closing:
            self.pool.forget(cast("Any", self))
            self.abort()

    def _comes(self, call: Callable[[UpstreamOwner], None]) -> None:
        self._coming.append(call)
        self._deliver()

    def _deliver(self) -> None:
        while self._coming and not (self.paused or self.closing):
            call = self._coming.popleft()
            if call is None:
                self.closing = True
                self.loop.call_soon(self._gone)
            elif self.owner is None:
                self.surplus = True
                self.looks()
            else:
                call(self.owner)

    def _gone(self) -> None:
        self.lost = True
        owner, self.owner = self.owner, None
        if owner is None:
            self.pool.forget(cast("Any", self))
        else:
            owner.upstream_lost(cast("UpstreamStream", self))
        if self.counted:
            self.counted = False
            self.pool.lost()

    # What the exchange and the pool call

    def usable(self) -> bool:
        return not (self.closing or self.surplus or self._coming)

    def start(
        self, owner: UpstreamOwner, head: RequestHead, source: Source, body: Sequence[bytes], end: bool
    ) -> None:
        assert self.owner is None, "one exchange at a time"
        assert not self.lost
        self.owner = owner
        self.deadline = FOREVER
        self.asked += 1
        self.heard(shown(f"{head.method.decode()} {head.target.decode()}", b"".join(body), end))
        if self.full:
            owner.pause_request()

    def send_data(self, data: bytes, end: bool) -> None:
        if not self.closing:
            self.heard(piece(data, end))

    def send_trailers(self, lines: bytes) -> None:
        if not self.closing:
            self.heard(f"...and {lines.decode().strip()}")

    def pause(self) -> None:
        if not self.paused and not self.closing:
            self.paused = True
            self.heard("hold on")

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            if not self.closing:
                self.heard("go on")
                self.loop.call_soon(self._deliver)

    def takes_slowly(self) -> bool:
        moves, self.moves = self.moves, False
        return moves

    def release(self, complete: bool, now: float) -> None:
        self.owner = None
        self.served += 1
        if complete and self.keep_alive and not self.closing:
            self.paused = False
            self.heard("kept")
            self.pool.give_back(cast("Any", self), now)
        else:
            self.abort()

    def abort(self) -> None:
        self.owner = None
        if not self.closing:
            self.closing = True
            self.heard("closed")
            self.loop.call_soon(self._gone)

    def expire(self, now: float) -> None:
        """It has been idle for long."""
        if self.deadline <= now and not self.closing:
            self.pool.forget(cast("Any", self))
            self.abort()


class Dialled:
    """A connection that is asked for, until the test decides."""

    def __init__(self, dialer: FakeDialer, address: Address, make: Any, seconds: float, done: Any) -> None:
        self.dialer = dialer
        self.address = address
        self.name = NAMES[address]
        self.make = make
        self.done = done
        self.timer = dialer.loop.call_later(seconds, self.fails, TimeoutError())

    def accepts(self) -> FakeUpstream:
        self._over()
        stream = cast("FakeUpstream", self.make())
        self.dialer.made(self.name, stream)
        stream.full = self.dialer.full
        self.done(stream, None)
        return stream

    def fails(self, error: Exception) -> None:
        self._over()
        self.done(None, error)

    def cancel(self) -> None:
        self._over()
        self.dialer.heard(self.name, "given up")

    def _over(self) -> None:
        self.timer.cancel()
        self.dialer.dialled.remove(self)


class FakeDialer:
    """Dials wait for the test. Implements `Dialer`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.dialled: list[Dialled] = []
        self.full = False
        """What accepts from now on reads nothing."""
        self.heard: Callable[[str, str], None] = lambda *_: None
        self.made: Callable[[str, FakeUpstream], None] = lambda *_: None

    def dial(self, address: Address, make: Any, seconds: float, done: Any) -> Dialled:
        dialled = Dialled(self, address, make, seconds, done)
        self.dialled.append(dialled)
        self.heard(dialled.name, "dialled")
        return dialled


class StreamStage(Stage):
    """Exchanges between fake streams."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            Plane(make=cast("Callable[[Pool], Pooled]", FakeUpstream), dialer=FakeDialer, **options)
        )
        self.dialer = cast("FakeDialer", self.plane.backends.pools.dialer)
        self.dialer.heard = lambda name, what: self.log.append((name, what))
        self.dialer.made = self._made
        self.clients: dict[str, FakeClient] = {}
        self.upstreams: dict[str, FakeUpstream] = {}

    def _made(self, endpoint: str, stream: FakeUpstream) -> None:
        number = 1 + sum(name.startswith(endpoint) for name in self.upstreams)
        name = f"{endpoint}{number}"
        self.upstreams[name] = stream
        stream.heard = lambda what: self.log.append((name, what))

    def client(self, name: str) -> FakeClient:
        if name not in self.clients:
            source = f"10.1.2.{3 + len(self.clients)}"
            self.clients[name] = FakeClient(self.plane, lambda what: self.log.append((name, what)), source)
        return self.clients[name]

    def act(self, peer: str, what: bytes | str) -> None:
        assert isinstance(what, str)
        if peer.startswith("client"):
            self.client(peer).says(what)
        elif peer in self.upstreams:
            self.upstreams[peer].says(what)
        else:
            dialled = next(one for one in self.dialer.dialled if one.name == peer)
            if what == "accepts":
                dialled.accepts()
            else:
                assert what == "refuses"
                dialled.fails(ConnectionRefusedError(111, "Connection refused"))

    def end(self) -> None:
        """Everybody leaves, time passes, and nothing may be left."""
        with self.loop.running():
            for client in self.clients.values():
                if not client.gone:
                    client.leaves()
        self.loop.settle()
        self.plane.passes(100.0)
        with self.loop.running():
            for stream in self.upstreams.values():
                stream.expire(self.loop.now)
        self.loop.settle()
        self.log.clear()
        assert not self.dialer.dialled
        assert all(stream.lost for stream in self.upstreams.values())
        self.plane.check_nothing_left()
        assert self.plane.ended == sum(client.begun for client in self.clients.values())
