"""One stream of an HTTP/2 connection, on whichever side: what it sends, and what has come and waits."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Generic, Protocol, TypeVar

from nodeagent.proxy.http2.flow import ReceiveWindow
from nodeagent.proxy.http2.headers import HeaderEncoder, StreamFault
from nodeagent.proxy.http2.writing import Outflow, Writer
from nodeagent.proxy.runtime import Runtime


class StreamOwner(Protocol):
    """A connection as its streams see it."""

    runtime: Runtime
    encoder: HeaderEncoder
    writer: Writer
    flushing: bool
    """Whether what was added to `writer` is going to be written at the end of this turn."""

    def flush_soon(self) -> None:
        """Have what was added written at the end of this turn."""
        ...

    def flush(self) -> None:
        """Write it; called by the loop's `Flush`."""
        ...

    def credit(self, stream: Stream[Any], inflow: ReceiveWindow, size: int) -> None:
        """Open a stream's window: its bytes have been passed on."""
        ...

    def take_body(self, stream: Stream[Any], data: bytes, size: int, end: bool) -> bytes | None:
        """Count DATA in; return what may be passed on now, or None where it has to wait."""
        ...


class Waiting:
    """What has come for a stream and waits: a body in pieces, its size in windows, its end."""

    __slots__ = ("end", "going_on", "pieces", "size", "trailers")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self.end = False
        self.trailers = b""
        self.going_on = False
        """It is passed on in a later turn of the loop, unless it has to wait again before that."""


Owner = TypeVar("Owner", bound=StreamOwner)


class Stream(Outflow, Generic[Owner]):
    """One stream: what it sends, and what has come for it and waits. Subclasses set all fields in one go."""

    __slots__ = ("body_left", "connection", "held", "inflow", "received_all", "waiting")

    connection: Owner
    body_left: int
    """Bytes of a body that has said its length and are still to come; else below 0."""
    held: bool
    """What comes has to wait."""
    inflow: ReceiveWindow | None
    """None: nothing has come that had to be credited."""
    received_all: bool
    """The peer has ended its side."""
    waiting: Waiting | None

    @property
    def waiting_size(self) -> int:
        """Bytes that wait, as windows count them."""
        return self.waiting.size if self.waiting is not None else 0

    def wait(self) -> None:
        """Pass nothing on for now; the stream's window fills up."""
        self.held = True
        if self.waiting is not None:
            self.waiting.going_on = False

    def go_on(self) -> None:
        """Pass on what has come, and open the window: in a turn of its own, as bytes of a socket come."""
        if not self.held:
            return
        waiting = self.waiting
        if waiting is None:
            self.held = False
        elif not waiting.going_on:
            waiting.going_on = True
            self.connection.runtime.loop.call_soon(self._pass_on)

    def _pass_on(self) -> None:
        waiting = self.waiting
        if waiting is None or not waiting.going_on:
            return
        self.held = False
        self.waiting = None
        if self.inflow is not None and not self.received_all:
            self.connection.credit(self, self.inflow, waiting.size)
        self.body_came(b"".join(waiting.pieces), waiting.end, waiting.trailers)

    @abstractmethod
    def body_came(self, data: bytes, end: bool, lines: bytes) -> None:
        """Pass on what has waited; `lines` are trailers, which are the end."""

    def check_trailers(self, end: bool) -> None:
        """Check that trailers are where they may be.

        Raises:
            StreamFault: they are not.
        """
        if not end:
            raise StreamFault("trailer", "a second head within a message")
        if self.body_left > 0:
            raise StreamFault("content_length", "a body that is not as long as its Content-Length")

    def wait_with_trailers(self, lines: bytes) -> None:
        """Keep trailers until the bytes that wait have been passed on."""
        if self.waiting is None:
            self.waiting = Waiting()
        self.waiting.end = True
        self.waiting.trailers = lines
