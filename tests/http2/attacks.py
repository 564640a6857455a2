"""Known attacks on HTTP/2, by the numbers they were given: what a client says, or an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from nodeagent.proxy.http2 import frames
from nodeagent.proxy.http2.frames import frame
from tests.http2.wire import answers, asks, data, head

COUNT = 3_000
"""Frames, or pairs of them, of a flood: more than anybody has patience for."""
Write = Callable[[], Iterator[bytes]]


class Attack(msgspec.Struct, frozen=True):
    """What a client sends after its greeting, piece by piece, and what the mesh does."""

    name: str
    write: Write
    ends: bool = True
    """The connection is ended with ENHANCE_YOUR_CALM; otherwise it only gets nothing out of it."""


def integer(number: int, bits: int, first: int = 0) -> bytes:
    """Write a number as header blocks have it (RFC 7541 section 5.1)."""
    most = (1 << bits) - 1
    if number < most:
        return bytes((first | number,))
    out, rest = bytes((first | most,)), number - most
    while rest > 127:
        out += bytes((rest & 127 | 128,))
        rest >>= 7
    return out + bytes((rest,))


def string(value: bytes) -> bytes:
    """Write a string without Huffman coding."""
    return integer(len(value), 7) + value


def streams(count: int = COUNT) -> range:
    """Return numbers of streams of a client."""
    return range(1, 2 * count, 2)


def bomb(number: int, copies: int = 15) -> bytes:
    """Write a head with many copies of one field of the table, which the first of them (0) puts there."""
    block = b"\x82\x86\x04" + string(b"/%d" % number) + b"\x01" + string(b"web")
    if not number:
        block += b"\x40" + string(b"x-bomb") + string(b"y" * 3990)
    return frames.header_frames(1 + 2 * number, block + b"\xbe" * copies, True, frames.FRAME_SIZE)


def hpack_bomb() -> Iterator[bytes]:
    """As many heads of 60 KiB, of 30 bytes each, as there may be streams."""
    yield from map(bomb, range(100))


def hpack_bomb_in_one_head() -> Iterator[bytes]:
    """Heads of megabytes, which are too large and are answered so."""
    for number in range(COUNT):
        yield bomb(number, copies=10_000)


def endless_continuation() -> Iterator[bytes]:
    """A header block that does not end."""
    yield frame(frames.HEADERS, 0, 1, b"\x82")
    for _ in range(COUNT):
        yield frame(frames.CONTINUATION, 0, 1, b"\x00\x01x\x01y" * 100)


def empty_continuation() -> Iterator[bytes]:
    """A header block that neither grows nor ends."""
    yield frame(frames.HEADERS, 0, 1, b"\x82")
    for _ in range(COUNT):
        yield frame(frames.CONTINUATION, 0, 1, b"")


def rapid_reset() -> Iterator[bytes]:
    for stream in streams():
        yield asks(stream) + frames.reset_frame(stream, frames.CANCEL)


def made_you_reset(bad: bytes) -> Write:
    """Have the mesh reset streams: by a frame that is wrong on each."""

    def write() -> Iterator[bytes]:
        for stream in streams():
            numbered = bad[:5] + stream.to_bytes(4, "big") + bad[9:]
            yield asks(stream, "POST", end=False) + numbered

    return write


def refused_heads() -> Iterator[bytes]:
    """Requests that are malformed, each of which is answered with a reset."""
    for stream in streams():
        yield asks(stream, "GET", "/", ("X-Upper", "1"))


def leaking_headers() -> Iterator[bytes]:
    """Heads of fields without a name and a value."""
    for stream in streams():
        yield head(stream, (":method", "GET"), *[("", "")] * 20)


def again(what: bytes) -> Write:
    """Say the same again and again, while a request is under way."""

    def write() -> Iterator[bytes]:
        yield asks(1, "POST", end=False)
        for _ in range(COUNT):
            yield what

    return write


def priorities() -> Iterator[bytes]:
    """Shuffle a tree of streams that do not exist."""
    yield asks(1, "POST", end=False)
    for number in range(COUNT):
        depends_on = 3 + 2 * (number * 7919 % 5000)
        yield frame(frames.PRIORITY, 0, 3 + 2 * (number % 5000), depends_on.to_bytes(4, "big") + b"\x10")


def tilted_windows() -> Iterator[bytes]:
    """Have every stream's window changed, forth and back, as often as settings have room for."""
    yield b"".join(asks(stream) for stream in streams(100))
    tilt = [(4, 0), (4, 70_000)] * 16
    payload = b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in tilt)
    for _ in range(COUNT):
        yield frame(frames.SETTINGS, 0, 0, payload)


def idle_streams() -> Iterator[bytes]:
    """Requests whose bodies never come, more and more."""
    for stream in streams():
        yield asks(stream, "POST", end=False)


def skipped_streams() -> Iterator[bytes]:
    """Streams far apart: all between them are closed by that (RFC 9113 section 5.1.1)."""
    for number in range(100):
        yield asks(1 + number * 10_000_000, "POST", end=False)


def crumbs() -> Iterator[bytes]:
    """A body of bytes, each in a frame with as much padding as there may be."""
    yield asks(1, "POST", end=False)
    for _ in range(200):
        yield frame(frames.DATA, frames.PADDED, 1, b"\xffx" + bytes(255))


def large_bodies() -> Iterator[bytes]:
    """As much of a hundred bodies as windows allow, to an endpoint that takes none of it."""
    for stream in streams(100):
        yield asks(stream, "POST", end=False) + data(stream, bytes(65_535), end=False)


RESETS = {
    "a window of 0": frames.window_frame(1, 0),
    "a window beyond all": frames.window_frame(1, 2**31 - 1),
    "a short PRIORITY": frame(frames.PRIORITY, 0, 1, b"1234"),
    "a dependence on itself": frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\0"),
    "DATA behind the end": data(1, b"") + data(1, b"x"),
}
ATTACKS = [
    Attack("CVE-2016-6581: HPACK bomb", hpack_bomb, ends=False),
    Attack("CVE-2016-6581: HPACK bomb in one head", hpack_bomb_in_one_head),
    Attack("CVE-2019-9511: data dribble, windows of a byte", again(frames.window_frame(0, 1))),
    Attack("CVE-2019-9512: ping flood", again(frames.ping_frame(b"12345678", ack=False))),
    Attack("CVE-2019-9513: resource loop, priorities", priorities),
    Attack("CVE-2019-9514: reset flood", refused_heads),
    Attack("CVE-2019-9515: settings flood", again(frames.settings_frame({}))),
    Attack("CVE-2019-9515: settings flood, acknowledged", again(frames.SETTINGS_ACK)),
    Attack("CVE-2019-9516: 0-length headers leak", leaking_headers),
    Attack("CVE-2019-9518: empty frames flood, DATA", again(frame(frames.DATA, 0, 1, b""))),
    Attack("CVE-2019-9518: empty frames flood, padding", again(frame(frames.DATA, 8, 1, b"\x04\0\0\0\0"))),
    Attack("CVE-2019-9518: empty frames flood, CONTINUATION", empty_continuation),
    Attack("CVE-2023-44487: rapid reset", rapid_reset),
    Attack("CVE-2024-27316: CONTINUATION flood", endless_continuation),
    *(Attack(f"CVE-2025-8671: MadeYouReset, {how}", made_you_reset(bad)) for how, bad in RESETS.items()),
    Attack("unknown frames", again(frame(0xBB, 0, 0, b"?"))),
    Attack("window games: settings that tilt every window", tilted_windows),
    Attack("thousands of idle streams", idle_streams),
    Attack("idle streams far apart", skipped_streams, ends=False),
    Attack("a body of padded crumbs", crumbs, ends=False),
    Attack("bodies that nobody takes", large_bodies, ends=False),
]


def informational() -> Iterator[bytes]:
    """Interim responses without end, and no response."""
    for _ in range(COUNT):
        yield answers(1, 103, end=False)


def response_bomb() -> Iterator[bytes]:
    """A response whose head is one field of the table, again and again."""
    field = b"\x40" + string(b"x-bomb") + string(b"y" * 3990)
    yield frames.header_frames(1, b"\x88" + field + b"\xbe" * 10_000, True, frames.FRAME_SIZE)


def of_a_response(what: bytes) -> Write:
    """Begin a response, and say the same again and again."""

    def write() -> Iterator[bytes]:
        yield answers(1, end=False)
        for _ in range(COUNT):
            yield what

    return write


ENDPOINT_ATTACKS = [
    Attack("CVE-2016-6581: HPACK bomb", response_bomb),
    Attack("CVE-2019-9511: windows of a byte", of_a_response(frames.window_frame(0, 1))),
    Attack("CVE-2019-9512: ping flood", of_a_response(frames.ping_frame(b"12345678", ack=False))),
    Attack("CVE-2019-9513: priorities", of_a_response(frame(frames.PRIORITY, 0, 3, b"\0\0\0\1\1"))),
    Attack("CVE-2019-9515: settings flood", of_a_response(frames.settings_frame({}))),
    Attack("CVE-2019-9518: empty frames flood, DATA", of_a_response(frame(frames.DATA, 0, 1, b""))),
    Attack("CVE-2019-9518: empty frames flood, CONTINUATION", empty_continuation),
    Attack("CVE-2024-27316: CONTINUATION flood", endless_continuation),
    Attack("unknown frames", of_a_response(frame(0xBB, 0, 0, b"?"))),
    Attack("interim responses without end", informational, ends=False),
]
