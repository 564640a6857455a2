"""The load of HTTP/2: what h2load says, frames that are sent, answers that are read."""

from __future__ import annotations

import hpack
import hyperframe.frame as frames
import pytest

from hack.bench.block_load import OPENING, Answers, Refused, request_frames
from hack.bench.http2_load import Http2Load, h2load_command, read_h2load
from hack.bench.processes import BenchError

SAID = """\
starting benchmark...
finished in {time}, 237920.00 req/s, 39.93MB/s
requests: 237920 total, 238000 started, 237920 done, 237917 succeeded, 3 failed, 2 errored, 1 timeout
status codes: 237917 2xx, 0 3xx, 3 4xx, 0 5xx
traffic: 39.93MB (41874768) total, 2.27MB (2379856) headers (space savings 91.93%), 33.58MB (35212160) data
"""


@pytest.mark.parametrize(
    ("time", "microseconds"), [("1.50s", 1_500_000), ("12.34ms", 12_340), ("686us", 686)]
)
def test_h2load_is_understood(time: str, microseconds: int) -> None:
    errors = {"failed": 3, "errored": 2, "timeout": 1}
    assert read_h2load(SAID.format(time=time)) == Http2Load(237920, microseconds, 41874768, errors)


@pytest.mark.parametrize("missing", ["finished in", "requests:", "traffic:"])
def test_what_h2load_did_not_say_is_an_error(missing: str) -> None:
    said = "\n".join(line for line in SAID.format(time="1.00s").splitlines() if missing not in line)
    with pytest.raises(BenchError, match="did not say what it did"):
        read_h2load(said)


def test_h2load_takes_whole_seconds() -> None:
    command = h2load_command("http://a/", 8, 10, 0.2)
    assert command[1:] == ["-t1", "-c8", "-m10", "-D", "1", "http://a/"]


def parsed(data: bytes) -> list[frames.Frame]:
    found = []
    while data:
        frame, length = frames.Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        found.append(frame)
        data = data[9 + length :]
    return found


def test_the_opening_is_a_preface_and_two_frames() -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert OPENING.startswith(preface)
    settings, window = parsed(OPENING[len(preface) :])
    assert isinstance(settings, frames.SettingsFrame)
    assert settings.settings == {2: 0, 4: 2**30 - 1}
    assert isinstance(window, frames.WindowUpdateFrame)
    assert window.window_increment == 2**30 - 1 - 65535


def test_a_block_is_a_request_without_a_body() -> None:
    sent = request_frames([b"a", b"b" * 300, b"c"])
    one, two, three = parsed(b"".join(sent))
    assert [frame.stream_id for frame in (one, two, three)] == [1, 3, 5]
    assert isinstance(two, frames.HeadersFrame)
    assert two.data == b"b" * 300
    assert set(two.flags) == {"END_STREAM", "END_HEADERS"}


def head(stream: int, status: str = "200") -> bytes:
    frame = frames.HeadersFrame(stream, hpack.Encoder().encode([(":status", status)]))
    frame.flags.add("END_HEADERS")
    return frame.serialize()


def body(stream: int, data: bytes, *, end: bool) -> bytes:
    frame = frames.DataFrame(stream, data)
    if end:
        frame.flags.add("END_STREAM")
    return frame.serialize()


CONVERSATION = (
    frames.SettingsFrame(0, settings={3: 100, 1: 4096}).serialize()
    + head(1)
    + body(1, b"ok\n", end=True)
    + frames.PingFrame(0, b"12345678").serialize()
    + head(3)
    + body(3, b"o", end=False)
    + body(3, b"k\n", end=False)
    + body(3, b"", end=True)
)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_answers_are_counted_in_pieces_of_any_size(size: int) -> None:
    answers = Answers()
    pieces = [CONVERSATION[start : start + size] for start in range(0, len(CONVERSATION), size)]
    assert sum(map(answers.feed, pieces)) == 2
    assert answers.body == 6
    settings, ping = parsed(answers.replies)
    assert isinstance(settings, frames.SettingsFrame)
    assert set(settings.flags) == {"ACK"}
    assert isinstance(ping, frames.PingFrame)
    assert (set(ping.flags), ping.opaque_data) == ({"ACK"}, b"12345678")


def test_acknowledgements_are_not_answered() -> None:
    answers = Answers()
    answers.feed(frames.SettingsFrame(0, flags=["ACK"]).serialize())
    answers.feed(frames.PingFrame(0, b"12345678", flags=["ACK"]).serialize())
    assert answers.replies == b""


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (frames.RstStreamFrame(1, 1).serialize(), "type 3"),
        (frames.GoAwayFrame(0, 1, 2).serialize(), "type 7"),
        (head(1, "503"), "503"),
        (frames.SettingsFrame(0, settings={1: 0}).serialize(), "a table of 0 bytes"),
    ],
)
def test_what_is_no_answer_is_refused(sent: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        Answers().feed(sent)
