"""Peers of HTTP/2, played by the library h2, which checks what the mesh says: its states, windows, lengths.

GOAWAY goes past the library, for which it is the end of everything; whose streams go on is looked at here.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Final, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from nodeagent.proxy.http2.frames import PREFACE
from tests.exchange.ledger import Asked, Ledger, Try
from tests.exchange.peers import Client, Endpoint, Peer

HARMLESS: Final = (
    ErrorCodes.NO_ERROR,
    ErrorCodes.CANCEL,
    ErrorCodes.INTERNAL_ERROR,
    ErrorCodes.REFUSED_STREAM,
)
"""Codes with which the mesh may break off streams of peers that keep to the protocol."""
_GOAWAY: Final = 7
_SETTINGS_ACK: Final = b"\x04\x01"
LAST: Final = 2**31 - 1
NEVER: Final = 1 << 60
ENOUGH: Final = 1 << 20
ENOUGH_STREAMS: Final = 100


class Http2Peer(Peer):
    """One side of HTTP/2, without what it means."""

    def __init__(self, ledger: Ledger, *, client: bool) -> None:
        super().__init__(ledger)
        self.h2 = H2Connection(H2Configuration(client_side=client, header_encoding="utf-8"))
        self.told = LAST
        """The last stream that the mesh serves, as its GOAWAY has said."""
        self._bytes = bytearray()
        self.at = 0
        """How many bytes of the mesh were looked at."""
        self._unacknowledged = 0
        self._preface = len(PREFACE) if not client else 0

    def greets(self, settings: dict[SettingCodes | int, int]) -> None:
        """Begin, with these settings."""
        self.h2.initiate_connection()
        self.h2.update_settings(settings)
        self._unacknowledged = 2
        self.speak()

    def speak(self) -> None:
        """Send what the library has to say."""
        self.says(self.h2.data_to_send())
        self.flush()

    def read(self, data: bytes) -> None:
        """Have frames looked at by the library, one after the other."""
        buffer = self._bytes
        buffer += data
        if self._preface:
            if len(buffer) < self._preface:
                return
            self._feed(self._preface)
            self._preface = 0
        while len(buffer) >= 9:
            size = 9 + int.from_bytes(buffer[:3], "big")
            if len(buffer) < size:
                break
            if buffer[3] == _GOAWAY:
                self.told = int.from_bytes(buffer[9:13], "big") & LAST
                assert not any(buffer[13:17]), f"the mesh complains: {bytes(buffer[17:size])!r}"
                del buffer[:size]
                self.at += size
                self.goaway()
            elif buffer[3:5] == _SETTINGS_ACK and self._unacknowledged > 1:
                self._unacknowledged -= 1
                del buffer[:size]
                self.at += size
            else:
                if buffer[3:5] == _SETTINGS_ACK:
                    self._unacknowledged = 0
                self._feed(size)
        self.says(self.h2.data_to_send())

    def _feed(self, size: int) -> None:
        frame = bytes(self._bytes[:size])
        del self._bytes[:size]
        for event in self.h2.receive_data(frame):
            if isinstance(event, StreamReset) and event.remote_reset:
                assert event.error_code in HARMLESS, event
            self.event(event)
        self.at += size

    def settings(self, values: dict[SettingCodes | int, int]) -> None:
        """Change settings, unless a change is on its way: the library takes an ACK for that of all."""
        if not self._unacknowledged:
            self._unacknowledged = 1
            self.h2.update_settings(values)
            self.speak()

    def ping(self) -> None:
        """Ask whether the mesh is there."""
        self.h2.ping(b"whatever")
        self.speak()

    def opens(self, stream: int, size: int) -> None:
        """Open a window; 0: that of the connection."""
        if not stream:
            self.h2.increment_flow_control_window(size)
        elif self.receives(stream):
            self.h2.increment_flow_control_window(size, stream)
        self.speak()

    def receives(self, stream: int) -> bool:
        """Whether more may come on a stream, as far as this side knows."""
        one = self.h2.streams.get(stream)
        return one is not None and one.open and one.state_machine.stream_closed_by is None

    def piece(self, stream: int, data: bytes, most: int) -> bytes:
        """Return what may be sent of `data` now."""
        window = max(self.h2.local_flow_control_window(stream), 0)
        return data[: min(most, window, self.h2.max_outbound_frame_size)]

    def calms(self) -> None:
        """Open all windows."""
        super().calms()
        if not self.active:
            return
        if self.h2.inbound_flow_control_window < ENOUGH:
            self.opens(0, ENOUGH)
        for stream, one in list(self.h2.streams.items()):
            if one._inbound_window_manager.current_window_size < ENOUGH and self.receives(stream):
                self.opens(stream, ENOUGH)

    @property
    def busy(self) -> bool:
        """Whether there is a stream that has not ended."""
        return any(one.open for one in self.h2.streams.values())

    def goaway(self) -> None:
        """The mesh begins to leave."""

    @abstractmethod
    def event(self, event: Event) -> None:
        """Something has come."""


class _Sending:
    """A request that a client sends."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.left = asked.whole if asked.method != "GET" else b""
        self.sent = False
        self.trailer: str | None = None


class Http2Client(Http2Peer, Client):
    """A client with many requests at once."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger, client=True)
        self.requests: dict[int, _Sending] = {}
        """By stream, those that are not over."""
        self.said_goaway = False

    @property
    def may_ask(self) -> bool:
        most = self.h2.remote_settings.max_concurrent_streams
        open_ = self.h2.open_outbound_streams
        return (
            self.active
            and not self.mesh_ended
            and self.told == LAST
            and not self.said_goaway
            and open_ < most
        )

    @property
    def sending(self) -> bool:
        return self.active and any(not one.sent for one in self.requests.values())

    def ask(self, method: str, size: int, *, known_length: bool, trailer: bool, most: int) -> Asked:
        asked = self.ledger.ask(method, size, trailer and method != "GET")
        stream = self.h2.get_next_available_stream_id()
        fields = [
            (":method", method),
            (":scheme", "http"),
            (":path", f"/{asked.number}"),
            (":authority", "web"),
            ("te", "trailers"),
        ]
        if known_length and method != "GET":
            fields.append(("content-length", str(size)))
        one = self.requests[stream] = _Sending(asked)
        one.sent = method == "GET" or (not size and not asked.trailer and known_length)
        self.waiting.append(asked)
        self.h2.send_headers(stream, fields, end_stream=one.sent)
        if not one.sent and most:
            self._send(stream, one, most)
        self.speak()
        return asked

    def go_on(self, most: int) -> bool:
        if not self.active:
            return False
        moved = [self._send(stream, one, most) for stream, one in self.requests.items() if not one.sent]
        self.speak()
        return any(moved)

    def _send(self, stream: int, one: _Sending, most: int) -> bool:
        piece = self.piece(stream, one.left, most)
        if not piece and one.left:
            return False
        one.left = one.left[len(piece) :]
        one.sent = not one.left
        if one.asked.trailer and one.sent:
            if piece:
                self.h2.send_data(stream, piece)
            self.h2.send_headers(stream, [("x-sum", str(one.asked.number))], end_stream=True)
        else:
            self.h2.send_data(stream, piece, end_stream=one.sent)
        return True

    def resets(self, stream: int, code: ErrorCodes) -> None:
        """Break a stream off."""
        self.h2.reset_stream(stream, code)
        self.settle(self.requests.pop(stream).asked, "given up")
        self.speak()

    def says_goaway(self) -> None:
        """Say that no request will follow."""
        self.said_goaway = True
        self.says(self.h2.data_to_send() + GoAwayFrame(0, last_stream_id=0).serialize())
        self.flush()

    def goaway(self) -> None:
        for stream, one in list(self.requests.items()):
            if stream > self.told:
                del self.requests[stream]
                assert not one.asked.tries, "the mesh says that it has not served what it has"
                self.settle(one.asked, "not served")

    def left(self) -> None:
        for one in self.requests.values():
            one.sent = True
        if self.gone != "ends":
            self.requests.clear()
        super().left()

    def lost(self) -> None:
        if self.mesh_ended == "end" and not self.gone:
            for one in self.requests.values():
                assert one.asked.outcome, f"request {one.asked.number} was let fall without a word"
        self.requests.clear()
        super().lost()

    def event(self, event: Event) -> None:
        one = self.requests.get(getattr(event, "stream_id", None) or 0)
        if one is None:
            return
        asked = one.asked
        if isinstance(event, ResponseReceived):
            fields = _fields(event)
            self.ledger.answered(asked, int(fields[":status"]), fields)
        elif isinstance(event, DataReceived):
            assert asked.body is not None
            asked.body.came(event.data)
        elif isinstance(event, TrailersReceived):
            one.trailer = _fields(event).get("x-sum")
        elif isinstance(event, StreamEnded):
            self.ledger.finished(asked, one.trailer)
            self.waiting.remove(asked)
            if one.sent:
                del self.requests[event.stream_id or 0]
        elif isinstance(event, StreamReset):
            del self.requests[event.stream_id or 0]
            self.settle(asked, "reset")
        else:
            assert isinstance(event, InformationalResponseReceived) or not asked.outcome


class Http2Endpoint(Http2Peer, Endpoint):
    """An endpoint with many requests at once."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger, client=False)
        self.streams: dict[int, Try] = {}
        self.last = LAST
        """What this side's GOAWAY has said."""
        self.leaving = False
        self.none_behind = NEVER
        """The mesh had read a GOAWAY when it had sent this many bytes."""

    def left(self) -> None:
        for one in self.tries:
            one.judged = False  # what was on its way may be lost with the connection
        super().left()

    def answerable(self) -> list[Try]:
        return [one for one in self._open() if one.answer is None]

    def unfinished(self) -> list[Try]:
        return [one for one in self._open() if one.answer is not None and not one.ended]

    def _open(self) -> list[Try]:
        return [one for one in self.streams.values() if not (one.over or one.ended)] if self.active else []

    def respond(self, one: Try, status: int, size: int, framing: str, most: int) -> None:
        answer = self.ledger.answer(one, status, size)
        answer.trailer = framing == "trailer"
        fields = [(":status", str(status)), ("x-answer", str(answer.number))]
        if framing == "length":
            fields.append(("content-length", str(size)))
        one.ended = not size and not answer.trailer
        self.h2.send_headers(one.stream, fields, end_stream=one.ended)
        if most and not one.ended:
            self._send(one, most)
        self.speak()

    def go_on(self, one: Try, most: int) -> bool:
        moved = self.active and self._send(one, most)
        self.speak()
        return moved

    def _send(self, one: Try, most: int) -> bool:
        stream = one.stream
        piece = self.piece(stream, one.left, most)
        if not piece and one.left:
            return False
        one.left = one.left[len(piece) :]
        one.ended = not one.left
        assert one.answer is not None
        if one.answer.trailer and one.ended:
            if piece:
                self.h2.send_data(stream, piece)
            self.h2.send_headers(stream, [("x-sum", str(one.answer.number))], end_stream=True)
        else:
            self.h2.send_data(stream, piece, end_stream=one.ended)
        return True

    def inform(self, one: Try, count: int) -> None:
        for _ in range(count):
            self.h2.send_headers(one.stream, [(":status", "103"), ("link", "x")])
        self.speak()

    def resets(self, one: Try, code: ErrorCodes) -> None:
        """Break a stream off; one that is not answered may be refused."""
        one.refused = code == ErrorCodes.REFUSED_STREAM
        one.judged = not (one.refused or one.over or self.dribble)
        one.over = True
        self.h2.reset_stream(one.stream, code)
        self.speak()

    def says_goaway(self, spared: int | None) -> None:
        """Begin to leave. So many of the last requests that are not answered are not touched; None: any."""
        self.leaving = True
        if spared is not None:
            last = max(self.streams, default=0)
            for stream, one in sorted(self.streams.items(), reverse=True)[:spared]:
                if one.answer is not None or one.over:
                    break
                last = stream - 2
            self.last = min(max(last, 0), self.last)
        for stream, one in self.streams.items():
            if stream > self.last:
                one.refused = one.over = True
        self.says(self.h2.data_to_send() + GoAwayFrame(0, last_stream_id=self.last).serialize())
        self.flush()

    def takes_streams(self) -> None:
        """Take as many as the mesh may want."""
        if self.active and self.h2.local_settings.max_concurrent_streams < ENOUGH_STREAMS:
            self.settings({SettingCodes.MAX_CONCURRENT_STREAMS: ENOUGH_STREAMS})

    def look(self) -> None:
        """Note when the mesh has read all that this side has said, a GOAWAY perhaps."""
        if self.leaving and self.none_behind == NEVER and not (self.unsent or self.wire.waiting):
            self.none_behind = len(self.wire.received) + self.wire.get_write_buffer_size()

    def event(self, event: Event) -> None:
        stream = getattr(event, "stream_id", None) or 0
        if isinstance(event, RequestReceived):
            assert self.at < self.none_behind, "a request behind a GOAWAY"
            fields = _fields(event)
            number = int(fields[":path"].removeprefix("/"))
            one = self.ledger.reached(
                fields[":method"], number, self.hears_all, refused=stream > self.last, late=bool(self.gone)
            )
            self.streams[stream] = one
            one.stream = stream
            self.tries.append(one)
            return
        found = self.streams.get(stream)
        if found is None:
            return
        if isinstance(event, DataReceived):
            found.data(event.data)
        elif isinstance(event, TrailersReceived):
            trailer = _fields(event).get("x-sum")
            assert trailer == str(found.asked.number)
        elif isinstance(event, StreamEnded):
            found.end(None)
        elif isinstance(event, StreamReset):
            found.over = True


def _fields(event: Any) -> dict[str, str]:
    return dict(cast("list[tuple[str, str]]", event.headers))
