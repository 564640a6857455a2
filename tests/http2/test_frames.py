"""Frames: the reader against another library's, its bounds, and every way in which bytes may be cut."""

from __future__ import annotations

import itertools
import random
from typing import Any

import hyperframe.frame as hyper
import pytest
from hyperframe.exceptions import HyperframeError

from nodeagent.proxy.http2 import frames
from nodeagent.proxy.http2.frames import ConnectionFault, FrameReader, frame

LARGEST_BLOCK = 65536
ALL = 10**9
KINDS = (*range(10), 0xBB)


class Noted:
    """Notes every call as a tuple."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append((name.removeprefix("on_"), *args))


def read(data: bytes, *cuts: int, budget: int = ALL) -> tuple[list[tuple[Any, ...]], int]:
    """Return what is told of these bytes, fed in pieces, and the error's code; 0: none."""
    sink = Noted()
    reader = FrameReader(sink, LARGEST_BLOCK)
    edges = [0, *sorted(cuts), len(data)]
    try:
        for start, end in itertools.pairwise(edges):
            more = reader.feed(data[start:end], budget)
            while more:
                more = reader.feed(b"", budget)
    except ConnectionFault as fault:
        return sink.calls, fault.code
    return sink.calls, 0


def by_hyperframe(data: bytes) -> list[Any] | None:
    """Return the frames as the other library reads them; None: it refuses one."""
    found = []
    while len(data) >= 9:
        try:
            one, length = hyper.Frame.parse_frame_header(memoryview(data[:9]))
            one.parse_body(memoryview(data[9 : 9 + length]))
        except (HyperframeError, ValueError):
            return None
        found.append(one)
        data = data[9 + length :]
    return found


def told(one: Any) -> tuple[Any, ...]:
    """Say of the other library's frame what our sink is told."""
    flags, stream = one.flags, one.stream_id
    match one:
        case hyper.DataFrame():
            return ("data", stream, one.data, one.flow_controlled_length, "END_STREAM" in flags)
        case hyper.HeadersFrame():
            return ("headers", stream, one.data, "END_STREAM" in flags)
        case hyper.PriorityFrame():
            return ("priority", stream)
        case hyper.RstStreamFrame():
            return ("reset", stream, one.error_code)
        case hyper.SettingsFrame():
            return ("settings_ack",) if "ACK" in flags else ("settings", one.settings)
        case hyper.PingFrame():
            return ("ping", one.opaque_data, "ACK" in flags)
        case hyper.GoAwayFrame():
            return ("goaway", one.last_stream_id & 0x7FFFFFFF, one.error_code, one.additional_data)
        case hyper.WindowUpdateFrame():
            return ("window", stream, one.window_increment)
        case hyper.ExtensionFrame():
            return ("unknown",)
    return ("other",)


def some_frame(chance: random.Random) -> bytes:
    """Return a frame that may be right, or wrong in size, stream or padding."""
    kind = chance.choice(KINDS)
    flags = chance.choice((0, 0, 1, 4, 5, 8, 0x20, 0x24, 0x2C, chance.randrange(256)))
    stream = chance.choice((0, 0, 1, 2, 3, 2**31 - 1, 2**31 + 5))
    usual = {2: 5, 3: 4, 4: 6, 6: 8, 7: 8, 8: 4}.get(kind, chance.randrange(40))
    size = usual if chance.random() < 0.8 else chance.randrange(24)
    payload = chance.choice((bytes(size), chance.randbytes(size), b"\x00\x03\x00\x00\x00\x05" * (size // 6)))
    return frames.HEAD.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def check_against_hyperframe(seed: int) -> None:
    """Frames that both read mean the same to both; what only one refuses is known."""
    chance = random.Random(seed)
    data = some_frame(chance)
    calls, code = read(data)
    theirs = by_hyperframe(data)
    if theirs is None:
        # A reserved bit is to be ignored, which they do not; all else that they refuse, so must we.
        reserved = data[3] == frames.WINDOW_UPDATE and data[9:10] >= b"\x80"
        assert reserved or code or calls[0][0] == "stream_fault", data
        return
    if code or not calls or calls[0][0] == "stream_fault" or calls[-1][0] == "stream_fault":
        return  # stricter: values of settings, dependence on itself, push, interrupted blocks
    mine, other = calls[0], told(theirs[0])
    if mine[0] == "settings":
        mine, other = ("settings", dict(mine[1])), ("settings", dict(other[1]))
    assert mine == other, data


@pytest.mark.parametrize("part", range(4))
def test_frames_mean_what_hyperframe_says(part: int) -> None:
    for seed in range(part, 20_000, 4):
        check_against_hyperframe(seed)


def a_conversation(seed: int) -> bytes:
    chance = random.Random(seed)
    parts = [some_frame(chance) for _ in range(chance.randrange(1, 6))]
    for _ in range(chance.randrange(3)):
        flags, size = chance.choice((0, frames.END_STREAM, frames.PADDED)), chance.randrange(16_385)
        parts.insert(
            chance.randrange(len(parts) + 1), frame(frames.DATA, flags, chance.randrange(4), bytes(size))
        )
    return b"".join(parts)


def joined(calls: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the calls with neighbouring pieces of one body made one: a frame may be told in pieces."""
    out: list[tuple[Any, ...]] = []
    for call in calls:
        if out and call[0] == "data" == out[-1][0] and out[-1][1] == call[1] and not out[-1][4]:
            _, stream, data, size, _ = out[-1]
            out[-1] = ("data", stream, data + call[2], size + call[3], call[4])
        else:
            out.append(call)
    return out


@pytest.mark.parametrize("budget", [1, 2, ALL])
def test_how_bytes_are_cut_makes_no_difference(budget: int) -> None:
    for seed in range(1500):
        data = a_conversation(seed)
        calls, code = read(data)
        whole = joined(calls)
        chance = random.Random(seed)
        cuts = range(1, len(data)) if len(data) < 1000 else chance.sample(range(len(data)), 20)
        for places in (cuts, [chance.randrange(len(data))]):
            calls, same = read(data, *places, budget=budget)
            assert (joined(calls), same) == (whole, code)


def test_frames_that_we_write_are_read() -> None:
    written = (
        frames.header_frames(1, b"h" * 40_000, True, frames.FRAME_SIZE)
        + frames.header_frames(3, b"h", False, frames.FRAME_SIZE)
        + frames.settings_frame({3: 100, 4: 65_535})
        + frames.SETTINGS_ACK
        + frames.ping_frame(b"12345678", True)
        + frames.reset_frame(1, 8)
        + frames.goaway_frame(5, 11, b"calm")
        + frames.window_frame(0, 7)
    )
    assert read(written) == (
        [
            ("headers", 1, b"h" * 40_000, True),
            ("headers", 3, b"h", False),
            ("settings", [(3, 100), (4, 65_535)]),
            ("settings_ack",),
            ("ping", b"12345678", True),
            ("reset", 1, 8),
            ("goaway", 5, 11, b"calm"),
            ("window", 0, 7),
        ],
        0,
    )
    assert by_hyperframe(written) is not None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frames.HEAD.pack(64, 1, 0, 0, 1), frames.FRAME_SIZE_ERROR),  # 16,385 bytes: told by its head alone
        (frame(frames.DATA, 0, 0, b"x"), frames.PROTOCOL_ERROR),
        (frame(frames.DATA, frames.PADDED, 1, b""), frames.FRAME_SIZE_ERROR),
        (frame(frames.DATA, frames.PADDED, 1, b"\x02x"), frames.PROTOCOL_ERROR),
        (frame(frames.HEADERS, 4, 0, b"x"), frames.PROTOCOL_ERROR),
        (frame(frames.HEADERS, 0x24, 1, b"1234"), frames.FRAME_SIZE_ERROR),
        (frame(frames.HEADERS, 0, 1, b"x") + frame(frames.DATA, 0, 1), frames.PROTOCOL_ERROR),
        (frame(frames.HEADERS, 0, 1, b"x") + frame(frames.CONTINUATION, 4, 3), frames.PROTOCOL_ERROR),
        (frame(frames.HEADERS, 0, 1, b"x") + frame(0xBB, 0, 1), frames.PROTOCOL_ERROR),
        (frame(frames.CONTINUATION, 4, 1, b"x"), frames.PROTOCOL_ERROR),
        (frame(frames.PRIORITY, 0, 0, b"12345"), frames.PROTOCOL_ERROR),
        (frame(frames.RST_STREAM, 0, 0, b"1234"), frames.PROTOCOL_ERROR),
        (frame(frames.RST_STREAM, 0, 1, b"123"), frames.FRAME_SIZE_ERROR),
        (frame(frames.SETTINGS, 0, 1), frames.PROTOCOL_ERROR),
        (frame(frames.SETTINGS, 1, 0, b"123456"), frames.FRAME_SIZE_ERROR),
        (frame(frames.SETTINGS, 0, 0, b"12345"), frames.FRAME_SIZE_ERROR),
        (frames.settings_frame({2: 2}), frames.PROTOCOL_ERROR),
        (frames.settings_frame({4: 2**31}), frames.FLOW_CONTROL_ERROR),
        (frames.settings_frame({5: 16_383}), frames.PROTOCOL_ERROR),
        (frames.settings_frame({5: 2**24}), frames.PROTOCOL_ERROR),
        (frame(frames.PUSH_PROMISE, 4, 1, b"12345"), frames.PROTOCOL_ERROR),
        (frame(frames.PING, 0, 1, b"12345678"), frames.PROTOCOL_ERROR),
        (frame(frames.PING, 0, 0, b"1234567"), frames.FRAME_SIZE_ERROR),
        (frame(frames.GOAWAY, 0, 1, b"12345678"), frames.PROTOCOL_ERROR),
        (frame(frames.GOAWAY, 0, 0, b"1234567"), frames.FRAME_SIZE_ERROR),
        (frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), frames.PROTOCOL_ERROR),
        (frame(frames.WINDOW_UPDATE, 0, 1, b"123"), frames.FRAME_SIZE_ERROR),
    ],
)
def test_what_ends_the_connection(data: bytes, code: int) -> None:
    assert read(data)[1] == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(frames.PRIORITY, 0, 1, b"1234"), frames.FRAME_SIZE_ERROR),
        (frame(frames.PRIORITY, 0, 1, b"\0\0\0\x01\0"), frames.PROTOCOL_ERROR),
        (frame(frames.HEADERS, 0x24, 1, b"\0\0\0\x01\0x"), frames.PROTOCOL_ERROR),
        (frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\0"), frames.PROTOCOL_ERROR),
    ],
)
def test_what_ends_only_the_stream(data: bytes, code: int) -> None:
    calls, failed = read(data)
    assert not failed
    assert calls[-1][:3] == ("stream_fault", 1, code)


class TestBounds:
    def test_a_flood_of_continuations(self) -> None:
        """CVE-2024-27316: neither many small ones nor few large ones are kept."""
        for piece in (b"", b"x", b"x" * 16_000):
            sink = Noted()
            reader = FrameReader(sink, LARGEST_BLOCK)
            reader.feed(frame(frames.HEADERS, 0, 1, b"x"), ALL)
            flood = frame(frames.CONTINUATION, 0, 1, piece) * (frames.MOST_CONTINUATIONS + 1)
            with pytest.raises(ConnectionFault) as raised:
                reader.feed(flood, ALL)
            assert raised.value.code == frames.ENHANCE_YOUR_CALM
            assert reader.held <= LARGEST_BLOCK + 16_000
            assert not sink.calls

    def test_many_settings(self) -> None:
        data = frame(frames.SETTINGS, 0, 0, b"\x00\x03\x00\x00\x00\x05" * (frames.MOST_SETTINGS + 1))
        assert read(data)[1] == frames.ENHANCE_YOUR_CALM

    def test_one_unfinished_frame_is_kept(self) -> None:
        reader = FrameReader(Noted(), LARGEST_BLOCK)
        reader.feed(frame(frames.HEADERS, 0, 1, b"x" * 16_384)[:-1], ALL)
        assert reader.held == 16_384 + 8

    def test_a_body_is_passed_on_before_its_frame_is_whole(self) -> None:
        sink = Noted()
        reader = FrameReader(sink, LARGEST_BLOCK)
        data = frame(frames.DATA, frames.END_STREAM, 1, b"x" * 10_000)
        reader.feed(data[:5009], ALL)
        assert sink.calls == [("data", 1, b"x" * 5000, 5000, False)]
        assert reader.held == 0
        reader.feed(data[5009:5500], ALL)  # a crumb waits
        assert len(sink.calls) == 1
        assert reader.held == 491
        reader.feed(data[5500:], ALL)
        assert sink.calls[1:] == [("data", 1, b"x" * 5000, 5000, True)]

    def test_crumbs_of_a_body_are_no_work(self) -> None:
        """A frame that comes byte by byte is passed on in no more pieces than one of that size may have."""
        sink = Noted()
        reader = FrameReader(sink, LARGEST_BLOCK)
        data = frame(frames.DATA, 0, 1, b"x" * 16_384)
        for at in range(len(data)):
            reader.feed(data[at : at + 1], ALL)
        assert len(sink.calls) == 16_384 // frames.PIECE

    def test_what_is_left_for_a_later_turn(self) -> None:
        sink = Noted()
        reader = FrameReader(sink, LARGEST_BLOCK)
        assert reader.feed(frames.SETTINGS_ACK * 5 + b"\0", 3)
        assert len(sink.calls) == 3
        assert not reader.feed(b"", 3)
        assert len(sink.calls) == 5
        assert reader.held == 1

    def test_nothing_is_read_after_the_sink_has_stopped_it(self) -> None:
        sink = Noted()
        reader = FrameReader(sink, LARGEST_BLOCK)
        reader.stopped = True
        assert not reader.feed(frames.SETTINGS_ACK * 5, ALL)
        assert len(sink.calls) == 1
        assert reader.held == 0
