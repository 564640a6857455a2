"""A client of HTTP/2 that sends whatever it is told to: frames by hyperframe, header blocks of literals."""

from __future__ import annotations

import itertools
import socket
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import hpack
import msgspec
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.http2.blocks import plain

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE = 20.0
Fields = Iterable[tuple[bytes, bytes]]


class Answer(msgspec.Struct):
    """What has become of a stream. `ending` is empty, `end`, `reset CODE`, `goaway CODE` or `closed`."""

    status: int = 0
    body: bytes = b""
    ending: str = ""

    @property
    def refused(self) -> bool:
        """Whether the client was told that its request was not carried out as it is."""
        return self.ending != "end" or 400 <= self.status < 600


def headers(stream: int, fields: Fields, end: bool, cuts: Sequence[int] = ()) -> bytes:
    """Write a head; `cuts` are the places in its block where a CONTINUATION frame begins."""
    block = plain(fields)
    edges = [0, *cuts, len(block)]
    parts = [block[start:stop] for start, stop in itertools.pairwise(edges)]
    frames: list[Any] = [HeadersFrame(stream, parts[0])]
    frames += [ContinuationFrame(stream, part) for part in parts[1:]]
    if end:
        frames[0].flags.add("END_STREAM")
    frames[-1].flags.add("END_HEADERS")
    return b"".join(one.serialize() for one in frames)


def data(stream: int, body: bytes, end: bool = False, padding: bytes | None = None) -> bytes:
    """Write DATA; padding may say something, which hyperframe would not write."""
    flags, payload = int(end), body
    if padding is not None:
        flags, payload = flags | 8, bytes((len(padding),)) + body + padding
    return len(payload).to_bytes(3, "big") + bytes((0, flags)) + stream.to_bytes(4, "big") + payload


class RawClient:
    """A connection that has begun."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, PATIENCE)
        self._reader = self._socket.makefile("rb")
        self._decoder = hpack.Decoder()
        self._answers: defaultdict[int, Answer] = defaultdict(Answer)
        self._ending = ""
        self.send(PREFACE + SettingsFrame(0).serialize())

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._socket.close()

    @property
    def lives(self) -> bool:
        """Whether the far side has not ended the connection, as far as was read."""
        return not self._ending

    def send(self, what: bytes) -> bool:
        """Send bytes; return whether the far side still took them."""
        try:
            self._socket.sendall(what)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def answer(self, stream: int) -> Answer:
        """Read on until this stream, or the connection, has ended."""
        while not self._answers[stream].ending and not self._ending:
            self._read_frame()
        answer = self._answers[stream]
        answer.ending = answer.ending or self._ending
        return answer

    def _read_frame(self) -> None:
        try:
            head = self._reader.read(9)
            if len(head) < 9:
                self._ending = "closed"
                return
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(self._reader.read(length)))
        except ConnectionResetError:
            self._ending = "closed"
            return
        answer = self._answers[frame.stream_id]
        match frame:
            case HeadersFrame():
                for name, value in self._decoder.decode(frame.data):
                    if str(name) == ":status":
                        answer.status = int(value)
            case DataFrame():
                answer.body += frame.data
            case RstStreamFrame():
                answer.ending = answer.ending or f"reset {frame.error_code}"
            case GoAwayFrame():
                self._ending = f"goaway {frame.error_code}"
        if isinstance(frame, HeadersFrame | DataFrame) and "END_STREAM" in frame.flags:
            answer.ending = "end"
