"""WebSockets between HTTP/1 and HTTP/2, in every combination (RFC 6455, RFC 8441)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from middleware.contract import Handler, Reply, Request
from nodeagent.proxy.http2 import client as http2_client
from nodeagent.proxy.http2 import frames
from nodeagent.proxy.websocket import accept_of
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.exchange.http1 import HOST, Own, get, http, ok
from tests.exchange.script import a, a1, a2, b, b1, client, client2, passes
from tests.http2.wire import BACK, HELLO, Http2Stage, answers, asks, data, head

Wires = Callable[..., Http2Stage]
FROM = "x-forwarded-for=10.1.2.3"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""That of RFC 6455 section 1.3."""
VERSION = ("sec-websocket-version", "13")
TAKES = frames.settings_frame({frames.ENABLE_CONNECT_PROTOCOL: 1}) + frames.SETTINGS_ACK
"""What an endpoint says first that takes WebSockets."""
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
)
SWITCHED = ("HTTP/1.1 101 Switching Protocols", f"Sec-WebSocket-Accept: {ACCEPT}")
TO_CLIENT = http(*SWITCHED, "Connection: upgrade", "Upgrade: websocket")
ASKED = f"CONNECT / sec-websocket-version=13 {FROM}"


def connects(stream: int = 1, *fields: tuple[str, str], end: bool = False) -> bytes:
    """Ask for a WebSocket."""
    return asks(stream, "CONNECT", "/", (":protocol", "websocket"), *fields, end=end)


def test_the_accept_of_the_rfc() -> None:
    assert accept_of(KEY) == ACCEPT


class TestFromHttp2:
    """A client of HTTP/2, an endpoint of HTTP/1."""

    def asked(self, wires: Wires, **options: Any) -> tuple[Http2Stage, str]:
        """Have a WebSocket asked for; return the key that the endpoint got too."""
        stage = wires(http1="endpoint", **options)
        said = stage.does(client >> HELLO + connects(1, VERSION, ("origin", "http://web")), a >> "accepts")
        (request,) = said["a1"]
        lines = (
            *("GET / HTTP/1.1", HOST, "sec-websocket-version: 13", "origin: http://web"),
            *("X-Forwarded-For: 10.1.2.3", "Connection: upgrade", "Upgrade: websocket"),
        )
        assert request.startswith(http(*lines)[:-2])
        key = re.fullmatch(
            rb"Sec-WebSocket-Key: ([A-Za-z0-9+/]{22}==)\r\n\r\n", request[len(http(*lines)) - 2 :]
        )
        assert key is not None
        return stage, key[1].decode()

    def begun(self, wires: Wires, **options: Any) -> Http2Stage:
        stage, key = self.asked(wires, **options)
        stage.play(
            a1 >> self.switched(key, "Sec-WebSocket-Protocol: chat"),
            client << "1: 200 sec-websocket-protocol=chat",
        )
        return stage

    def switched(self, key: str, *fields: str) -> bytes:
        accept = f"Sec-WebSocket-Accept: {accept_of(key)}"
        return http(
            "HTTP/1.1 101 Switching Protocols", "Upgrade: WebSocket", "Connection: Upgrade", accept, *fields
        )

    def test_bytes_both_ways(self, wires: Wires) -> None:
        stage = self.begun(wires)
        stage.play(
            client >> data(1, b"ping", end=False),
            a1 << b"ping",
            a1 >> b"pong",
            client << '1: "pong"',
            client >> data(1, b"bye"),
            a1 << b"bye",
            a1 << "end",
            a1 >> b"late",
            client << '1: "late"',
            a1 >> "ends",
            client << '1: "" end',
        )
        assert stage.plane.count(columns.REQUESTS_1XX) == 1
        stage.play(client >> asks(3), a << "dialled")

    def test_the_endpoint_ends_first(self, wires: Wires) -> None:
        self.begun(wires).play(
            a1 >> "ends",
            client << '1: "" end',
            client >> data(1, b"late", end=False),
            a1 << b"late",
            client >> data(1, b""),
            a1 << "end",
        )

    def test_bytes_behind_the_head(self, wires: Wires) -> None:
        stage, key = self.asked(wires)
        stage.play(a1 >> self.switched(key) + b"hello", client << "1: 200", client << '1: "hello"')

    def test_what_comes_too_early_waits(self, wires: Wires) -> None:
        stage, key = self.asked(wires)
        stage.play(client >> data(1, b"early", end=False), client >> data(1, b"", end=True))
        stage.play(a1 >> self.switched(key), client << "1: 200", a1 << b"early", a1 << "end")

    def test_it_waits_within_the_window(self, wires: Wires) -> None:
        stage, _ = self.asked(wires)
        said = stage.does(*(client >> data(1, b"x" * 16_384, end=False) for _ in range(5)))
        assert re.match(r"goaway 1 3 ", str(said["client"][0]))

    def test_another_try_does_not_let_it_go(self, wires: Wires) -> None:
        """What a client says early is kept off from an endpoint that has not switched."""
        stage = wires(http1="endpoint")
        stage.does(client >> HELLO + asks(1), a >> "accepts", a1 >> ok())
        said = stage.does(client >> connects(3, VERSION) + data(3, b"early", end=False))
        stage.does(a1 >> "closes")
        said = stage.does(a >> "accepts")
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", b"".join(said["a2"]))
        assert key is not None
        stage.play(a2 >> self.switched(key[1].decode()), client << "3: 200", a2 << b"early")

    @pytest.mark.parametrize("status", ["403 Forbidden", "302 Found", "426 Upgrade Required"])
    def test_another_answer(self, wires: Wires, status: str) -> None:
        """It passes; the connection to the endpoint goes on, and nothing said early gets there."""
        stage, _ = self.asked(wires)
        stage.play(client >> data(1, b"early", end=False))
        stage.play(
            a1 >> http(f"HTTP/1.1 {status}", "Content-Length: 2", body=b"no"),
            client << f"1: {status[:3]} content-length=2",
            client << '1: "no" end',
            client << "1: reset 0",
            client >> asks(3),
            a1 << http("GET / HTTP/1.1", HOST, "X-Forwarded-For: 10.1.2.3"),
            a1 >> ok(),
            client << "3: 200 content-length=0 end",
        )

    def test_a_success_that_has_not_switched(self, wires: Wires) -> None:
        """The client would take it for the tunnel."""
        stage, _ = self.asked(wires)
        said = stage.does(a1 >> ok(b"hello"))
        assert str(said["client"][0]).startswith("1: 502 ")
        assert "answered 200" in str(said["client"][0])

    @pytest.mark.parametrize(
        "lines",
        [
            ["Upgrade: websocket"],
            ["Upgrade: websocket", f"Sec-WebSocket-Accept: {ACCEPT}"],
            ["Upgrade: echo"],
            [],
        ],
        ids=["no accept", "another key's", "another protocol", "nothing"],
    )
    def test_it_has_switched_to_something_else(self, wires: Wires, lines: list[str]) -> None:
        stage, key = self.asked(wires)
        if lines and lines[0].endswith("echo"):
            lines = [*lines, f"Sec-WebSocket-Accept: {accept_of(key)}"]
        said = stage.does(a1 >> http("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", *lines))
        assert str(said["client"][0]).startswith("1: 502 ")
        assert "upstream_protocol_error" in str(said["client"][0])
        assert said["a1"] == ["end"]

    def test_a_layer_that_answers_by_itself(self, wires: Wires) -> None:
        stage = wires(http1="endpoint", annotations={"svc.mesh/fault": "abort 503"})
        said = stage.does(client >> HELLO + connects())
        assert str(said["client"][0]).startswith("1: 503 ")
        assert said["client"][-1] == "1: reset 0"

    @pytest.mark.parametrize("fields", [(), (("content-type", "application/grpc"),)], ids=["plain", "gRPC"])
    def test_a_layer_that_answers_with_a_success(
        self, wires: Wires, fields: tuple[tuple[str, str], ...]
    ) -> None:
        """It is no tunnel, and does not look like one."""

        def answering(_handler: Handler) -> Handler:
            async def handle(_request: Request) -> Reply:
                return Reply(200, body=b"hello")

            return handle

        stage = wires(http1="endpoint", layers=[("rule", answering)])
        said = stage.does(client >> HELLO + connects(1, *fields))
        assert str(said["client"][0]).startswith("1: 502 ")

    def test_no_endpoint(self, wires: Wires) -> None:
        stage = wires(http1="endpoint", endpoints="")
        said = stage.does(client >> HELLO + connects())
        assert str(said["client"][0]).startswith("1: 503 ")

    def test_the_client_gives_up(self, wires: Wires) -> None:
        self.begun(wires).play(client >> frames.reset_frame(1, 8), a1 << "reset")

    def test_the_client_gives_up_early(self, wires: Wires) -> None:
        stage, _ = self.asked(wires)
        stage.play(client >> frames.reset_frame(1, 8), a1 << "end")

    def test_the_endpoint_breaks_it_off(self, wires: Wires) -> None:
        stage = self.begun(wires)
        stage.play(a1 >> "resets", client << "1: reset 8", client >> asks(3), a << "dialled")

    def test_no_trailers(self, wires: Wires) -> None:
        self.begun(wires).play(client >> head(1, ("x", "y")), a1 << "reset", client << "1: reset 1")

    def test_backpressure_both_ways(self, wires: Wires) -> None:
        stage = self.begun(wires, high=1024)
        stage.play(a1 >> "stops reading", client >> data(1, b"x" * 2000, end=False))
        said = stage.does(*(client >> data(1, b"y" * 10_000, end=False) for _ in range(5)))
        assert said == {}  # no window is opened for a stream that nobody reads
        said = stage.does(a1 >> "reads")
        assert len(b"".join(said["a1"])) == 52_000
        assert any(str(one).startswith("window 1 ") for one in said["client"])
        said = stage.does(*(a1 >> b"z" * 30_000 for _ in range(5)))
        assert stage.held("a1")
        said = stage.does(client >> frames.window_frame(0, 200_000) + frames.window_frame(1, 200_000))
        assert not stage.held("a1")
        assert said["client"]

    def test_both_ends_pass_what_waits(self, wires: Wires) -> None:
        stage = self.begun(wires)
        stage.does(a1 >> b"z" * 70_000, a1 >> "ends")
        stage.play(client >> data(1, b"bye"), a1 << b"bye", a1 << "end")
        said = stage.does(client >> frames.window_frame(0, 70_000) + frames.window_frame(1, 70_000))
        assert said["client"][-1] == '1: "4465 bytes" end'

    def test_an_endpoint_that_does_not_answer(self, wires: Wires) -> None:
        stage, _ = self.asked(wires)
        stage.play(passes(299.0))
        assert str(stage.does(passes(2.0))["client"][0]).startswith("1: 504 ")

    def test_no_time_is_too_long(self, wires: Wires) -> None:
        self.begun(wires).play(passes(3000.0), a1 >> b"still there", client << '1: "still there"')

    def test_it_is_idle_for_too_long(self, wires: Wires) -> None:
        stage = self.begun(wires, annotations={"svc.mesh/idle-timeout": "10s"})
        stage.play(passes(9.0), client >> data(1, b"x", end=False), a1 << b"x", passes(9.0))
        stage.play(a1 >> b"y", client << '1: "y"', passes(9.0))
        stage.play(passes(2.0), a1 << "reset", client << "1: reset 8")

    def test_a_client_that_does_not_read(self, wires: Wires) -> None:
        stage = self.begun(wires)
        stage.does(*(a1 >> b"z" * 70_000 for _ in range(3)))
        stage.play(passes(59.0))
        said = stage.does(passes(62.0))
        assert said == {"a1": ["reset"], "client": ["1: reset 8"]}

    def test_it_outlives_the_service(self, wires: Wires) -> None:
        stage = self.begun(wires)
        stage.plane.runtime.draining = True
        stage.does(passes(1.0), passes(1.0))
        stage.play(a1 >> b"more", client << '1: "more"')
        stage.play(client >> data(1, b""), a1 << "end", a1 >> "ends", client << '1: "" end', client << "end")


class TestToHttp2:
    """A client of HTTP/1, an endpoint of HTTP/2."""

    def asked(self, wires: Wires, **options: Any) -> Http2Stage:
        """Have a connection made for a WebSocket."""
        stage = wires(http1="client", **options)
        stage.play(client >> get("/", *UPGRADE), a << "dialled", a >> "accepts")
        return stage

    def begun(self, wires: Wires, **options: Any) -> Http2Stage:
        stage = self.asked(wires, **options)
        stage.play(a1 >> TAKES, a1 << f"1: {ASKED}")
        stage.play(a1 >> answers(1, 200, end=False), client << TO_CLIENT)
        return stage

    def test_bytes_both_ways(self, wires: Wires) -> None:
        stage = self.begun(wires)
        stage.play(
            client >> b"ping",
            a1 << '1: "ping"',
            a1 >> data(1, b"pong", end=False),
            client << b"pong",
            client >> "ends",
            a1 << '1: "" end',
            a1 >> data(1, b"late", end=False),
            client << b"late",
            a1 >> data(1, b""),
            client << "end",
        )
        assert stage.plane.count(columns.REQUESTS_1XX) == 1

    def test_the_endpoint_ends_first(self, wires: Wires) -> None:
        self.begun(wires).play(
            a1 >> data(1, b"bye"),
            client << b"bye",
            client << "end",
            client >> b"late",
            a1 << '1: "late"',
            client >> "ends",
            a1 << '1: "" end',
        )

    def test_the_endpoint_ends_with_its_head(self, wires: Wires) -> None:
        stage = self.asked(wires)
        stage.play(
            a1 >> TAKES,
            a1 << f"1: {ASKED}",
            a1 >> answers(1, 200, ("sec-websocket-protocol", "chat")),
            client
            << http(
                SWITCHED[0],
                "sec-websocket-protocol: chat",
                SWITCHED[1],
                "Connection: upgrade",
                "Upgrade: websocket",
            ),
            client << "end",
            client >> "ends",
            a1 << '1: "" end',
        )

    def test_bytes_ahead(self, wires: Wires) -> None:
        stage = self.asked(wires)
        stage.play(client >> b"early", a1 >> TAKES, a1 << f"1: {ASKED}")
        stage.play(a1 >> answers(1, 200, end=False), client << TO_CLIENT, a1 << '1: "early"')

    def test_others_share_the_connection(self, wires: Wires) -> None:
        stage = self.begun(wires)
        stage.play(client2 >> get("/2"), a1 << "3: GET /2 x-forwarded-for=10.1.2.4 end")

    def test_a_second_one_is_asked_for_at_once(self, wires: Wires) -> None:
        stage = self.begun(wires)
        stage.play(client2 >> get("/", *UPGRADE), a1 << f"3: {ASKED[:-1]}4")

    def test_another_answer(self, wires: Wires) -> None:
        stage = self.asked(wires)
        stage.play(
            a1 >> TAKES,
            a1 << f"1: {ASKED}",
            a1 >> answers(1, 403, ("content-length", "2"), end=False),
            client << http("HTTP/1.1 403 Forbidden", "content-length: 2"),
            a1 << '1: "" end',
            a1 >> data(1, b"no"),
            client << b"no",
        )
        stage.play(client >> get("/2"), a1 << f"3: GET /2 {FROM} end")

    @pytest.mark.parametrize("first", [BACK, frames.settings_frame({frames.ENABLE_CONNECT_PROTOCOL: 0})])
    def test_the_endpoint_takes_none(self, wires: Wires, first: bytes) -> None:
        """It is asked nothing; the client learns why."""
        stage = self.asked(wires)
        stage.play(a1 >> first, client << Own(502, "no_websockets"))
        stage.play(client >> get("/", *UPGRADE), client << Own(502, "no_websockets"))
        stage.play(client >> get(), a1 << f"1: GET / {FROM} end")

    def test_layers_hear_of_it(self, wires: Wires) -> None:
        """Nothing was sent: another endpoint may be asked, which takes them."""
        stage = wires(http1="client", endpoints="ab", annotations={"svc.mesh/retry-attempts": "1"})
        stage.play(client >> get("/", *UPGRADE), a << "dialled", a >> "accepts")
        stage.play(a1 >> BACK, b << "dialled", b >> "accepts", b1 >> TAKES, b1 << f"1: {ASKED}")
        stage.play(b1 >> answers(1, 200, end=False), client << TO_CLIENT)

    def test_layers_hear_of_it_on_a_connection_that_is_known(self, wires: Wires) -> None:
        stage = wires(http1="client", annotations={"svc.mesh/retry-attempts": "1"})
        stage.does(client >> get(), a >> "accepts", a1 >> BACK + answers(1))
        stage.play(client >> get("/", *UPGRADE), client << Own(502, "no_websockets"))

    def test_an_endpoint_that_does_not_say_in_time(self, wires: Wires) -> None:
        stage = self.asked(wires)
        stage.play(passes(2.0))
        stage.play(passes(2.0), client << Own(502, "no_websockets"))

    def test_the_client_leaves_before_it_is_known(self, wires: Wires) -> None:
        stage = self.asked(wires)
        stage.play(client >> "resets", a1 >> TAKES)
        stage.play(client2 >> get(), a1 << "1: GET / x-forwarded-for=10.1.2.4 end")

    def test_the_endpoint_leaves_before_it_is_known(self, wires: Wires) -> None:
        stage = self.asked(wires)
        stage.play(a1 >> frames.settings_frame({})[:3], a1 >> "closes", a << "dialled", a >> "accepts")
        stage.play(a2 >> TAKES, a2 << f"1: {ASKED}")

    def test_no_room_when_it_is_known(self, wires: Wires) -> None:
        """Both came before the endpoint had said that it takes one stream at a time."""
        stage = self.asked(wires)
        stage.play(client2 >> get("/", *UPGRADE))
        one = frames.settings_frame({frames.ENABLE_CONNECT_PROTOCOL: 1, frames.MAX_CONCURRENT_STREAMS: 1})
        said = stage.does(a1 >> one)
        assert said["a1"] == [f"1: {ASKED}"]
        assert said["a"] == ["dialled"]

    @pytest.mark.parametrize(
        "fields",
        [
            UPGRADE[:2],
            ("Connection: Upgrade", "Upgrade: echo", UPGRADE[2]),
            (UPGRADE[1], UPGRADE[2]),
        ],
        ids=["no key", "another protocol", "not this hop's"],
    )
    def test_what_is_none_is_a_plain_request(self, wires: Wires, fields: tuple[str, ...]) -> None:
        stage = wires(http1="client")
        said = stage.does(client >> get("/", *fields), a >> "accepts")
        assert str(said["a1"][0]).startswith("1: GET / ")

    def test_a_length_of_nothing(self, wires: Wires) -> None:
        stage = wires(http1="client")
        stage.play(client >> get("/", *UPGRADE, "Content-Length: 0"), a << "dialled", a >> "accepts")
        stage.play(a1 >> TAKES, a1 << f"1: {ASKED}")

    @pytest.mark.parametrize("word", ["resets", "closes"])
    def test_the_client_leaves(self, wires: Wires, word: str) -> None:
        found_out = (a1 << '1: "" end', a1 >> data(1, b"x", end=False), a1 >> data(1, b"y", end=False))
        self.begun(wires).play(client >> word, *(found_out if word == "closes" else ()), a1 << "1: reset 8")

    def test_the_endpoint_breaks_it_off(self, wires: Wires) -> None:
        self.begun(wires).play(a1 >> frames.reset_frame(1, 8), client << "reset")

    def test_the_endpoint_breaks_it_off_after_its_end(self, wires: Wires) -> None:
        self.begun(wires).play(
            a1 >> data(1, b""), client << "end", a1 >> frames.reset_frame(1, 8), client << "reset"
        )

    def test_the_endpoint_wants_no_more(self, wires: Wires) -> None:
        """It has said all, and reads no further: what it has said still arrives."""
        stage = self.begun(wires)
        stage.does(client >> "stops reading", a1 >> data(1, b"x" * 70_000, end=False))
        stage.play(a1 >> data(1, b"bye") + frames.reset_frame(1, 0), client >> b"ignored")
        said = stage.does(client >> "reads")
        assert b"".join(one for one in said["client"] if isinstance(one, bytes)).endswith(b"xbye")
        stage.play(client >> "ends")

    def test_the_endpoint_is_gone(self, wires: Wires) -> None:
        self.begun(wires).play(a1 >> "resets", client << "reset")

    def test_the_endpoint_is_gone_after_its_end(self, wires: Wires) -> None:
        stage = self.begun(wires)
        stage.does(client >> "stops reading", a1 >> data(1, b"x" * 70_000, end=False))
        stage.play(a1 >> data(1, b"bye"))
        assert stage.does(a1 >> "resets")["client"][-1] == "reset"

    def test_the_endpoint_leaves_gently(self, wires: Wires) -> None:
        stage = self.begun(wires)
        stage.play(a1 >> frames.goaway_frame(1, 0), a1 >> data(1, b"still", end=False), client << b"still")

    def test_no_trailers(self, wires: Wires) -> None:
        self.begun(wires).play(a1 >> head(1, ("x", "y")), a1 << "1: reset 1", client << "reset")

    def test_backpressure_both_ways(self, wires: Wires) -> None:
        stage = self.begun(wires, high=1024)
        said = stage.does(*(client >> b"y" * 50_000 for _ in range(3)))
        assert stage.held("client")
        assert sum(int(str(one).split()[1].strip('"')) for one in said["a1"]) == frames.DEFAULT_WINDOW
        stage.does(a1 >> frames.window_frame(0, 200_000) + frames.window_frame(1, 200_000))
        assert not stage.held("client")
        stage.play(client >> "stops reading", a1 >> data(1, b"x" * 2000, end=False))
        said = stage.does(*(a1 >> data(1, b"x" * 10_000, end=False) for _ in range(5)))
        assert said == {}  # no window is opened for a stream that nobody reads
        said = stage.does(client >> "reads")
        assert len(b"".join(said["client"])) == 52_000
        assert any(str(one).startswith("window 1 ") for one in said["a1"])

    def test_the_last_bytes_are_sent_to_a_slow_endpoint(self, wires: Wires) -> None:
        stage = self.begun(wires)
        stage.does(client >> b"y" * 70_000, client >> "ends")
        stage.play(a1 >> data(1, b""), client << "end")
        said = stage.does(a1 >> frames.window_frame(0, 70_000) + frames.window_frame(1, 70_000))
        assert said["a1"] == ['1: "4465 bytes" end']
        stage.play(client2 >> get(), a1 << "3: GET / x-forwarded-for=10.1.2.4 end")

    @pytest.mark.parametrize("ending", [None, frames.reset_frame(1, 0), frames.reset_frame(1, 8)])
    def test_they_do_not_wait_for_ever(self, wires: Wires, ending: bytes | None) -> None:
        stage = self.begun(wires)
        stage.does(client >> b"y" * 70_000, client >> "ends")
        stage.play(a1 >> data(1, b""), client << "end")
        assert stage.connection("a1").busy == 1
        if ending is None:
            stage.play(passes(http2_client.LINGER_TIME - 2))
            stage.play(passes(3.0), a1 << "1: reset 8")
        else:
            stage.play(a1 >> ending)
        assert stage.connection("a1").busy == 0

    def test_it_is_idle_for_too_long(self, wires: Wires) -> None:
        stage = self.begun(wires, annotations={"svc.mesh/idle-timeout": "10s"})
        stage.play(passes(9.0), client >> b"x", a1 << '1: "x"', passes(9.0))
        stage.play(passes(2.0), a1 << "1: reset 8", client << "reset")

    def test_settings_that_are_none(self, wires: Wires) -> None:
        said = self.asked(wires).does(a1 >> frames.settings_frame({frames.ENABLE_CONNECT_PROTOCOL: 2}))
        assert re.match(r"goaway 0 1 ", str(said["a1"][0]))


class TestBothHttp2:
    def test_bytes_both_ways(self, wires: Wires) -> None:
        stage = wires()
        stage.play(client >> HELLO + connects(1, VERSION), a << "dialled", a >> "accepts")
        stage.play(
            a1 >> TAKES,
            a1 << f"1: {ASKED}",
            client >> data(1, b"early", end=False),
            a1 >> answers(1, 200, ("sec-websocket-protocol", "chat"), end=False),
            client << "1: 200 sec-websocket-protocol=chat",
            a1 << '1: "early"',
            a1 >> data(1, b"pong", end=False),
            client << '1: "pong"',
            client >> data(1, b"bye"),
            a1 << '1: "bye" end',
            a1 >> data(1, b""),
            client << '1: "" end',
            client >> asks(3),
            a1 << f"3: GET / {FROM} end",
        )

    def test_the_endpoint_takes_none(self, wires: Wires) -> None:
        stage = wires()
        stage.play(client >> HELLO + connects(1, VERSION), a << "dialled", a >> "accepts")
        said = stage.does(a1 >> BACK)
        assert str(said["client"][0]).startswith("1: 502 proxy-status=svc.mesh; error=http_upgrade_failed; ")
        assert "no_websockets" in str(said["client"][0])
        assert "a1" not in said

    def test_breaks_pass(self, wires: Wires) -> None:
        stage = wires()
        stage.does(client >> HELLO + connects(1) + connects(3), a >> "accepts", a1 >> TAKES)
        stage.does(a1 >> answers(1, end=False) + answers(3, end=False))
        stage.play(client >> frames.reset_frame(1, 8), a1 << "1: reset 8")
        stage.play(a1 >> frames.reset_frame(3, 8), client << "3: reset 8")


def test_a_limit_on_fields_is_that_of_any_request(wires: Wires) -> None:
    stage = wires(http1="endpoint", limits=Limits(head_fields=4))
    said = stage.does(client >> HELLO + connects(1, *[("x", "y")] * 5))
    assert str(said["client"][0]).startswith("1: 431 ")
