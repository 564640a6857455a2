"""Whatever clients and endpoints of either protocol do, in whatever order: it ends, and leaves nothing.

Peers keep to the framing of their protocol, and to nothing else; in the last test not even to that. What must
become of the requests of peers that are well-behaved is in `tests/exchange/test_machine.py`.
"""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from middleware.grpc import GrpcStatus
from nodeagent.compiled import is_compiled
from nodeagent.proxy.http2 import frames
from nodeagent.proxy.websocket import accept_of
from nodeagent.settings import Limits
from nodeagent.stats import columns
from nodeagent.stats.methods import read_rows
from tests.exchange.http1 import get, http, ok
from tests.exchange.plane import NAMES
from tests.http2.wire import BACK, HELLO, Http2Stage, answers, asks, data, head

LIMITS = Limits(
    head_bytes=4096,
    replay_bytes=512,
    streams=3,
    upstream_connections=2,
    upstream_queue=3,
    upstream_queue_time=5.0,
    response_time=20.0,
    stall_time=10.0,
    idle_time=30.0,
    upstream_idle_time=15.0,
)
ANNOTATIONS: tuple[dict[str, str], ...] = (
    {},
    {"svc.mesh/retry-attempts": "2"},
    {"svc.mesh/request-timeout": "7s"},
)
FOR_CALLS: tuple[dict[str, str], ...] = (
    {},
    {"svc.mesh/retry-attempts": "2", "svc.mesh/retry-on": "unavailable,unknown"},
    {
        "svc.mesh/retry-attempts": "1",
        "svc.mesh/retry-on": "unavailable,deadline-exceeded",
        "svc.mesh/circuit-breaker": "ResponseCodeRatio(500, 600, 0, 600) > 0.9",
        "svc.mesh/per-try-timeout": "3s",
        "svc.mesh/timeout": "7s",
    },
)
GRPC = (("content-type", "application/grpc"), ("te", "trailers"))
UPGRADE = ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
ONCE_BROKE = (5190,)
CALLS_ONCE_BROKE = (3192,)
"""Seeds of conversations that found something."""
BROKEN = 600 if is_compiled() else 150
"""Conversations with broken bytes: compiled code has more ways to fail, such as a slice that cannot be."""
PIECES = (b"", b"piece", b"x" * 700, b"y" * 40_000)
CODES = (frames.NO_ERROR, frames.REFUSED_STREAM, frames.CANCEL)


class World:
    """A stage, and its clients and endpoints. `websockets`: clients ask for them too."""

    def __init__(
        self,
        chance: random.Random,
        http1: str,
        annotations: dict[str, str],
        websockets: bool,
        grpc: bool,
    ) -> None:
        self.chance = chance
        self.grpc = grpc
        self.websockets = websockets
        self.stage = Http2Stage(http1=http1, limits=LIMITS, endpoints="ab", annotations=annotations)
        self.http1 = http1
        self.begun: dict[str, int] = {}
        self.open: dict[str, set[int]] = {}
        """Of a client, streams that it has not ended; of an endpoint, those whose head it has sent."""
        self.done: dict[str, set[int]] = {}

    def pick(self, *things: Any) -> Any:
        return self.chance.choice(things)

    def client(self) -> None:
        name = self.pick("client", "client2", "client3")
        if "client" in self.http1:
            said = self.pick(
                *([get("/", *UPGRADE)] * 4 + [b"tunnelled"] if self.websockets else []),
                get(),
                http("PUT / HTTP/1.1", "Host: web", "Content-Length: 5", body=b"piece"),
                http("POST / HTTP/1.1", "Host: web", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n"),
                b"1\r\nc\r\n",
                b"0\r\n\r\n",
                "stops reading",
                "reads",
                "ends",
                "resets",
            )
        else:
            said = self._http2_client(name)
        self._act(name, said)

    def _http2_client(self, name: str) -> Any:
        if name not in self.begun:
            self.begun[name] = -1
            self.open[name] = set()
            return HELLO + frames.settings_frame(
                {frames.INITIAL_WINDOW_SIZE: self.pick(0, 10, 65_535, 65_535)}
            )
        opened = sorted(self.open[name])
        what = self.pick(*["ask"] * 4, *["data"] * 4, *["window"] * 3, "reset", "trailers", "other")
        if what == "ask" or (what != "other" and not opened):
            stream = self.begun[name] = self.begun[name] + 2
            self.open[name].add(stream)
            if self.grpc:
                end = self._ends(name, stream, likely=True)
                return asks(stream, "POST", "/shop.Cart/Add", *GRPC, end=end)
            if self.websockets and self.pick(True, False):
                return asks(stream, "CONNECT", "/", (":protocol", "websocket"), end=False)
            return asks(stream, self.pick("GET", "PUT", "POST"), end=self._ends(name, stream, likely=True))
        if what == "other":
            return self._misbehaves(name)
        stream = self.pick(*opened)
        if what == "data":
            piece = self.pick(*PIECES)
            return data(stream, piece, end=self._ends(name, stream))
        if what == "window":
            return frames.window_frame(self.pick(0, stream), self.pick(1, 1000, 100_000))
        self.open[name].discard(stream)
        return frames.reset_frame(stream, frames.CANCEL) if what == "reset" else head(stream, ("x-sum", "1"))

    def _ends(self, name: str, stream: int, likely: bool = False) -> bool:
        end = bool(self.pick(True, likely, False))
        if end:
            self.open[name].discard(stream)
        return end

    def _misbehaves(self, name: str) -> Any:
        """Do what is allowed and hurts, or seldom what is not."""
        stream = self.begun[name]
        return self.pick(
            "stops reading",
            "stops reading",
            "reads",
            "reads",
            "reads",
            "ends",
            "resets",
            frames.ping_frame(b"draining", ack=True),
            frames.settings_frame({frames.INITIAL_WINDOW_SIZE: self.pick(0, 100, 100_000)}),
            frames.goaway_frame(0, 0),
            data(max(stream, 1), b"late"),
        )

    def endpoint(self) -> None:
        dialled = [NAMES[one.address] for one in self.stage.loop.attempts if one.pending]
        serving = [name for name in self.stage.wires if re.fullmatch("[ab][0-9]+", name)]
        if dialled and self.pick(True, True, False):
            self._act(self.pick(*dialled), self.pick("accepts", "accepts", "accepts", "refuses"))
        elif serving:
            name = self.pick(*serving)
            self._act(name, self._answer(name))

    def _answer(self, name: str) -> Any:
        other = ("stops reading", "reads", "ends", "resets")
        if "endpoint" in self.http1:
            return self.pick(
                *([self._switched(name)] * 6 + [b"tunnelled"] * 3 if self.websockets else []),
                ok(b"hi"),
                ok(b"hi"),
                ok(b"h", length=2),
                b"i",
                http("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", body=b"1\r\na\r\n"),
                b"0\r\n\r\n",
                http("HTTP/1.1 503 X", "Content-Length: 0"),
                http("HTTP/1.1 103 X"),
                *other,
            )
        if name not in self.begun:
            self.begun[name] = 0
            self.open[name] = set()
            settings = {frames.MAX_CONCURRENT_STREAMS: self.pick(1, 2, 100)}
            if not self.websockets:
                return BACK + frames.settings_frame(settings)
            settings[frames.ENABLE_CONNECT_PROTOCOL] = self.pick(1, 1, 1, 0)
            return frames.settings_frame(settings) + frames.SETTINGS_ACK
        heads = self.stage.ears[name].heads - self.done.setdefault(name, set())
        if not heads or self.pick(*[False] * 9, True):
            return self.pick(
                *other,
                "reads",
                "reads",
                frames.goaway_frame(self.pick(0, 1, 3), 0),
                frames.settings_frame({frames.INITIAL_WINDOW_SIZE: self.pick(0, 100, 100_000)}),
                data(self.pick(1, 3), b"late"),
            )
        stream = self.pick(*sorted(heads))
        started = self.open[name]
        what = self.pick(*["go on"] * 6, "window", "window", "reset")
        if what == "window":
            return frames.window_frame(self.pick(0, stream), self.pick(1, 1000, 100_000))
        if what == "reset":
            self.done[name].add(stream)
            return frames.reset_frame(stream, self.pick(*CODES))
        if stream not in started:
            if self.pick(*[False] * 4, True):
                return answers(stream, 103, end=False)
            end = self.pick(True, False)
            (self.done[name] if end else started).add(stream)
            said = (("grpc-status", self.pick("0", "2", "14", "x")),) if self.grpc else ()
            return answers(stream, self.pick(200, 200, 503), *said, end=end)
        end = self.pick(True, False)
        if end:
            self.done[name].add(stream)
        if end and self.pick(True, False):
            return head(stream, ("grpc-status", self.pick("0", "14") if self.grpc else "0"))
        return data(stream, self.pick(*PIECES), end=end)

    def _switched(self, name: str) -> bytes:
        """Answer as an endpoint that takes the WebSocket it was asked for last."""
        keys = re.findall(rb"Sec-WebSocket-Key: (\S+)", bytes(self.stage.wires[name].received))
        accept = accept_of(keys[-1].decode("latin-1")) if keys else "none"
        lines = ("Connection: upgrade", "Upgrade: websocket", f"Sec-WebSocket-Accept: {accept}")
        return http("HTTP/1.1 101 Switching Protocols", *lines)

    def _act(self, name: str, what: bytes | str) -> None:
        wire = self.stage.wires.get(name)
        if wire is not None and (wire.left or wire.closed) and isinstance(what, bytes):
            return
        with self.stage.loop.running():
            self.stage.act(name, what)
        self.stage.loop.settle()
        self.stage.log.clear()

    def time(self) -> None:
        self.stage.plane.passes(self.pick(1.0, 6.0, 12.0))

    def check(self) -> None:
        """What holds at any moment."""
        plane = self.stage.plane
        assert not plane.watcher.bugs
        assert plane.ended == len(plane.watcher.ends)
        if self.grpc:
            assert all(ended.grpc_status is not None for ended in plane.watcher.ends)
            calls = sum(plane.count(columns.GRPC_CALLS + status) for status in GrpcStatus)
            named = sum(sum(row.calls) for row in read_rows(plane.methods) if row is not None)
            assert calls == named == plane.ended
        for pool in plane.pools:
            assert pool.waiting <= LIMITS.upstream_queue
        for connection in plane.runtime.connections:
            assert connection.busy <= LIMITS.streams
            assert connection.held < 1_000_000


def play(seed: int, http1: str, websockets: bool = False, grpc: bool = False, breaking: bool = False) -> None:
    """Play a conversation that the seed decides."""
    chance = random.Random(f"{seed} {http1}")
    kind = Breaking if breaking else World
    world = kind(chance, http1, chance.choice(FOR_CALLS if grpc else ANNOTATIONS), websockets, grpc)
    acts = (*[world.client] * 5, *[world.endpoint] * 6, world.time)
    for _ in range(chance.randrange(5, 80)):
        chance.choice(acts)()
        if not chance.randrange(60):
            world.stage.plane.runtime.draining = True
        world.check()
    world.stage.end()


@pytest.mark.parametrize("http1", ["", "client", "endpoint"], ids=["2 to 2", "1 to 2", "2 to 1"])
@pytest.mark.parametrize("websockets", [False, True], ids=["requests", "WebSockets too"])
def test_whatever_they_do(http1: str, websockets: bool) -> None:
    """A number decides all of a conversation, so that those which broke something can be named."""
    for seed in (*range(200), *ONCE_BROKE):
        try:
            play(seed, http1, websockets)
        except Exception as error:
            error.add_note(f"seed {seed}, {http1!r}")
            raise


@pytest.mark.parametrize("http1", ["", "endpoint"], ids=["2 to 2", "2 to 1"])
def test_calls_whatever_they_do(http1: str) -> None:
    """Every call has one status, and is counted with it once."""
    for seed in (*range(200), *CALLS_ONCE_BROKE):
        try:
            play(seed, http1, grpc=True)
        except Exception as error:
            error.add_note(f"seed {seed}, {http1!r}")
            raise


class Breaking(World):
    """Peers whose bytes are changed on the way: what is refused is refused in the words of its protocol."""

    def _act(self, name: str, what: bytes | str) -> None:
        # Without its preface a client would speak another protocol.
        if isinstance(what, bytes) and what and what[:4] != HELLO[:4] and self.pick(*[False] * 4, True):
            what = self._broken(what)
        super()._act(name, what)

    def _broken(self, what: bytes) -> bytes:
        """Change a byte, or take away, double or put in a few."""
        odd: bytes = self.pick(b"\r\n", b"\n", b"\x00", b"\xff\xff\xff", b":", b" ")
        at = self.chance.randrange(min(len(what), self.pick(12, 60, 50_000)))
        before, after = what[:at], what[at:]
        few = self.chance.randrange(1, 12)
        match self.chance.randrange(6):
            case 0:
                return before + self.chance.randbytes(1) + after[1:]
            case 1:
                return before + bytes((after[0] ^ 1 << self.chance.randrange(8),)) + after[1:]
            case 2:
                return before + after[few:]
            case 3:
                return before + after[:few] + after
            case 4:
                return before + self.chance.randbytes(few) + after
            case _:
                return before + odd + after


@pytest.mark.parametrize("http1", ["", "client", "endpoint", "client, endpoint"])
def test_broken_bytes(http1: str) -> None:
    """A codec refuses them, and raises nothing else; what they belong to ends and leaves nothing."""
    for seed in range(BROKEN):
        try:
            play(seed, http1, websockets=bool(seed % 2), breaking=True)
        except Exception as error:
            error.add_note(f"seed {seed}, {http1!r}")
            raise
