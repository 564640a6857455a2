"""HTTP/2 between transports that a test plays: frames are written and heard as words.

The peer's header blocks are literals, which need no table; those of the mesh are read by another library.
What the mesh says is heard as one text a frame:

    1: 200 x=y              a head           1: 200 x=y end          and no body
    1: "data"               DATA             1: "data" end           the last of it
    1: trailers x=y end     trailers         1: reset 8              RST_STREAM
    window 1 40000          of a stream      goaway 7 0, ping ...    of the connection

SETTINGS, their acknowledgement and the connection's windows are not told unless `plain` is asked for.
"""

from __future__ import annotations

from typing import Any, cast

import hpack

from nodeagent.proxy.http2 import frames
from nodeagent.proxy.http2.frames import PREFACE, FrameReader, FrameSink, frame
from tests.exchange.http1 import Http1Stage
from tests.exchange.transports import HandTransport

HELLO = PREFACE + frames.settings_frame({})
BACK = frames.settings_frame({}) + frames.SETTINGS_ACK
"""What an endpoint says first."""
FROM = "x-forwarded-for=10.1.2.3"


def literals(*fields: tuple[str, str]) -> bytes:
    """Write a header block without a table."""
    block = b""
    for name, value in fields:
        block += b"\x00" + _text(name) + _text(value)
    return block


def _text(text: str) -> bytes:
    data = text.encode("latin-1")
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, out = len(data) - 127, b"\x7f"
    while rest > 127:
        out += bytes((rest & 127 | 128,))
        rest >>= 7
    return out + bytes((rest,)) + data


def head(stream: int, *fields: tuple[str, str], end: bool = True) -> bytes:
    """Write HEADERS with these fields."""
    return frames.header_frames(stream, literals(*fields), end, frames.FRAME_SIZE)


def asks(
    stream: int, method: str = "GET", path: str = "/", *fields: tuple[str, str], end: bool = True
) -> bytes:
    """Write a request's head."""
    usual = ((":method", method), (":scheme", "http"), (":path", path), (":authority", "web"))
    return head(stream, *usual, *fields, end=end)


def answers(stream: int, status: int = 200, *fields: tuple[str, str], end: bool = True) -> bytes:
    """Write a response's head."""
    return head(stream, (":status", str(status)), *fields, end=end)


def data(stream: int, body: bytes, end: bool = True) -> bytes:
    """Write DATA."""
    out = b""
    while len(body) > frames.FRAME_SIZE:
        out += frame(frames.DATA, 0, stream, body[: frames.FRAME_SIZE])
        body = body[frames.FRAME_SIZE :]
    return out + frame(frames.DATA, frames.END_STREAM if end else 0, stream, body)


class Ear:
    """Reads what the mesh says on one connection."""

    def __init__(self, heard: Any, plain: bool) -> None:
        self._heard = heard
        self._plain = plain
        self._decoder = hpack.Decoder()
        self._reader = FrameReader(cast("FrameSink", self), 10**6)
        self.heads: set[int] = set()
        """Streams of which a head has come."""
        self.preface: bytes | None = b""
        """The bytes of it that have come; None: there is none, or it is complete."""

    def takes(self, what: bytes | str) -> None:
        if isinstance(what, str):
            self._heard(what)
            return
        if self.preface is not None:
            self.preface += what
            if len(self.preface) < len(PREFACE):
                return
            what, self.preface = self.preface.removeprefix(PREFACE), None
        self._reader.feed(what, 10**9)

    def _tell(self, stream: int, what: str, end: bool) -> None:
        self._heard(f"{stream}: {what}" + (" end" if end else ""))

    def on_data(self, stream: int, data: bytes, _size: int, end: bool) -> None:
        shown = data.decode("latin-1") if len(data) < 60 else f"{len(data)} bytes"
        self._tell(stream, f'"{shown}"', end)

    def on_headers(self, stream: int, block: bytes, end: bool) -> None:
        self.heads.add(stream)
        found = self._decoder.decode(block, raw=True)
        fields = [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in found]
        pseudo = [value for name, value in fields if name in (":status", ":method", ":path")]
        words = [*pseudo, *(f"{name}={value}" for name, value in fields if not name.startswith(":"))]
        self._tell(stream, " ".join(words if pseudo else ["trailers", *words]), end)

    def on_reset(self, stream: int, code: int) -> None:
        self._tell(stream, f"reset {code}", False)

    def on_window(self, stream: int, increment: int) -> None:
        if stream or self._plain:
            self._heard(f"window {stream} {increment}")

    def on_settings(self, values: list[tuple[int, int]]) -> None:
        if self._plain:
            self._heard(f"settings {values}")

    def on_settings_ack(self) -> None:
        if self._plain:
            self._heard("ack")

    def on_ping(self, payload: bytes, ack: bool) -> None:
        self._heard(f"ping {payload.decode('latin-1')}" + (" ack" if ack else ""))

    def on_goaway(self, last: int, code: int, debug: bytes) -> None:
        self._heard(f"goaway {last} {code}" + (f" {debug.decode()}" if debug else ""))


class Http2Stage(Http1Stage):
    """Clients and endpoints; those named in `http1` speak HTTP/1, all others HTTP/2."""

    def __init__(self, *, http1: str = "", plain: bool = False, high: int = 65_536, **options: Any) -> None:
        self.http1 = http1
        self.plain = plain
        self.ears: dict[str, Ear] = {}
        if "endpoint" not in http1:
            options["upstream"] = "http2"
        super().__init__(high=high, **options)

    def _wire(self, name: str, address: str) -> HandTransport:
        def heard(what: bytes | str) -> None:
            self.log.append((name, what))

        speaks = "client" if name.startswith("client") else "endpoint"
        ear = self.ears[name] = Ear(heard, self.plain)
        if speaks == "client":
            ear.preface = None
        wire = HandTransport(
            self.loop.asyncio,
            heard if speaks in self.http1 else ear.takes,
            address,
            high=self.high,
            low=self.high // 4,
        )
        self.wires[name] = wire
        return wire
