"""Endpoints of HTTP/2, behind clients of HTTP/1 and of HTTP/2."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodeagent.proxy.http2 import client as http2_client
from nodeagent.proxy.http2 import flood, frames
from nodeagent.proxy.http2.frames import frame
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.exchange.http1 import Own, get, http, put
from tests.exchange.script import a, a1, a2, b, b1, client, client2, client3, passes
from tests.http2.wire import BACK, HELLO, Http2Stage, answers, asks, data, head

Wires = Callable[..., Http2Stage]
FROM = "x-forwarded-for=10.1.2.3"
GOT = f"1: GET / {FROM} end"


def asked(wires: Wires, request: bytes = get(), got: str = GOT, **options: object) -> Http2Stage:
    """Have the first request of a client of HTTP/1 reach a first connection to `a`."""
    stage = wires(http1="client", **options)
    stage.play(client >> request, a << "dialled", a >> "accepts", a1 << got, a1 >> BACK)
    return stage


def joined(wires: Wires, **options: object) -> Http2Stage:
    """Have a request of a client of HTTP/2 reach a first connection to `a`."""
    stage = wires(**options)
    stage.play(client >> HELLO + asks(1), a << "dialled", a >> "accepts", a1 << GOT, a1 >> BACK)
    return stage


class TestExchange:
    def test_what_is_said_first(self, wires: Wires) -> None:
        stage = wires(http1="client", plain=True)
        stage.play(
            client >> get(),
            a << "dialled",
            a >> "accepts",
            a1 << "settings [(2, 0)]",
            a1 << "window 0 983041",
            a1 << GOT,
            a1 >> BACK,
            a1 << "ack",
        )
        assert stage.plane.count(columns.UPSTREAM_CONNECTIONS) == 1

    def test_head_and_body_are_one_write(self, wires: Wires) -> None:
        stage = asked(wires)
        said = stage.does(a1 >> answers(1, 200, ("content-length", "2"), end=False) + data(1, b"hi"))
        assert len(said["client"]) == 1
        assert str(said["client"][0]).endswith("hi'")

    def test_one_after_another(self, wires: Wires) -> None:
        stage = asked(wires)
        stage.does(a1 >> answers(1))
        stage.play(client >> get("/2"), a1 << f"3: GET /2 {FROM} end")
        assert b"200" in stage.does(a1 >> answers(3))["client"][0]
        assert stage.plane.count(columns.REQUESTS_2XX) == 2

    def test_clients_share_a_connection(self, wires: Wires) -> None:
        stage = asked(wires)
        stage.play(client2 >> get("/2"), a1 << "3: GET /2 x-forwarded-for=10.1.2.4 end")
        assert list(stage.does(a1 >> answers(3))) == ["client2"]
        assert list(stage.does(a1 >> answers(1))) == ["client"]

    def test_http2_on_both_sides(self, wires: Wires) -> None:
        joined(wires).play(
            client >> asks(3, "POST", "/x", ("te", "trailers"), end=False) + data(3, b"a", end=False),
            a1 << f"3: POST /x te=trailers {FROM}",
            a1 << '3: "a"',
            client >> head(3, ("x-sum", "1")),
            a1 << "3: trailers x-sum=1 end",
            a1 >> answers(3, 200, end=False) + data(3, b"b", end=False),
            client << "3: 200",
            client << '3: "b"',
            a1 >> head(3, ("grpc-status", "0")),
            client << "3: trailers grpc-status=0 end",
            a1 >> answers(1),
            client << "1: 200 content-length=0 end",
        )

    def test_a_body_with_a_length(self, wires: Wires) -> None:
        stage = wires(http1="client")
        stage.does(client >> put(b"", length=4))
        stage.play(
            a >> "accepts",
            a1 << f"1: PUT / content-length=4 {FROM}",
            client >> b"ab",
            a1 << '1: "ab"',
            client >> b"cd",
            a1 << '1: "cd" end',
        )

    def test_chunks_end_here(self, wires: Wires) -> None:
        request = http(
            "POST / HTTP/1.1", "Host: web", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n1\r\nc"
        )
        stage = wires(http1="client")
        stage.play(
            client >> request,
            a << "dialled",
            a >> "accepts",
            a1 << f"1: POST / {FROM}",
            a1 << '1: "abc"',
            client >> b"\r\n0\r\n\r\n",
            a1 << '1: "" end',
        )

    def test_trailers_of_chunks(self, wires: Wires) -> None:
        chunked = ("TE: trailers", "Transfer-Encoding: chunked")
        request = http("POST / HTTP/1.1", "Host: web", *chunked, body=b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")
        stage = wires(http1="client", trailers=True)
        said = stage.does(client >> request, a >> "accepts")
        assert said["a1"] == [f"1: POST / te=trailers {FROM}", '1: "a"', "1: trailers x-sum=1 end"]

    @pytest.mark.parametrize("takes", [True, False])
    def test_trailers_of_a_response(self, wires: Wires, takes: bool) -> None:
        stage = wires(http1="client")
        stage.does(client >> get("/", *(["TE: trailers"] if takes else [])), a >> "accepts")
        answer = answers(1, 200, end=False) + data(1, b"a", end=False) + head(1, ("x-sum", "1"))
        said = b"".join(stage.does(a1 >> BACK + answer)["client"])
        lines = b"x-sum: 1\r\n" if takes else b""
        assert said.endswith(b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n%b\r\n" % lines)

    def test_a_response_to_head(self, wires: Wires) -> None:
        request = http("HEAD / HTTP/1.1", "Host: web")
        stage = asked(wires, request, f"1: HEAD / {FROM} end")
        said = stage.does(a1 >> answers(1, 200, ("content-length", "9")))
        assert said["client"] == [http("HTTP/1.1 200 OK", "content-length: 9")]

    def test_an_informational_response(self, wires: Wires) -> None:
        stage = asked(wires)
        said = stage.does(a1 >> answers(1, 103, ("link", "x"), end=False))
        assert str(said["client"][0]).startswith("b'HTTP/1.1 103 ")

    def test_websockets_are_not_switched_to(self, wires: Wires) -> None:
        upgrade = ("Connection: upgrade", "Upgrade: websocket")
        stage = asked(wires, get("/", *upgrade))
        assert b" 502 " in stage.does(a1 >> answers(1, 101, end=False))["client"][0]

    def test_a_client_gives_up(self, wires: Wires) -> None:
        """Its connection goes on; the endpoint's too."""
        joined(wires).play(
            client >> frames.reset_frame(1, 8),
            a1 << "1: reset 8",
            client >> asks(3),
            a1 << f"3: GET / {FROM} end",
        )

    def test_the_response_is_whole_before_the_request(self, wires: Wires) -> None:
        stage = joined(wires)
        stage.play(client >> asks(3, "POST", end=False), a1 << f"3: POST / {FROM}")
        stage.play(
            a1 >> answers(3),
            client << "3: 200 content-length=0 end",
            client << "3: reset 0",
            a1 << "3: reset 8",
        )


class TestFlow:
    def test_a_request_waits_for_the_endpoint_s_window(self, wires: Wires) -> None:
        stage = joined(wires)
        stage.play(a1 >> frames.settings_frame({4: 2}))
        stage.play(
            client >> asks(3, "POST", end=False) + data(3, b"abc"),
            a1 << f"3: POST / {FROM}",
            a1 << '3: "ab"',
            a1 >> frames.window_frame(3, 5),
            a1 << '3: "c" end',
        )

    def test_an_endpoint_that_opens_no_window(self, wires: Wires) -> None:
        """The client is stopped: of HTTP/1 it is not read, and in the end it is told."""
        stage = asked(wires)
        stage.does(a1 >> frames.settings_frame({4: 0}) + answers(1))
        stage.does(client >> put(b"x" * 70_000, length=10**6))
        assert stage.held("client")
        said = stage.does(passes(59.0), passes(2.0))
        assert str(said["client"][0]).startswith("b'HTTP/1.1 504 ")
        assert "3: reset 8" in said["a1"]

    def test_a_client_that_does_not_read_stops_nobody_else(self, wires: Wires) -> None:
        """Its stream's window stays shut, that of the connection does not."""
        stage = asked(wires, high=64)
        stage.does(client >> "stops reading", client2 >> get())
        stage.does(a1 >> answers(1, end=False) + data(1, b"x" * 30_000, end=False))
        said = stage.does(*(a1 >> data(1, b"x" * 10_000, end=False) for _ in range(3)))
        assert not said
        assert not stage.held("a1")
        assert list(stage.does(a1 >> answers(3))) == ["client2"]
        said = stage.does(client >> "reads")
        assert said["a1"] == ["window 1 125535"]
        assert sum(len(what) for what in said["client"]) > 60_000

    def test_more_than_a_window(self, wires: Wires) -> None:
        stage = asked(wires, high=64)
        stage.does(client >> "stops reading")
        stage.does(a1 >> answers(1, end=False) + data(1, b"x" * 65_535, end=False))
        said = stage.does(a1 >> data(1, b"x"))
        assert str(said["a1"][0]).startswith("goaway 0 3")

    def test_a_whole_response_is_not_lost_with_its_connection(self, wires: Wires) -> None:
        stage = asked(wires, high=64)
        stage.does(client >> "stops reading")
        stage.does(a1 >> answers(1, end=False) + data(1, b"x" * 1000, end=False))
        stage.does(a1 >> data(1, b"last"), a1 >> "ends")
        said = b"".join(stage.does(client >> "reads")["client"])
        assert said.endswith(b"4\r\nlast\r\n0\r\n\r\n")


class TestRetries:
    """RFC 9113 section 8.7."""

    def test_a_refused_stream_goes_to_another_endpoint(self, wires: Wires) -> None:
        stage = wires(http1="client", endpoints="ab")
        stage.does(client >> http("POST / HTTP/1.1", "Host: web", "Content-Length: 0"), a >> "accepts")
        stage.play(
            a1 >> BACK + frames.reset_frame(1, frames.REFUSED_STREAM),
            b << "dialled",
            b >> "accepts",
            b1 << f"1: POST / content-length=0 {FROM} end",
        )
        assert b" 200 " in stage.does(b1 >> BACK + answers(1))["client"][0]
        assert stage.plane.count(columns.RESENDS) == 1
        assert stage.plane.count(columns.UPSTREAM_RESET) == 0

    def test_streams_behind_the_last_of_a_goaway(self, wires: Wires) -> None:
        stage = wires()
        stage.does(client >> HELLO + asks(1, "PATCH") + asks(3, "PATCH"), a >> "accepts")
        stage.play(
            a1 >> BACK + frames.goaway_frame(1, 0),
            a << "dialled",
            a >> "accepts",
            a2 << f"1: PATCH / content-length=0 {FROM} end",
            a2 >> BACK + answers(1),
            client << "3: 200 content-length=0 end",
            a1 >> answers(1),
            a1 << "goaway 0 0",
            a1 << "end",
            client << "1: 200 content-length=0 end",
        )

    def test_it_is_refused_again_and_again(self, wires: Wires) -> None:
        stage = wires(http1="client")
        stage.does(client >> get(), a >> "accepts")
        for number in (1, 3):
            stage.does(a1 >> BACK + frames.reset_frame(number, frames.REFUSED_STREAM))
        said = stage.does(a1 >> frames.reset_frame(5, frames.REFUSED_STREAM))
        assert said["client"] == [Own(503, "upstream_refused")]
        assert stage.plane.count(columns.RESENDS) == 2

    def test_a_body_that_is_not_kept_is_not_sent_again(self, wires: Wires) -> None:
        stage = wires(http1="client", limits=Limits(replay_bytes=10), endpoints="ab")
        stage.does(client >> put(b"x" * 100, length=200), a >> "accepts")
        said = stage.does(a1 >> BACK + frames.reset_frame(1, frames.REFUSED_STREAM))
        assert said["client"] == [Own(503, "upstream_refused", closing=True), "end"]

    @pytest.mark.parametrize("code", [frames.CANCEL, frames.NO_ERROR, 2])
    def test_other_resets_may_have_been_processed(self, wires: Wires, code: int) -> None:
        stage = asked(wires, http("POST / HTTP/1.1", "Host: web"), f"1: POST / {FROM} end")
        assert stage.does(a1 >> frames.reset_frame(1, code))["client"] == [Own(502, "upstream_reset")]

    @pytest.mark.parametrize("code", [frames.CANCEL, frames.NO_ERROR, 2])
    def test_a_reset_is_a_verdict_on_any_request_of_a_connection(self, wires: Wires, code: int) -> None:
        """Other than the end of a connection that may have been idle; sent again is what a retry asks for."""
        stage = asked(wires)
        stage.does(a1 >> answers(1), client >> get())
        assert stage.does(a1 >> frames.reset_frame(3, code))["client"] == [Own(502, "upstream_reset")]
        assert stage.plane.count(columns.RESENDS) == 0
        assert stage.plane.count(columns.UPSTREAM_RESET) == 1

    def test_a_lost_connection_may_have_processed_posts(self, wires: Wires) -> None:
        stage = joined(wires)
        stage.does(a1 >> answers(1))
        stage.does(client >> asks(3, "POST") + asks(5, "GET"))
        said = stage.does(a1 >> "resets")
        assert str(said["client"][0]).startswith("3: 502 ")
        assert said["a"] == ["dialled"]
        assert stage.plane.count(columns.RESENDS) == 1

    def test_a_lost_connection_cuts_responses_off(self, wires: Wires) -> None:
        stage = joined(wires)
        stage.play(a1 >> answers(1, end=False), client << "1: 200")
        stage.play(a1 >> "resets", client << "1: reset 2")


class TestConnections:
    def test_those_that_wait_share_a_dial(self, wires: Wires) -> None:
        stage = wires(http1="client")
        stage.play(client >> get(), a << "dialled", client2 >> get(), client3 >> get())
        assert len(stage.does(a >> "accepts")["a1"]) == 3
        assert stage.plane.count(columns.UPSTREAM_CONNECTIONS) == 1

    def test_those_that_wait_share_a_refusal(self, wires: Wires) -> None:
        stage = wires(http1="client")
        stage.play(client >> get(), a << "dialled", client2 >> get())
        said = stage.does(a >> "refuses")
        assert said == {"client": [Own(503, "connect_failed")], "client2": [Own(503, "connect_failed")]}

    def test_more_streams_than_a_connection_takes(self, wires: Wires) -> None:
        stage = wires(limits=Limits(streams=2))
        stage.does(client >> HELLO + asks(1) + asks(3), a >> "accepts")
        stage.play(client2 >> HELLO + asks(1), a << "dialled")
        assert list(stage.does(a >> "accepts")) == ["a2"]

    def test_as_many_streams_as_the_endpoint_says(self, wires: Wires) -> None:
        stage = asked(wires, annotations={})
        stage.does(a1 >> frames.settings_frame({frames.MAX_CONCURRENT_STREAMS: 1}))
        stage.play(client2 >> get(), a << "dialled")
        said = stage.does(a1 >> answers(1))
        assert said["a1"] == ["3: GET / x-forwarded-for=10.1.2.4 end"]

    def test_streams_that_settings_allow_come_behind_their_acknowledgement(self, wires: Wires) -> None:
        """Before that the endpoint goes by its old settings. Nor do they come before its new windows."""
        stage = wires(http1="client", plain=True)
        stage.does(client >> get(), a >> "accepts", a1 >> BACK)
        stage.does(a1 >> frames.settings_frame({frames.MAX_CONCURRENT_STREAMS: 1}), client2 >> put(b"body"))
        allowed = {frames.MAX_CONCURRENT_STREAMS: 2, frames.INITIAL_WINDOW_SIZE: 0}
        stage.play(
            a1 >> frames.settings_frame(allowed),
            a1 << "ack",
            a1 << "3: PUT / content-length=4 x-forwarded-for=10.1.2.4",
        )

    def test_an_endpoint_that_takes_no_streams(self, wires: Wires) -> None:
        """It is not dialled for ever; requests that wait are refused in time."""
        stage = asked(wires)
        stage.does(a1 >> frames.settings_frame({frames.MAX_CONCURRENT_STREAMS: 0}) + answers(1))
        said = stage.does(client >> get(), passes(11.0))
        assert said == {"client": [Own(503, "pool_timeout")]}

    def test_who_waits_for_one_that_leaves(self, wires: Wires) -> None:
        """Another is made, beside that which still has streams."""
        stage = asked(wires, annotations={})
        stage.does(a1 >> frames.settings_frame({frames.MAX_CONCURRENT_STREAMS: 1}))
        stage.does(client2 >> get(), a >> "refuses")
        stage.play(a1 >> frames.goaway_frame(1, 0), a << "dialled")
        stage.play(a >> "accepts", a2 << GOT.replace("2.3", "2.4"))
        assert stage.plane.pools[0].open == 2

    def test_one_that_closes_is_in_nobody_s_way(self, wires: Wires) -> None:
        stage = asked(wires)
        stage.does(a1 >> answers(1))
        stage.play(a1 >> frames.goaway_frame(1, 0), a1 << "end", client >> get(), a << "dialled")

    def test_who_waits_and_leaves(self, wires: Wires) -> None:
        stage = wires(http1="client")
        stage.play(client >> get(), a << "dialled", client >> "resets", a >> "accepts")
        stage.play(passes(29.0))
        stage.play(passes(2.0), a1 << "goaway 0 0", a1 << "end")

    def test_idle(self, wires: Wires) -> None:
        stage = asked(wires)
        stage.does(a1 >> answers(1))
        stage.play(passes(29.0))
        stage.play(passes(2.0), a1 << "goaway 0 0", a1 << "end")

    def test_an_endpoint_that_is_removed(self, wires: Wires) -> None:
        """What is under way goes on."""
        stage = asked(wires, endpoints="a")
        stage.play(lambda: stage.plane.endpoints("b"))
        said = stage.does(a1 >> answers(1))
        assert said["a1"] == ["goaway 0 0", "end"]
        assert b" 200 " in said["client"][0]

    def test_is_it_still_there(self, wires: Wires) -> None:
        stage = asked(wires)
        stage.play(passes(29.0 + http2_client.QUIET), passes(2.0), a1 << "ping alive???")
        stage.play(a1 >> frames.ping_frame(b"alive???", ack=True), passes(100.0))
        assert b" 200 " in stage.does(a1 >> answers(1))["client"][0]

    def test_it_is_not(self, wires: Wires) -> None:
        stage = asked(wires)
        stage.play(passes(91.0), a1 << "ping alive???")
        said = stage.does(passes(http2_client.PING_TIME + 1))
        assert said["client"] == [Own(502, "upstream_reset")]


class TestFaults:
    def test_it_speaks_http1(self, wires: Wires) -> None:
        stage = wires(http1="client")
        stage.does(client >> get(), a >> "accepts")
        said = stage.does(a1 >> http("HTTP/1.1 400 Bad Request", "Content-Length: 0"))
        assert said["client"] == [Own(502, "upstream_protocol_error")]
        assert "does not speak HTTP/2 but HTTP/1" in str(stage.plane.watcher.ends[0].error)

    @pytest.mark.parametrize(
        "what",
        [
            answers(2),
            data(7, b""),
            frames.window_frame(9, 1),
            frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\x02"),
            frame(frames.HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\xff"),
        ],
    )
    def test_of_the_connection(self, wires: Wires, what: bytes) -> None:
        said = asked(wires).does(a1 >> what)
        assert said["client"] == [Own(502, "upstream_protocol_error")]
        assert str(said["a1"][0]).startswith("goaway 0 ")
        assert said["a1"][1] == "end"

    @pytest.mark.parametrize(
        "what",
        [
            head(1, ("x", "y")),
            data(1, b"x"),
            answers(1, 200, ("content-length", "3"), end=False) + data(1, b"xxxx", end=False),
            frames.window_frame(1, 0),
        ],
        ids=["no status", "no head", "too long", "no window"],
    )
    def test_of_a_stream(self, wires: Wires, what: bytes) -> None:
        stage = joined(wires)
        stage.does(client >> asks(3))
        said = stage.does(a1 >> what)
        assert any(str(heard).startswith("1: reset ") for heard in said["a1"])
        assert str(said["client"][0]).startswith(("1: 502", "1: 200"))
        stage.play(a1 >> answers(3), client << "3: 200 content-length=0 end")

    def test_a_flood(self, wires: Wires) -> None:
        said = asked(wires).does(
            a1 >> frames.ping_frame(b"12345678", ack=False) * (flood.MOST_CONTROLS + 100)
        )
        assert said["client"] == [Own(502, "upstream_protocol_error")]
        assert "goaway 0 11" in str(said["a1"][-2])
