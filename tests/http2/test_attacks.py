"""Known attacks: each comes to an end, or to nothing; none costs us a hundred times what it costs its sender.

What is counted is memory, as Python's allocator knows it, against bytes sent; and calls, those of the mesh to
deal with an attack against those to write and send it, because time is not the same twice. What an endpoint
answers is not the attacker's bytes, and bounded apart from that.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodeagent.proxy.http2 import flood, frames, writing
from nodeagent.settings import Limits
from tests.exchange.http1 import http
from tests.exchange.script import a, a1, client
from tests.http2.attacks import ATTACKS, ENDPOINT_ATTACKS, Attack, bomb, tilted_windows
from tests.http2.measure import Calls, check_calls, check_memory, held, says
from tests.http2.wire import BACK, HELLO, Http2Stage, asks

Wires = Callable[..., Http2Stage]
KIB = 1024


def attacked(wires: Wires, endpoint: str) -> Http2Stage:
    stage = wires(http1="endpoint" if endpoint == "http1" else "")
    stage.play(client >> HELLO)
    return stage


def check_end(heard: list[str], attack: Attack) -> None:
    """Check that an attack that is to end its connection has done so."""
    if attack.ends:
        assert heard[-1] == "end"
        assert f" {frames.ENHANCE_YOUR_CALM} " in heard[-2]


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
@pytest.mark.parametrize("endpoint", ["http1", "http2"])
class TestAHundredTimes:
    def test_memory(self, wires: Wires, attack: Attack, endpoint: str) -> None:
        check_memory(attacked(wires, endpoint), attack)

    def test_calls(self, wires: Wires, attack: Attack, endpoint: str) -> None:
        check_end(check_calls(attacked(wires, endpoint), attack), attack)


@pytest.mark.parametrize("attack", ENDPOINT_ATTACKS, ids=[attack.name for attack in ENDPOINT_ATTACKS])
class TestAnEndpointAttacks:
    """What it does to the request that it has been sent is not what this is about: it can do that anyhow."""

    def test_memory(self, wires: Wires, attack: Attack) -> None:
        check_memory(awaiting(wires), attack, "a1")

    def test_calls(self, wires: Wires, attack: Attack) -> None:
        check_end(check_calls(awaiting(wires), attack, "a1"), attack)


def awaiting(wires: Wires) -> Http2Stage:
    """Have an endpoint owe a response, to a client of HTTP/1."""
    stage = wires(http1="client")
    stage.does(client >> http("GET / HTTP/1.1", "Host: web"), a >> "accepts", a1 >> BACK)
    return stage


class TestHpackBomb:
    """CVE-2016-6581 and its kin: heads that are large here and small on the wire."""

    def test_room_is_what_was_paid_for(self) -> None:
        inflation, most = flood.Inflation(), flood.HEADS_AT_ONCE
        assert inflation.takes(most, 0, lambda: 0)
        assert not inflation.takes(1, 0, lambda: most)
        assert inflation.takes(flood.HEADS_PER_BYTE, 1, lambda: most)
        assert not inflation.takes(1, 0, lambda: most + flood.HEADS_PER_BYTE)
        assert inflation.takes(most, 0, lambda: 0), "those that were under way are over"

    def test_heads_under_way_are_held(self, wires: Wires) -> None:
        """So their source is found when a worker holds too much."""
        stage = attacked(wires, "http1")
        before = held(stage)
        says(stage, bomb(0))
        assert 60 * KIB < held(stage) - before < 80 * KIB

    def test_more_of_them_than_was_paid_for_are_refused(self, wires: Wires) -> None:
        stage = attacked(wires, "http1")
        heard = says(stage, b"".join(map(bomb, range(30))))
        refused = [what for what in heard if what.endswith(f": reset {frames.REFUSED_STREAM}")]
        assert 15 < len(refused) < 28
        assert held(stage) < 600 * KIB

    def test_large_heads_that_are_over_make_room(self, wires: Wires) -> None:
        stage = wires(http1="endpoint", endpoints="")
        stage.play(client >> HELLO)
        heard = [what for number in range(300) for what in says(stage, bomb(number))]
        assert sum(": 503 " in what for what in heard) == 300

    def test_heads_that_repeat_a_large_field_are_usual(self, wires: Wires) -> None:
        """A token of 3.9 KB in each of a hundred requests, which comes once."""
        stage = attacked(wires, "http1")
        heard = says(stage, b"".join(bomb(number, copies=1) for number in range(100)))
        assert heard == []

    def test_a_head_of_megabytes_ends_the_connection(self, wires: Wires) -> None:
        """Where it has become too large by far, it is not read on."""
        stage = attacked(wires, "http1")
        calls = Calls()
        with calls.counting():
            heard = says(stage, bomb(0, copies=10_000))
        assert f" {frames.ENHANCE_YOUR_CALM} " in heard[0]
        assert calls.count < 2_000

    def test_a_head_that_is_too_large_is_answered(self, wires: Wires) -> None:
        heard = says(attacked(wires, "http1"), bomb(0, copies=20))
        assert heard[0].startswith("1: 431 ")


def test_settings_change_every_window_once(wires: Wires) -> None:
    """However often one frame changes them: a hundred streams times 32 settings would be 3,200 changes."""
    stage = attacked(wires, "http1")
    attack = tilted_windows()
    says(stage, next(attack))
    calls = Calls()
    with calls.counting():
        says(stage, next(attack))
    assert calls.count < 1_000


class TestSlowReading:
    """CVE-2019-9511 and 9517, slow reading: a client asks for much and takes little."""

    def test_what_waits_for_windows_is_bounded(self, wires: Wires) -> None:
        """A hundred streams with their windows shut, of endpoints that send without end."""
        stage = wires(http1="endpoint", limits=Limits(streams=100))
        shut = frames.PREFACE + frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 0})
        stage.does(client >> shut + b"".join(asks(stream) for stream in range(1, 200, 2)))
        stage.does(*(a >> "accepts" for _ in range(100)))
        for number in range(1, 101):
            wire = stage.wire(f"a{number}")
            wire.says(http("HTTP/1.1 200 OK"))
            for _ in range(4):
                wire.says(b"x" * 64 * KIB)
        stage.loop.settle()
        most = writing.MOST_WAITING + 101 * 64 * KIB
        assert writing.MOST_WAITING < held(stage) <= most

    def test_data_dribble(self, wires: Wires) -> None:
        """Windows of a byte each are few: their frames cost more than they bring."""
        stage = wires(http1="endpoint")
        shut = frames.PREFACE + frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 0})
        stage.does(client >> shut + asks(1), a >> "accepts")
        stage.does(a1 >> http("HTTP/1.1 200 OK", body=b"x" * 50_000))
        heard: list[str] = []
        while "end" not in heard:
            heard += says(stage, frames.window_frame(1, 1))
        assert sum(what == '1: "x"' for what in heard) <= flood.MOST_CONTROLS
