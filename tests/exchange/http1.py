"""HTTP/1 on both sides of the data plane, between transports that a test plays.

Bytes are bytes; other words are in small letters. `http` spares their line ends, `Own` stands for an answer
of the mesh itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from nodeagent.proxy.http1.server import Http1Connection
from nodeagent.proxy.tcp import TcpConnection
from tests.exchange.loop import Attempt
from tests.exchange.plane import NAMES, Plane
from tests.exchange.script import Stage
from tests.exchange.transports import HandTransport

FROM = "X-Forwarded-For: 10.1.2.3"
HOST = "Host: web"


def http(*lines: str, body: bytes = b"") -> bytes:
    """Write a head and the beginning of its body."""
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def get(target: str = "/", *fields: str) -> bytes:
    """Write a GET as a client sends it."""
    return http(f"GET {target} HTTP/1.1", HOST, *fields)


def got(target: str = "/", *fields: str) -> bytes:
    """Write a GET as an endpoint gets it."""
    return http(f"GET {target} HTTP/1.1", HOST, *fields, FROM)


def put(body: bytes, *fields: str, length: int | None = None, target: str = "/") -> bytes:
    """Write a PUT as a client sends it; `length`: that of all of its body."""
    size = len(body) if length is None else length
    return http(f"PUT {target} HTTP/1.1", HOST, f"Content-Length: {size}", *fields, body=body)


def was_put(body: bytes, length: int | None = None, target: str = "/") -> bytes:
    """Write a PUT as an endpoint gets it."""
    size = len(body) if length is None else length
    return http(f"PUT {target} HTTP/1.1", HOST, f"Content-Length: {size}", FROM, body=body)


def ok(body: bytes = b"", *fields: str, length: int | None = None) -> bytes:
    """Write a response; `length`: that of all of its body."""
    size = len(body) if length is None else length
    return http("HTTP/1.1 200 OK", f"Content-Length: {size}", *fields, body=body)


class Own:
    """A complete answer that the mesh gives itself, whatever its text is; perhaps `behind` (after) another
    one."""

    def __init__(self, status: int, reason: str, *, closing: bool = False, behind: bytes = b"") -> None:
        self.behind = behind
        self.status = status
        self.reason = reason
        self.closing = closing

    def __repr__(self) -> str:
        return f"{self.status} {self.reason}" + (", closing" if self.closing else "")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, bytes):
            return NotImplemented
        if not other.startswith(self.behind):
            return False
        other = other.removeprefix(self.behind)
        head, _, body = other.partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        return (
            head.startswith(b"HTTP/1.1 %d " % self.status)
            and re.search(rb"\r\nProxy-Status: svc.mesh; [^\r]*details=\"%b\b" % self.reason.encode(), head)
            is not None
            and length is not None
            and int(length[1]) == len(body)
            and (b"\r\nConnection: close" in head) == self.closing
        )

    __hash__ = None  # type: ignore[assignment]


class Http1Stage(Stage):
    """Clients and endpoints on transports. `high` are the bytes that a transport keeps before it is full."""

    def __init__(self, *, high: int = 64, **options: Any) -> None:
        super().__init__(Plane(**options))
        self.high = high
        self.wires: dict[str, HandTransport] = {}
        self.loop.dialled = lambda attempt: self.log.append((NAMES[attempt.address], "dialled"))
        self.loop.given_up = lambda attempt: self.log.append((NAMES[attempt.address], "given up"))

    def wire(self, name: str) -> HandTransport:
        return self.wires[name]

    def held(self, name: str) -> bool:
        """Whether nothing is read from this peer."""
        return not self.wires[name].is_reading()

    def connection(self, name: str) -> Any:
        """The data plane's side of a wire."""
        return self.wires[name].get_protocol()

    def connects(self, name: str) -> HandTransport:
        source = f"10.1.2.{3 + sum(known.startswith('client') for known in self.wires)}"
        wire = self._wire(name, source)
        accepted: Any = self.plane.accepted()
        wire.start(accepted)
        assert isinstance(wire.get_protocol(), Http1Connection | TcpConnection) or wire.is_closing()
        return wire

    def _wire(self, name: str, address: str) -> HandTransport:
        wire = HandTransport(
            self.loop.asyncio,
            lambda what: self.log.append((name, what)),
            address,
            high=self.high,
            low=self.high // 4,
        )
        self.wires[name] = wire
        return wire

    def attempt(self, endpoint: str) -> Attempt:
        """The oldest connection that is being made to an endpoint."""
        return next(one for one in self.loop.attempts if NAMES[one.address] == endpoint and one.pending)

    def accepts(self, endpoint: str) -> HandTransport:
        attempt = self.attempt(endpoint)
        number = 1 + sum(name.startswith(endpoint) and name[1:].isdigit() for name in self.wires)
        wire = self._wire(f"{endpoint}{number}", attempt.address[0])
        wire.set_protocol(attempt.protocol)
        attempt.accepted(wire, wire.close_silently)
        wire.start()
        return wire

    def act(self, peer: str, what: bytes | str) -> None:
        if peer in NAMES.values():
            if what == "accepts":
                self.accepts(peer)
            else:
                assert what == "refuses", what
                self.attempt(peer).refused(ConnectionRefusedError(111, "Connection refused"))
            return
        if peer not in self.wires:
            self.connects(peer)
        wire = self.wires[peer]
        words: dict[str, Callable[[], None]] = {
            "connects": lambda: None,
            "ends": wire.ends,
            "closes": wire.closes,
            "resets": wire.resets,
            "stops reading": wire.stops,
            "reads": wire.takes,
        }
        if isinstance(what, bytes):
            wire.says(what)
        elif what.startswith("reads "):
            wire.takes(int(what.removeprefix("reads ")))
        else:
            words[what]()

    def end(self) -> None:
        """Everybody leaves, time passes, and nothing may be left."""
        with self.loop.running():
            for wire in self.wires.values():
                wire.resets()
        self.loop.settle()
        self.plane.passes(400.0)
        self.log.clear()
        self.plane.check_nothing_left()
        assert all(wire.closed for wire in self.wires.values())
