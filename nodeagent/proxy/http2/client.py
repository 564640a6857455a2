"""A connection to an endpoint that speaks HTTP/2: many streams, each the endpoint's side of one try.

A request that an endpoint says it has not processed (REFUSED_STREAM, streams after the last one of a GOAWAY)
may be sent to another, whatever it is (RFC 9113 section 8.7). For everything else that breaks, the exchange
decides.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from nodeagent.proxy.connection import probe_peer
from nodeagent.proxy.http2.announcement import Announcement
from nodeagent.proxy.http2.client_stream import UpstreamHttp2Stream
from nodeagent.proxy.http2.connection import Multiplexed, table_lost
from nodeagent.proxy.http2.frames import (
    CANCEL,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    LAST_STREAM,
    MAX_CONCURRENT_STREAMS,
    NO_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    ConnectionFault,
    goaway_frame,
    ping_frame,
    settings_frame,
)
from nodeagent.proxy.http2.headers import CompressionFault, StreamFault
from nodeagent.proxy.http2.stream import Stream
from nodeagent.proxy.message import ResponseHead
from nodeagent.proxy.runtime import FOREVER
from nodeagent.proxy.shared_pool import SharedPool
from nodeagent.proxy.streams import UpstreamOwner
from nodeagent.settings import Limits

_HEAD_LIMITS: Final = Limits(head_bytes=256 * 1024, head_fields=512)
QUIET: Final = 60.0
"""Seconds without a byte, with streams open, after which the endpoint is asked whether it is still there."""
PING_EVERY: Final = 330.0
"""Seconds between two such questions: gRPC servers take more than one in five minutes for an attack."""
PING_TIME: Final = 20.0
"""Seconds that it has to answer."""
LINGER_TIME: Final = 30.0
"""Seconds that a WebSocket's last bytes have to reach an endpoint that reads slowly."""
_ALIVE: Final = b"alive???"
_OUT_OF_STREAMS: Final = 2**30
"""A connection is not used any more when its streams are numbered so high."""


class Http2Upstream(Multiplexed):
    """One connection of a shared pool."""

    __slots__ = (
        "_first",
        "_heard",
        "_last_ping",
        "_next",
        "_peer_streams",
        "_pinged",
        "_pool",
        "_streams",
        "begun",
        "leaving",
        "websockets",
    )

    def __init__(self, pool: SharedPool) -> None:
        super().__init__(pool.runtime, _HEAD_LIMITS)
        self.begun = 0
        """Streams that were begun on it."""
        self.leaving = False
        """It takes no further streams."""
        self._pool = pool
        self._streams: dict[int, UpstreamHttp2Stream] = {}
        self._next = 1
        self._peer_streams = LAST_STREAM
        """Streams that the endpoint lets be open at once; until it has said so, as many as we like."""
        self.early: list[UpstreamHttp2Stream] = []
        self._first = True
        """Nothing has come yet."""
        self._heard = False
        """Something has come since the last look."""
        self.websockets = Announcement(pool.runtime)
        self._last_ping = -PING_EVERY
        self._pinged = False

    @property
    def held(self) -> int:
        """Bytes that wait for clients or for the endpoint."""
        return super().held + sum(stream.waiting_size for stream in self._streams.values())

    @property
    def busy(self) -> int:
        """How many requests are under way."""
        return len(self._streams)

    # What the pool asks

    @property
    def room(self) -> int:
        """How many more streams it takes now."""
        if self.leaving or self._closing or self.transport.is_closing():
            return 0
        most = self.runtime.limits.streams
        if self._peer_streams < most:
            most = self._peer_streams
        return most - len(self._streams)

    def open(self) -> UpstreamHttp2Stream:
        """Return a stream for another request."""
        stream = UpstreamHttp2Stream(self)
        self.begun += 1
        return stream

    def leave(self) -> None:
        """Take no further streams, and close when the last has ended."""
        self._retire()
        if not self._streams and not self._closing:
            self.send(goaway_frame(0, NO_ERROR))
            self.close_gently()

    # What its streams call

    def begin(self, stream: UpstreamHttp2Stream) -> None:
        """Give a stream its number: in the order in which their heads are sent."""
        stream.identifier = number = self._next
        stream.window = self.writer.initial
        self._next = number + 2
        self._streams[number] = stream
        if number > _OUT_OF_STREAMS:
            self._retire()

    def released(self, stream: UpstreamHttp2Stream, now: float) -> None:
        """An exchange has ended; what is not whole is broken off."""
        if self._streams.pop(stream.identifier, None) is None:
            self.websockets.forget(stream)
            return
        if stream.inflow is not None:
            stream.inflow.close()
        if not (stream.sent_all and stream.received_all):
            if stream.last_bytes():
                self._linger(stream)
                return
            if not stream.sent_all:
                self.writer.drop(stream)
            if not self._closing:
                self.reset_stream(stream.identifier, CANCEL)
        self._controls.left += 8
        self._one_less(now)

    def _linger(self, stream: UpstreamHttp2Stream) -> None:
        """Keep a stream without an owner until the endpoint has taken the last bytes, within bounds."""

        def give_up() -> None:
            if self._streams.get(stream.identifier) is stream:
                stream.abort()

        self._streams[stream.identifier] = stream
        self.runtime.deadlines.set(LINGER_TIME, give_up)

    def _one_less(self, now: float) -> None:
        """A stream has ended."""
        if self._closing:
            return
        if self._pool.queue:
            self._pool.serve()
        if self._streams:
            return
        if self.leaving:
            self.leave()
        else:
            self.deadline = now + self.runtime.limits.upstream_idle_time

    def _lost(self, stream: UpstreamHttp2Stream) -> None:
        """A stream has ended before its response was whole."""
        owner = self._forget(stream)
        if owner is not None:
            owner.upstream_lost(stream)
        self._one_less(self.runtime.now())

    def _forget(self, stream: UpstreamHttp2Stream) -> UpstreamOwner | None:
        self._streams.pop(stream.identifier, None)
        if not stream.sent_all:
            self.writer.drop(stream)
        if stream.inflow is not None:
            stream.inflow.close()
        owner, stream.owner = stream.owner, None
        return owner

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio calls this once."""
        super().connection_made(transport)
        probe_peer(self.transport)
        self.deadline = self.runtime.now() + self.runtime.limits.upstream_idle_time

    def data_received(self, data: bytes) -> None:
        """Bytes of the endpoint; SETTINGS first."""
        if self._first and data:
            self._first = False
            if data[3:4] not in (b"", bytes((SETTINGS,))):
                speaks = "HTTP/1" if data.startswith(b"HTTP") else "something else"
                self.fail(PROTOCOL_ERROR, f"does not speak HTTP/2 but {speaks}")
                return
        self._heard = True
        self.read(data)

    def eof_received(self) -> bool:
        """The endpoint will send no more."""
        self.peer_left = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio calls this once, last."""
        super().connection_lost(exc)
        self._retire()
        self._pool.lost(self)
        self.streams_lost(NO_ERROR, "")

    def _retire(self) -> None:
        """Be offered to no further request."""
        if not self.leaving:
            self.leaving = True
            self._pool.left(self)
            self.websockets.leave()

    # Responses

    def on_headers(self, stream: int, block: bytes, end: bool) -> None:
        """A response begins, or ends with trailers."""
        mine = self._streams.get(stream)
        if mine is not None and mine.early is not None:
            self.start_early()
            mine = self._streams.get(stream)
        if mine is None:
            if self.is_idle(stream):
                raise ConnectionFault(PROTOCOL_ERROR, "HEADERS on an idle stream")
            self.skip(block)
            return
        try:
            if mine.received_all:
                self.skip(block)
                self._broken(mine, STREAM_CLOSED, "HEADERS after the end of the response")
            elif mine.responded:
                self._on_trailers(mine, self.decoder.trailers(block), end)
            else:
                self._on_head(mine, self.decoder.response(block, end, mine.to_head), end)
        except StreamFault as fault:
            self._broken(mine, PROTOCOL_ERROR, fault.detail)
        except CompressionFault as lost:
            raise table_lost(lost) from None

    def _on_head(self, mine: UpstreamHttp2Stream, head: ResponseHead, end: bool) -> None:
        owner = mine.owner
        assert owner is not None
        if head.status < 200:
            if end or head.status == 101:
                raise StreamFault("malformed_line", "an informational response that cannot be one")
            owner.informational(head)
            return
        if mine.key is not None:
            mine.answered(head, end)
            return
        mine.responded = True
        if end:
            mine.received_all = True
            owner.response_started(head, b"", True)
        else:
            mine.body_left = head.length
            mine.early = head
            self.early.append(mine)

    def _on_trailers(self, mine: UpstreamHttp2Stream, lines: bytes, end: bool) -> None:
        mine.check_trailers(end)
        mine.received_all = True
        if mine.held:
            mine.wait_with_trailers(lines)
        elif mine.owner is not None:
            mine.owner.response_trailers(lines)

    def on_data(self, stream: int, data: bytes, size: int, end: bool) -> None:
        """More of a response's body."""
        increment = self._window.received_and_passed_on(size)
        if increment:
            self.window_moved(increment)
        mine = self._streams.get(stream)
        if mine is None:
            if self.is_idle(stream):
                raise ConnectionFault(PROTOCOL_ERROR, "DATA on an idle stream")
            return
        if mine.received_all or not mine.responded:
            self._broken(mine, STREAM_CLOSED, "DATA where there can be none")
            return
        if not data and not end:
            self.spend_patience()
        try:
            passed = self.take_body(mine, data, size, end)
        except StreamFault as fault:
            self.start_early()
            self._broken(mine, PROTOCOL_ERROR, fault.detail)
            return
        owner, head = mine.owner, mine.early
        assert owner is not None
        if head is not None:
            mine.early = None
            if self.early[-1] is mine:
                self.early.pop()
            if passed is None:
                owner.response_started(head, b"", False)
            else:
                owner.response_started(head, passed, end)
        elif passed is not None and (passed or end):
            owner.response_data(passed, end)

    def start_early(self) -> None:
        """Pass on the heads whose bodies have not come yet."""
        streams, self.early = self.early, []
        for mine in streams:
            head, mine.early = mine.early, None
            if head is not None and mine.owner is not None:
                mine.owner.response_started(head, b"", False)

    def on_reset(self, stream: int, code: int) -> None:
        """The endpoint breaks a stream off."""
        self.start_early()
        mine = self._streams.get(stream)
        if mine is None:
            if self.is_idle(stream):
                raise ConnectionFault(PROTOCOL_ERROR, "RST_STREAM on an idle stream")
            self.spend_patience()
        elif mine.received_all and (mine.key is None or code == NO_ERROR):  # it needs no more of the request
            self.writer.drop(mine)
            mine.not_needed()
        else:
            mine.unprocessed = code == REFUSED_STREAM and not mine.responded
            mine.served = 0  # it is about this request, and not the end of a connection that was idle
            self._lost(mine)

    def on_goaway(self, last: int, code: int, debug: bytes) -> None:
        """The endpoint begins to leave; it has not processed the streams after `last`."""
        self.start_early()
        self.spend_patience(8)
        self._retire()
        for number, stream in list(self._streams.items()):
            if number > last and stream.owner is not None and not stream.responded:
                stream.unprocessed = True
                self._lost(stream)
        if not self._streams:
            self.close_gently()

    def on_stream_fault(self, stream: int, code: int, detail: str) -> None:
        """The endpoint has broken a rule on a stream."""
        self.start_early()
        mine = self._streams.get(stream)
        if mine is None:
            self.spend_patience(4)
        else:
            self._broken(mine, code, detail)

    def _broken(self, mine: UpstreamHttp2Stream, code: int, detail: str) -> None:
        self.reset_stream(mine.identifier, code)
        owner = self._forget(mine)
        if owner is not None:
            owner.response_failed(f"sent an invalid response: {detail}")
        self._one_less(self.runtime.now())

    def streams_lost(self, code: int, detail: str) -> None:
        """End everything that is under way: the connection ends."""
        self._retire()
        self.early = []
        for stream in list(self._streams.values()):
            if stream.received_all and stream.waiting is not None and stream.key is None:
                continue  # the response is all here, and only waits for its client
            owner = self._forget(stream)
            if owner is None:
                continue
            if code == NO_ERROR:
                owner.upstream_lost(stream)
            else:
                owner.response_failed(f"sent an invalid response: {detail}" if self._heard else detail)

    # The connection's own

    def _greeting(self) -> bytes:
        return PREFACE + settings_frame({ENABLE_PUSH: 0})

    def every_stream(self) -> list[Stream[Any]]:
        """All streams that are open."""
        return list(self._streams.values())

    def stream(self, stream: int) -> UpstreamHttp2Stream | None:
        """An open stream."""
        return self._streams.get(stream)

    def is_idle(self, stream: int) -> bool:
        """Whether there has never been such a stream."""
        return stream >= self._next or not stream & 1

    def last_stream(self) -> int:
        """An endpoint begins no streams."""
        return 0

    def on_settings(self, values: list[tuple[int, int]]) -> None:
        """Follow the endpoint's settings, and let those go on that had to know them."""
        super().on_settings(values)
        self.websockets.settings_came(self.room)

    def setting(self, name: int, value: int) -> None:
        """Follow how many streams the endpoint takes, and whether WebSockets are among them."""
        if name == ENABLE_CONNECT_PROTOCOL:
            self.websockets.announced(value == 1)
        elif name == MAX_CONCURRENT_STREAMS:
            self._peer_streams = value

    def settings_followed(self) -> None:
        """Begin what they allow; there may be more streams now."""
        if self._pool.queue:
            self._pool.serve()

    def pinged(self, payload: bytes) -> None:
        """It is still there."""
        self._pinged = False

    # Time

    def expire(self, now: float) -> None:
        """It has been idle for long, or is it still there?"""
        self.deadline = FOREVER
        if self._closing:
            if self.expire_writing(now) and self.deadline == FOREVER:
                self.reset()
            return
        if self.write_paused and not self.expire_writing(now):
            return
        if not (self._streams or self.websockets.waiting):
            self.leave()
        elif self._heard:
            self._heard = self._pinged = False
            self.due(now + QUIET)
        elif self._pinged:
            self.reset()
        elif now - self._last_ping >= PING_EVERY:
            self._last_ping, self._pinged = now, True
            self.send(ping_frame(_ALIVE, ack=False))
            self.due(now + PING_TIME)
        else:
            self.due(self._last_ping + PING_EVERY)
