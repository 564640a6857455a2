"""A client of HTTP/2, in front of endpoints of HTTP/1."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from nodeagent.proxy.http2 import flood, frames
from nodeagent.proxy.http2.frames import frame
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.exchange.http1 import http, ok
from tests.exchange.script import a, a1, a2, client, passes
from tests.http2.wire import HELLO, Http2Stage, asks, data, head

Wires = Callable[..., Http2Stage]
FROM = "X-Forwarded-For: 10.1.2.3"
GOT = http("GET / HTTP/1.1", "Host: web", FROM)


def greeted(wires: Wires, **options: object) -> Http2Stage:
    stage = wires(http1="endpoint", **options)
    stage.play(client >> HELLO)
    return stage


def asked(wires: Wires, **options: object) -> Http2Stage:
    """Have a first request of the client reach a first connection to `a`."""
    stage = greeted(wires, **options)
    stage.play(client >> asks(1), a << "dialled", a >> "accepts", a1 << GOT)
    return stage


def begun(wires: Wires, **options: object) -> Http2Stage:
    """Have a request whose body is to come reach a first connection to `a`."""
    stage = greeted(wires, **options)
    said = stage.does(client >> asks(1, "POST", end=False), a >> "accepts")
    assert said["a1"] == [http("POST / HTTP/1.1", "Host: web", FROM, "Transfer-Encoding: chunked")]
    return stage


def calmed(said: dict[str, list[Any]]) -> bool:
    """Whether the client is told ENHANCE_YOUR_CALM, and is let go."""
    last = [str(what) for what in said.get("client", ())][-2:]
    return len(last) == 2 and re.match(r"goaway \d+ 11 ", last[0]) is not None and last[1] == "end"


class TestBeginning:
    def test_our_settings_come_first(self, wires: Wires) -> None:
        stage = wires(http1="endpoint", plain=True)
        stage.play(
            client >> HELLO,
            client << "settings [(3, 100), (6, 65536), (8, 1)]",
            client << "window 0 983041",
            client << "ack",
        )
        assert stage.plane.count(columns.CONNECTIONS) == stage.plane.count(columns.CONNECTIONS_ACTIVE) == 1

    def test_byte_by_byte(self, wires: Wires) -> None:
        stage = wires(http1="endpoint")

        def says() -> None:
            for byte in HELLO + asks(1):
                stage.wire("client").says(bytes((byte,)))

        stage.play(client >> "connects", says, a << "dialled", a >> "accepts", a1 << GOT)
        stage.play(a1 >> ok(b"hi"), client << "1: 200 content-length=2", client << '1: "hi" end')

    def test_a_preface_that_stops(self, wires: Wires) -> None:
        """It has the time of an HTTP/1 head."""
        stage = wires(http1="endpoint client")
        stage.play(client >> HELLO[:18], passes(9.0))
        said = stage.does(passes(2.0))
        assert said["client"][-1] == "end"
        assert stage.plane.runtime.cells[columns.WORKER_HEAD_TIMEOUTS] == 1

    def test_a_preface_that_becomes_another(self, wires: Wires) -> None:
        said = wires(http1="endpoint client").does(client >> HELLO[:18], client >> b"XX\r\n\r\n")
        assert said["client"][0].startswith(b"HTTP/1.1 505 ")

    def test_only_a_connection_begins_so(self, wires: Wires) -> None:
        stage = wires(http1="endpoint client")
        stage.play(client >> http("GET / HTTP/1.1", "Host: web"), a << "dialled", a >> "accepts", a1 << GOT)
        stage.play(a1 >> ok(), client << ok())
        said = stage.does(client >> HELLO)
        assert said["client"][0].startswith(b"HTTP/1.1 505 ")


class TestExchange:
    def test_many_at_once(self, wires: Wires) -> None:
        stage = asked(wires)
        stage.play(
            client >> asks(3),
            a << "dialled",
            a >> "accepts",
            a2 << GOT,
            a2 >> ok(b"three"),
            client << "3: 200 content-length=5",
            client << '3: "three" end',
            a1 >> ok(b"one"),
            client << "1: 200 content-length=3",
            client << '1: "one" end',
        )
        assert stage.plane.count(columns.REQUESTS_2XX) == 2

    def test_a_turn_of_the_loop_is_one_write(self, wires: Wires) -> None:
        stage = asked(wires)
        writes: list[bytes] = []
        wire = stage.wire("client")
        write = wire.write

        def noted(data: bytes) -> None:
            writes.append(data)
            write(data)

        wire.write = noted  # type: ignore[method-assign]
        stage.play(a1 >> ok(b"one"), client << "1: 200 content-length=3", client << '1: "one" end')
        assert len(writes) == 1

    def test_a_body_without_length_becomes_chunks(self, wires: Wires) -> None:
        begun(wires).play(
            client >> data(1, b"abc", end=False),
            a1 << b"3\r\nabc\r\n",
            client >> data(1, b"de"),
            a1 << b"2\r\nde\r\n0\r\n\r\n",
            a1 >> ok(),
            client << "1: 200 content-length=0 end",
        )

    def test_a_body_in_the_same_bytes(self, wires: Wires) -> None:
        stage = greeted(wires)
        whole = http("POST / HTTP/1.1", "Host: web", FROM, "Content-Length: 3", body=b"abc")
        stage.play(client >> asks(1, "POST", end=False) + data(1, b"abc"), a << "dialled")
        stage.play(a >> "accepts", a1 << whole)

    @pytest.mark.parametrize("trailers", [True, False])
    def test_trailers_of_a_request(self, wires: Wires, trailers: bool) -> None:
        """An endpoint of HTTP/1 gets them if the listener says so."""
        stage = greeted(wires, trailers=trailers)
        request = asks(1, "POST", "/", ("te", "trailers"), end=False) + data(1, b"a", end=False)
        said = stage.does(client >> request + head(1, ("x-sum", "1")), a >> "accepts")
        lines = b"x-sum: 1\r\n" if trailers else b""
        assert b"".join(said["a1"]).endswith(b"\r\n\r\n1\r\na\r\n0\r\n%b\r\n" % lines)

    def test_trailers_of_a_response(self, wires: Wires) -> None:
        stage = greeted(wires)
        stage.does(client >> asks(1, "GET", "/", ("te", "trailers")), a >> "accepts")
        chunked = "Transfer-Encoding: chunked"
        stage.play(
            a1 >> http("HTTP/1.1 200 OK", chunked, body=b"2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n"),
            client << "1: 200",
            client << '1: "hi"',
            client << "1: trailers x-sum=2 end",
        )

    def test_an_informational_response(self, wires: Wires) -> None:
        asked(wires).play(
            a1 >> http("HTTP/1.1 103 Early Hints", "Link: x"),
            client << "1: 103 link=x",
            a1 >> ok(),
            client << "1: 200 content-length=0 end",
        )

    def test_a_response_until_close(self, wires: Wires) -> None:
        asked(wires).play(
            a1 >> http("HTTP/1.1 200 OK", body=b"ab"),
            client << "1: 200",
            client << '1: "ab"',
            a1 >> "ends",
            a1 << "end",
            client << '1: "" end',
        )

    def test_a_response_that_breaks_off(self, wires: Wires) -> None:
        """Only its stream does."""
        stage = asked(wires)
        stage.play(
            a1 >> ok(b"ab", length=9),
            client << "1: 200 content-length=9",
            client << '1: "ab"',
            a1 >> "resets",
            client << "1: reset 2",
            client >> asks(3),
            a << "dialled",
        )

    def test_an_answer_of_the_mesh(self, wires: Wires) -> None:
        first, second = greeted(wires, endpoints="").does(client >> asks(1))["client"]
        assert str(first).startswith("1: 503 proxy-status=svc.mesh;")
        assert str(second).endswith(" end")

    def test_a_response_without_a_date_gets_one(self, wires: Wires) -> None:
        asked(wires, wall=lambda: 784111777.0).play(
            a1 >> ok(), client << "1: 200 content-length=0 date=Sun, 06 Nov 1994 08:49:37 GMT end"
        )

    def test_max_forwards_goes_down_and_ends_here(self, wires: Wires) -> None:
        """Also where blocks, and blocks but for their path, are known by then."""
        stage = greeted(wires)
        said = stage.does(client >> asks(1, "OPTIONS", "/", ("max-forwards", "2")), a >> "accepts")
        for stream, path in ((3, "/"), (5, "/"), (7, "/other"), (9, "/others")):
            said = stage.does(a1 >> ok(), client >> asks(stream, "OPTIONS", path, ("max-forwards", "2")))
            assert said["a1"] == [http(f"OPTIONS {path} HTTP/1.1", "Host: web", "max-forwards: 1", FROM)]
        stage.does(a1 >> ok())
        first, _ = stage.does(client >> asks(11, "TRACE", "/", ("max-forwards", "0")))["client"]
        assert str(first).startswith("11: 501 ")
        refused = stage.does(client >> asks(13, "TRACE", "/", ("max-forwards", "many")))["client"]
        assert [str(what) for what in refused] == ["13: reset 1"]

    def test_the_client_gives_up(self, wires: Wires) -> None:
        asked(wires).play(client >> frames.reset_frame(1, frames.CANCEL), a1 << "end")

    def test_the_response_is_whole_before_the_request(self, wires: Wires) -> None:
        stage = greeted(wires)
        stage.does(client >> asks(1, "POST", "/", ("content-length", "9"), end=False), a >> "accepts")
        stage.play(
            a1 >> ok(),
            client << "1: 200 content-length=0 end",
            client << "1: reset 0",
            a1 << "end",
            client >> data(1, b"late"),
        )


def small_window(wires: Wires, window: int) -> Http2Stage:
    """Have a client ask that lets a response be only so long."""
    stage = wires(http1="endpoint")
    stage.play(client >> frames.PREFACE + frames.settings_frame({4: window}) + asks(1), a << "dialled")
    stage.play(a >> "accepts", a1 << GOT)
    return stage


class TestFlow:
    def test_a_response_waits_for_the_stream_s_window(self, wires: Wires) -> None:
        small_window(wires, 3).play(
            a1 >> ok(b"abcde"),
            client << "1: 200 content-length=5",
            client << '1: "abc"',
            client >> frames.window_frame(1, 1),
            client << '1: "d"',
            client >> frames.settings_frame({4: 4}),
            client << '1: "e" end',
        )

    def test_an_endpoint_waits_for_a_client_that_opens_no_window(self, wires: Wires) -> None:
        stage = small_window(wires, 0)
        stage.play(a1 >> ok(b"x" * 70_000, length=10**6), client << "1: 200 content-length=1000000")
        assert stage.held("a1")
        stage.does(client >> frames.window_frame(1, 60_000))
        assert not stage.held("a1")

    def test_a_client_that_never_opens_its_window(self, wires: Wires) -> None:
        small_window(wires, 0).play(
            a1 >> ok(b"x" * 70_000, length=10**6),
            client << "1: 200 content-length=1000000",
            passes(59.0),
            passes(2.0),
            a1 << "end",
            client << "1: reset 2",
        )

    def test_a_whole_response_that_is_never_taken(self, wires: Wires) -> None:
        small_window(wires, 0).play(
            a1 >> ok(b"x"),
            client << "1: 200 content-length=1",
            passes(59.0),
            a1 << "end",
            passes(2.0),
            client << "1: reset 8",
        )

    def test_a_request_waits_for_its_endpoint(self, wires: Wires) -> None:
        """What comes beyond what is kept waits in its stream, whose window stays shut."""
        stage = greeted(wires, limits=Limits(replay_bytes=10_000))
        stage.play(client >> asks(1, "POST", end=False) + data(1, b"x" * 20_000, end=False), a << "dialled")
        stage.play(client >> data(1, b"x" * 40_000, end=False))
        (connection,) = stage.plane.runtime.connections
        assert 59_000 < connection.held < 61_000
        stage.play(client >> data(1, b"x" * 5_535, end=False))
        said = stage.does(client >> data(1, b"x", end=False))
        assert str(said["client"][0]).startswith("goaway 1 3")

    def test_what_waited_comes_behind_what_was_kept(self, wires: Wires) -> None:
        stage = greeted(wires, limits=Limits(replay_bytes=10), high=10**6)
        body = bytes(range(256)) * 100
        request = asks(1, "POST", "/", ("content-length", str(len(body) + 4)), end=False)
        stage.does(client >> request + data(1, body, end=False), client >> data(1, b"last"))
        said = b"".join(stage.does(a >> "accepts")["a1"])
        assert said.startswith(b"POST / HTTP/1.1\r\n")
        assert said.endswith(b"\r\n\r\n" + body + b"last")

    def test_the_window_opens_as_bytes_are_passed_on(self, wires: Wires) -> None:
        """By what has come, and as much again: the endpoint keeps up."""
        stage = begun(wires, high=10**6)
        said = stage.does(client >> data(1, b"x" * 40_000, end=False))
        assert said["client"] == [f"window 1 {2 * 16_384 + 65_535}"]

    def test_a_stream_that_waits_stops_no_other(self, wires: Wires) -> None:
        stage = small_window(wires, 0)
        stage.play(a1 >> ok(b"x"), client << "1: 200 content-length=1")
        stage.does(client >> asks(3), client >> frames.window_frame(3, 1))
        stage.play(a1 >> ok(b"y"), client << "3: 200 content-length=1", client << '3: "y" end')


class TestLimits:
    def test_too_many_streams(self, wires: Wires) -> None:
        stage = greeted(wires, limits=Limits(streams=1))
        stage.play(client >> asks(1) + asks(3), a << "dialled", client << "3: reset 7")

    def test_a_rapid_reset(self, wires: Wires) -> None:
        """CVE-2023-44487: the connection ends, and has cost no more than a few requests."""
        stage = greeted(wires)
        flooded = b"".join(
            asks(1 + 2 * number) + frames.reset_frame(1 + 2 * number, 8)
            for number in range(flood.MOST_RESETS + 50)
        )
        said = stage.does(client >> flooded)
        assert calmed(said)
        assert stage.plane.ended <= flood.MOST_RESETS + 1

    def test_streams_that_are_given_up_later_are_no_attack(self, wires: Wires) -> None:
        stage = greeted(wires)
        for number in range(1, 2 * flood.MOST_RESETS + 100, 2):
            said = stage.does(client >> asks(number), passes(1.0), client >> frames.reset_frame(number, 8))
            assert not calmed(said)

    @pytest.mark.parametrize(
        "bad",
        [
            frames.window_frame(1, 0),
            frames.window_frame(1, 2**31 - 1),
            frame(frames.PRIORITY, 0, 1, b"1234"),
            frame(frames.PRIORITY, 0, 1, b"\0\0\0\x01\0"),
        ],
        ids=["no window", "too much window", "a short priority", "a dependence on itself"],
    )
    def test_made_you_reset(self, wires: Wires, bad: bytes) -> None:
        """CVE-2025-8671: streams that we have to reset count as those that the client resets."""
        stage = greeted(wires)
        flooded = b"".join(
            asks(number, "POST", end=False) + bad.replace(b"\0\0\0\x01", number.to_bytes(4, "big"))
            for number in range(1, 2 * flood.MOST_RESETS + 100, 2)
        )
        assert calmed(stage.does(client >> flooded))
        assert stage.plane.ended <= flood.MOST_RESETS + 1

    @pytest.mark.parametrize(
        "what",
        [
            frames.ping_frame(b"12345678", ack=False),
            frames.settings_frame({}),
            frames.SETTINGS_ACK,
            frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\0"),
            frame(0xBB, 0, 0, b"?"),
            frames.window_frame(0, 1),
            frame(frames.DATA, 0, 1, b""),
            frame(frames.DATA, frames.PADDED, 1, b"\x05\0\0\0\0\0"),
            frames.ping_frame(b"draining", ack=True),
        ],
        ids=["ping", "settings", "ack", "priority", "unknown", "window", "empty", "padding", "pong"],
    )
    def test_floods_of_frames_that_bring_nothing(self, wires: Wires, what: bytes) -> None:
        stage = greeted(wires)
        stage.play(client >> asks(1, "POST", end=False), a << "dialled")
        assert calmed(stage.does(client >> what * (flood.MOST_CONTROLS + 200)))

    def test_windows_of_one_byte(self, wires: Wires) -> None:
        """Each costs a frame, and there are as many as of those that bring nothing."""
        stage = small_window(wires, 0)
        stage.does(a1 >> ok(b"x" * 50_000))
        said = stage.does(client >> frames.window_frame(1, 1) * (flood.MOST_CONTROLS + 200))
        assert calmed(said)

    def test_windows_as_they_are_usual(self, wires: Wires) -> None:
        stage = small_window(wires, 0)
        stage.does(a1 >> http("HTTP/1.1 200 OK"))
        for _ in range(3 * flood.MOST_CONTROLS):
            opened = frames.window_frame(0, 2048) + frames.window_frame(1, 2048)
            said = stage.does(client >> opened, a1 >> b"x" * 2048)
            assert not calmed(said)

    def test_what_honest_clients_do_is_no_flood(self, wires: Wires) -> None:
        """A ping and two windows for each message."""
        stage = asked(wires)
        stage.play(a1 >> http("HTTP/1.1 200 OK"), client << "1: 200")
        polite = frames.ping_frame(b"12345678", ack=False) + frames.window_frame(0, 1)
        for _ in range(flood.MOST_CONTROLS):
            stage.play(a1 >> b"m", client << '1: "m"', client >> polite, client << "ping 12345678 ack")

    def test_a_client_that_does_not_read_is_not_read(self, wires: Wires) -> None:
        """What it is answered stays within what its transport takes, and a turn's frames."""
        stage = greeted(wires, endpoints="", high=64)
        stage.does(client >> "stops reading", client >> b"".join(asks(1 + 2 * n) for n in range(50)))
        assert stage.held("client")
        stage.does(client >> asks(201))
        assert stage.plane.ended == 50
        stage.does(client >> "reads")
        assert stage.plane.ended == 51

    def test_a_client_that_never_reads_is_broken_off(self, wires: Wires) -> None:
        stage = greeted(wires, endpoints="", high=64)
        stage.play(
            client >> "stops reading", client >> asks(1), passes(50.0), passes(12.0), client << "reset"
        )

    def test_idle(self, wires: Wires) -> None:
        greeted(wires).play(passes(74.0), passes(2.0), client << "goaway 0 0", client << "end")

    def test_a_body_that_stops(self, wires: Wires) -> None:
        stage = begun(wires)
        said = stage.does(passes(59.0))
        assert "client" not in said
        assert str(stage.does(passes(2.0))["client"][0]).startswith("1: 408 ")

    def test_a_silent_endpoint(self, wires: Wires) -> None:
        stage = asked(wires)
        stage.play(passes(299.0))
        assert str(stage.does(passes(2.0))["client"][0]).startswith("1: 504 ")


class TestFaults:
    @pytest.mark.parametrize(
        ("what", "code"),
        [
            (asks(2), 1),
            (frames.window_frame(5, 1), 1),
            (data(5, b"x"), 1),
            (frames.reset_frame(5, 1), 1),
            (frames.window_frame(0, 2**31 - 1), 3),
            (frame(frames.HEADERS, 4, 3, b"\xff\xff\xff\xff\xff\xff"), 9),
        ],
    )
    def test_of_the_connection(self, wires: Wires, what: bytes, code: int) -> None:
        said = asked(wires).does(client >> what)
        assert re.match(rf"goaway [135] {code} ", str(said["client"][0]))
        assert said["client"][1] == "end"
        assert said["a1"] == ["end"]

    @pytest.mark.parametrize(
        "fields",
        [
            [("X-Upper", "1")],
            [("connection", "close")],
            [("transfer-encoding", "chunked")],
            [("te", "gzip")],
        ],
    )
    def test_of_a_head(self, wires: Wires, fields: list[tuple[str, str]]) -> None:
        stage = greeted(wires)
        stage.play(client >> asks(1, "GET", "/", *fields), client << "1: reset 1")
        assert len(stage.plane.watcher.refusals) == 1

    def test_connect_is_not_for_the_mesh(self, wires: Wires) -> None:
        stage = greeted(wires)
        said = stage.does(client >> head(1, (":method", "CONNECT"), (":authority", "web:80")))
        assert str(said["client"][0]).startswith("1: 501 ")

    @pytest.mark.parametrize("protocol", ["connect-udp", "", "WebSocket"])
    def test_other_protocols_than_websocket(self, wires: Wires, protocol: str) -> None:
        asking = asks(1, "CONNECT", "/", (":protocol", protocol), end=False)
        said = greeted(wires).does(client >> asking)
        assert str(said["client"][0]).startswith("1: 501 ")

    def test_a_head_that_is_too_large(self, wires: Wires) -> None:
        stage = greeted(wires, limits=Limits(head_bytes=8192))
        said = stage.does(client >> asks(1, "GET", "/", *[("x", "y" * 100)] * 70))
        assert str(said["client"][0]).startswith("1: 431 ")
        stage.play(client >> asks(3), a << "dialled")

    @pytest.mark.parametrize("body", [b"abcd", b"ab"])
    def test_a_body_of_another_length(self, wires: Wires, body: bytes) -> None:
        stage = greeted(wires)
        stage.does(client >> asks(1, "POST", "/", ("content-length", "3"), end=False), a >> "accepts")
        stage.play(client >> data(1, body), a1 << "end", client << "1: reset 1")


class TestLeaving:
    def test_in_two_steps(self, wires: Wires) -> None:
        """A request that was on its way when the first was sent is still served."""
        stage = asked(wires)
        stage.plane.runtime.draining = True
        stage.play(
            passes(1.0),
            client << "goaway 2147483647 0",
            client << "ping draining",
            client >> asks(3),
            a << "dialled",
            client >> frames.ping_frame(b"draining", ack=True),
            client << "goaway 3 0",
            client >> asks(5),
            a1 >> ok(),
            client << "1: 200 content-length=0 end",
            a >> "accepts",
            a2 << GOT,
            a2 >> ok(),
            client << "3: 200 content-length=0 end",
            client << "end",
        )

    def test_a_client_that_does_not_answer_the_ping(self, wires: Wires) -> None:
        stage = asked(wires)
        stage.plane.runtime.draining = True
        stage.play(passes(1.0), client << "goaway 2147483647 0", client << "ping draining")
        stage.play(passes(1.0), client << "goaway 1 0")
        stage.play(a1 >> ok(), client << "1: 200 content-length=0 end", client << "end")

    def test_a_body_on_its_way_behind_the_last_stream(self, wires: Wires) -> None:
        """It is passed over, and harms nobody (RFC 9113 section 6.8)."""
        stage = asked(wires)
        stage.plane.runtime.draining = True
        stage.play(
            passes(1.0),
            client << "goaway 2147483647 0",
            client << "ping draining",
            passes(1.0),
            client << "goaway 1 0",
            client >> asks(3, "POST", end=False),
            client >> data(3, b"piece", end=False) + head(3, ("x-sum", "1")),
            a1 >> ok(),
            client << "1: 200 content-length=0 end",
            client << "end",
        )

    def test_a_service_that_leaves_the_mesh(self, wires: Wires) -> None:
        """The client is told where it ends, even if it has not answered the PING: later requests on their way
        were not served."""
        stage = asked(wires)
        stage.play(stage.plane.removed, client << "goaway 2147483647 0", client << "ping draining")
        stage.play(
            a1 >> ok(),
            client << "1: 200 content-length=0 end",
            client << "goaway 1 0",
            client << "end",
            client >> asks(3),
        )

    def test_a_half_close(self, wires: Wires) -> None:
        asked(wires).play(
            client >> "ends", a1 >> ok(), client << "1: 200 content-length=0 end", client << "end"
        )

    def test_a_half_close_with_a_window_that_stays_shut(self, wires: Wires) -> None:
        """Nobody can open it any more, so what waits for it is not kept."""
        stage = small_window(wires, 3)
        stage.play(
            a1 >> ok(b"abcde", length=10**6),
            client << "1: 200 content-length=1000000",
            client << '1: "abc"',
            client >> "ends",
            a1 << "end",
            client << "end",
        )

    def test_a_response_comes_behind_a_half_close_and_the_window_is_shut(self, wires: Wires) -> None:
        small_window(wires, 3).play(
            client >> "ends",
            a1 >> ok(b"abcde", length=10**6),
            client << "1: 200 content-length=1000000",
            client << '1: "abc"',
            a1 << "end",
            client << "end",
        )

    def test_the_client_leaves(self, wires: Wires) -> None:
        asked(wires).play(client >> "resets", a1 << "end")
