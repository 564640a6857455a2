"""What stands on the two sides of an exchange. A wire protocol implements both; an exchange knows no more.

An HTTP/1 connection *is* its stream; a protocol with many streams on a connection makes one for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from middleware.contract import Reply
from nodeagent.proxy.message import RequestHead, ResponseHead
from nodeagent.stats.edges import PortEdges
from nodeagent.stats.identity import Identity


class Source:
    """Where a client's connection comes from, resolved once for it."""

    __slots__ = (
        "address",
        "address_bytes",
        "counters",
        "counters_epoch",
        "counters_of",
        "forwarded_line",
        "identity",
        "port",
    )

    def __init__(self, address: str, port: int = 0) -> None:
        self.address = address
        self.port = port
        self.identity: Identity | None = None
        """Who it is; None until somebody has asked."""
        self.counters = 0
        """The first cell of what counts its requests to the port `counters_of`, as long as the edges are of
        `counters_epoch` (`RunningListener.counters_for`)."""
        self.counters_epoch = -1
        self.counters_of: PortEdges | None = None
        self.address_bytes = address.encode("ascii")
        self.forwarded_line = b"X-Forwarded-For: %b\r\n" % self.address_bytes


class ClientStream(Protocol):
    """The client's side of one exchange at a time. `received` and `sent` count its bytes, head included."""

    source: Source
    write_paused: bool
    """True while the client does not read: nothing more is read for it then."""
    received: int
    sent: int
    connect_time: float
    """Seconds that connecting to an endpoint may take for it."""

    @property
    def http_version(self) -> str:
        """Of HTTP as the client speaks it: `1.0`, `1.1` or `2`."""
        ...

    def respond(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """Send the response's head with the beginning of its body, `end` if that is all of it.

        A head of status 101 switches protocols: from then on bytes pass as they are, both ways.
        """
        ...

    def send_data(self, data: bytes, end: bool) -> None:
        """Send more of the body."""
        ...

    def send_trailers(self, lines: bytes) -> None:
        """Send the trailers of a body that has come without framing; they are its end."""
        ...

    def respond_reply(self, reply: Reply, close: bool) -> None:
        """Send a whole response of the mesh itself; `close`: the client's side cannot be trusted any more."""
        ...

    def informational(self, head: ResponseHead) -> None:
        """Pass a 1xx response on."""
        ...

    def finished(self, now: float, abort: bool) -> None:
        """The exchange has ended; `abort`: what was sent is not whole, and must not look so."""
        ...

    def pause_reading(self) -> None:
        """Let the client wait with its body."""
        ...

    def resume_reading(self) -> None:
        """Let the client send again."""
        ...


class UpstreamOwner(Protocol):
    """Whose exchange an upstream stream carries: what the stream calls."""

    @property
    def trailers_wanted(self) -> bool:
        """Whether an endpoint of HTTP/1 gets the request's trailers."""
        ...

    def informational(self, head: ResponseHead) -> None:
        """A 1xx response has come."""
        ...

    def response_started(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """The response's head has come, and the beginning of its body, `end` if that is all of it."""
        ...

    def response_data(self, data: bytes, end: bool) -> None:
        """More of the body has come."""
        ...

    def response_trailers(self, lines: bytes) -> None:
        """The response has ended with these trailers, which were not part of its bytes."""
        ...

    def response_failed(self, detail: str) -> None:
        """The endpoint has sent what cannot be passed on."""
        ...

    def not_switched(self, detail: str) -> None:
        """The endpoint cannot be asked to switch protocols, and has been sent nothing."""
        ...

    def upstream_lost(self, stream: UpstreamStream) -> None:
        """The stream is gone before the response was whole."""
        ...

    def pause_request(self) -> None:
        """The endpoint does not keep up with the request's body."""
        ...

    def resume_request(self) -> None:
        """The endpoint has caught up."""
        ...


class UpstreamStream(Protocol):
    """The endpoint's side of one try."""

    served: int
    """Exchanges that were begun before this one on its connection."""

    @property
    def unprocessed(self) -> bool:
        """Whether the endpoint has said that it did nothing for it."""
        ...

    def start(
        self, owner: UpstreamOwner, head: RequestHead, source: Source, body: Sequence[bytes], end: bool
    ) -> None:
        """Send the request's head and what has come of its body, `end` if that is all of it."""
        ...

    def send_data(self, data: bytes, end: bool) -> None:
        """Send more of the body; past a 101 `end` is the client's half-close."""
        ...

    def send_trailers(self, lines: bytes) -> None:
        """Send the trailers of a body that has come without framing; they are its end."""
        ...

    def pause(self) -> None:
        """Read no more; `release` and `abort` undo it."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...

    def takes_slowly(self) -> bool:
        """Whether the endpoint has taken anything of the request since this was asked last."""
        ...

    def release(self, complete: bool, now: float) -> None:
        """The exchange has ended; `complete`: the stream's connection may serve another."""
        ...

    def abort(self) -> None:
        """Give the try up at once."""
        ...


class StreamTaker(Protocol):
    """The part that has asked for a stream to an endpoint and waits for it."""

    def connected(self, stream: UpstreamStream) -> None:
        """Take it into use."""
        ...

    def connect_failed(self, error: Exception) -> None:
        """Learn that there will be none: OSError, TimeoutError, or an ExchangeError of the pool."""
        ...


class Pending(Protocol):
    """A stream that is asked for and has not come."""

    def cancel(self) -> None:
        """Ask for it no more; the taker is not called."""
        ...
