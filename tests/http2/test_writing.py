"""What leaves a connection, and in which order: windows, turns, trailers, and which stream is told to
wait."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nodeagent.proxy.http2 import frames, writing
from nodeagent.proxy.http2.frames import FrameReader
from nodeagent.proxy.http2.writing import Writer
from tests.http2.outflow import Out


class Lines:
    def trailers(self, lines: bytes) -> bytes:
        return b"T" + lines


class Peer:
    """Reads what is written."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self._reader = FrameReader(self, 65536)  # type: ignore[arg-type]

    def on_data(self, stream: int, data: bytes, _size: int, end: bool) -> None:
        self.seen.append((stream, data, end))

    def on_headers(self, stream: int, block: bytes, end: bool) -> None:
        self.seen.append((stream, block, end))

    def read(self, writer: Writer) -> list[tuple[Any, ...]]:
        """Have everything written that may be, and return it."""
        while True:
            writer.fill()
            if not writer.out:
                break
            self._reader.feed(b"".join(writer.take()), 10**9)
        seen, self.seen = self.seen, []
        return seen


def test_a_small_body_goes_at_once() -> None:
    writer, stream = Writer(Lines()), Out(1)
    writer.headers(stream, b"head", False)
    writer.data(stream, b"body", True)
    assert stream.sent_all
    assert Peer().read(writer) == [(1, b"head", False), (1, b"body", True)]
    assert not stream.told, "whoever sends the end knows it"


def test_streams_take_turns() -> None:
    writer, one, other = Writer(Lines()), Out(1, 2**20), Out(3, 2**20)
    writer.window = 0
    writer.data(one, b"a" * 40_000, True)
    writer.data(other, b"b" * 40_000, True)
    writer.opened(2**20)
    assert [seen[0] for seen in Peer().read(writer)] == [1, 3, 1, 3, 1, 3]
    assert one.told == other.told == ["ended"]


def test_a_stream_without_window_does_not_stop_others() -> None:
    writer, one, other = Writer(Lines()), Out(1, 10), Out(3)
    writer.data(one, b"a" * 40, False)
    writer.data(other, b"b" * 40, True)
    assert Peer().read(writer) == [(1, b"a" * 10, False), (3, b"b" * 40, True)]
    writer.opened_stream(one, 5)
    assert Peer().read(writer) == [(1, b"a" * 5, False)]


def test_trailers_wait_behind_the_body() -> None:
    writer, stream, peer = Writer(Lines()), Out(1, 10), Peer()
    writer.data(stream, b"a" * 15, False)
    writer.finish(stream, b"x: y")
    assert peer.read(writer) == [(1, b"a" * 10, False)]
    writer.opened_stream(stream, 100)
    assert peer.read(writer) == [(1, b"a" * 5, False), (1, b"Tx: y", True)]
    assert stream.told == ["ended"]


def test_an_end_without_bytes_needs_no_window() -> None:
    writer, stream = Writer(Lines()), Out(1, 0)
    writer.window = 0
    writer.data(stream, b"", True)
    assert Peer().read(writer) == [(1, b"", True)]


def test_an_end_behind_what_waits() -> None:
    writer, stream, peer = Writer(Lines()), Out(1, 0), Peer()
    writer.data(stream, b"ab", False)
    writer.data(stream, b"", True)
    writer.opened_stream(stream, 2)
    assert peer.read(writer) == [(1, b"ab", True)]


def test_who_sends_too_much_is_told() -> None:
    writer, stream = Writer(Lines()), Out(1, 0)
    writer.data(stream, b"a" * writing.HIGH, False)
    assert not stream.told
    writer.data(stream, b"a", False)
    assert stream.told == ["filled"]
    writer.opened_stream(stream, writing.HIGH)
    Peer().read(writer)
    assert stream.told == ["filled", "taken"]


def test_many_streams_together_are_bounded() -> None:
    writer = Writer(Lines())
    streams = [Out(1 + 2 * number, 0) for number in range(100)]
    for stream in streams:
        writer.data(stream, b"a" * 50_000, False)
    assert sum(stream.told == ["filled"] for stream in streams) >= 79


def test_what_is_dropped_is_gone() -> None:
    writer, one, other = Writer(Lines()), Out(1), Out(3)
    writer.window = 0
    writer.data(one, b"a" * 100, True)
    writer.data(other, b"b" * 100, True)
    writer.drop(one)
    writer.opened(1000)
    assert Peer().read(writer) == [(3, b"b" * 100, True)]
    assert writer.held == 0


def test_nothing_is_made_while_the_transport_is_full() -> None:
    writer, stream = Writer(Lines()), Out(1)
    writer.blocked = True
    writer.data(stream, b"a", True)
    assert Peer().read(writer) == []
    writer.blocked = False
    assert Peer().read(writer) == [(1, b"a", True)]


def test_windows_that_cannot_be() -> None:
    writer, stream = Writer(Lines()), Out(1)
    assert not writer.opened(2**31 - 1)
    assert not writer.opened_stream(stream, 2**31 - 1)


class WriterMachine(RuleBasedStateMachine):
    """Every byte arrives once, in order, within the windows, and the end comes after the last."""

    def __init__(self) -> None:
        super().__init__()
        self.writer, self.peer = Writer(Lines()), Peer()
        self.streams = [Out(1 + 2 * number) for number in range(3)]
        self.sent = {stream.identifier: b"" for stream in self.streams}
        self.got = dict(self.sent)
        self.ends: dict[int, bytes] = {}
        self.seen_ends: dict[int, bytes] = {}
        self.allowed = {
            0: frames.DEFAULT_WINDOW,
            **{s.identifier: frames.DEFAULT_WINDOW for s in self.streams},
        }

    def _take(self) -> None:
        for stream, data, end in self.peer.read(self.writer):
            assert stream not in self.seen_ends
            if data.startswith(b"T"):
                self.seen_ends[stream] = data
                continue
            self.got[stream] += data
            if end:
                self.seen_ends[stream] = b""

    @rule(
        number=st.integers(0, 2),
        size=st.integers(0, 90_000),
        end=st.sampled_from(["", "", "", "end", "trailers"]),
    )
    def send(self, number: int, size: int, end: str) -> None:
        stream = self.streams[number]
        if stream.identifier in self.ends:
            return
        at = len(self.sent[stream.identifier])
        data = bytes((at + index) % 7 for index in range(size % 50_000))
        self.sent[stream.identifier] += data
        self.writer.data(stream, data, end == "end")
        if end == "trailers":
            self.writer.finish(stream, b"x")
        if end:
            self.ends[stream.identifier] = b"Tx" if end == "trailers" else b""

    @rule(number=st.integers(0, 3), size=st.integers(1, 100_000))
    def open(self, number: int, size: int) -> None:
        if number == 3:
            self.allowed[0] += size
            assert self.writer.opened(size)
        else:
            stream = self.streams[number]
            self.allowed[stream.identifier] += size
            assert self.writer.opened_stream(stream, size)

    @rule(change=st.integers(-30_000, 30_000))
    def change_initial_window(self, change: int) -> None:
        for stream in self.streams:
            self.allowed[stream.identifier] += change
            self.writer.opened_stream(stream, change)

    @rule(blocked=st.booleans())
    def block(self, blocked: bool) -> None:
        self.writer.blocked = blocked

    @rule()
    def write(self) -> None:
        self._take()

    @invariant()
    def what_came_was_sent(self) -> None:
        for stream, got in self.got.items():
            assert self.sent[stream].startswith(got)
            if stream in self.seen_ends:
                assert got == self.sent[stream]
                assert self.seen_ends[stream] == self.ends[stream]

    @invariant()
    def nothing_waits_that_could_go(self) -> None:
        self._take()
        if self.writer.blocked or self.writer.window <= 0:
            return
        for stream in self.streams:
            assert not stream.queued or stream.window <= 0
            full = stream.backlog is not None and stream.backlog.full
            assert full == (stream.told.count("filled") > stream.told.count("taken") and not stream.sent_all)

    @invariant()
    def windows_are_kept(self) -> None:
        assert sum(map(len, self.got.values())) <= self.allowed[0]
        assert self.writer.held == sum(stream.queued for stream in self.streams) + self.writer.size


TestWriter = WriterMachine.TestCase
TestWriter.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)


@given(st.binary(max_size=70_000), st.integers(16_384, 70_000))
def test_header_blocks_are_cut_as_the_peer_wants(block: bytes, largest: int) -> None:
    written = frames.header_frames(7, block, True, largest)
    sizes, at = [], 0
    while at < len(written):
        size = int.from_bytes(written[at : at + 3], "big")
        sizes.append(size)
        at += 9 + size
    assert sum(sizes) == len(block)
    assert max(sizes) <= largest
    assert written[4] & frames.END_STREAM
