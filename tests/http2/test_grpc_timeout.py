"""`grpc-timeout`: read, told to endpoints, and kept."""

from __future__ import annotations

import re
from collections.abc import Callable

import hpack
import pytest
from hypothesis import given, strategies

from middleware.contract import GatewayTimeout, Handler, Request, Response
from nodeagent.proxy.errors import CallerDeadline
from nodeagent.proxy.http2 import frames
from nodeagent.proxy.http2.grpc_timeout import (
    LEAST,
    SECOND,
    parse_timeout,
    render_timeout,
    rounded,
    with_time_left,
)
from nodeagent.proxy.http2.headers import HeaderDecoder, Shared
from nodeagent.proxy.message import RequestHead, TimedRequestHead
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.exchange.http1 import http, ok
from tests.exchange.layers import layer
from tests.exchange.script import a, a1, b, b1, client, passes
from tests.http2.blocks import FieldList, encode, plain, request_of
from tests.http2.wire import BACK, HELLO, Http2Stage, answers, asks, data

Wires = Callable[..., Http2Stage]
GRPC = (b"content-type", b"application/grpc+proto")
TYPE = ("content-type", "application/grpc")
MILLISECOND = SECOND // 1000
FROM = "x-forwarded-for=10.1.2.3"


def got(stream: int, timeout: str) -> str:
    """What an endpoint gets of `call`."""
    fields = f"content-type=application/grpc grpc-timeout={timeout} content-length=0 {FROM}"
    return f"{stream}: POST /a.B/C {fields} end"


def call(stream: int, timeout: str, *fields: tuple[str, str], end: bool = True) -> bytes:
    return asks(stream, "POST", "/a.B/C", TYPE, ("grpc-timeout", timeout), *fields, end=end)


def sent(wires: Wires, timeout: str, told: str, **options: object) -> Http2Stage:
    """Have a call reach a first connection to `a`."""
    stage = wires(**options)
    stage.play(client >> HELLO + call(1, timeout), a << "dialled", a >> "accepts", a1 << got(1, told))
    stage.play(a1 >> BACK)
    return stage


class Status:
    """A head that is also the end, with a status of gRPC and these words somewhere in its message."""

    def __init__(self, stream: int, status: int, words: str, trailers: bool = False) -> None:
        kind = "trailers proxy-status=.*" if trailers else "200 .*content-type=application/grpc"
        self._pattern = re.compile(f"{stream}: {kind} grpc-status={status} grpc-message=.*{words}.* end")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self._pattern.fullmatch(other) is not None

    def __repr__(self) -> str:
        return self._pattern.pattern

    __hash__ = None  # type: ignore[assignment]


EXCEEDED = Status(1, 4, "grpc_timeout")


class TestValue:
    @pytest.mark.parametrize(
        ("value", "nanoseconds"),
        [
            (b"1n", 1),
            (b"20u", 20_000),
            (b"300m", 300 * MILLISECOND),
            (b"4S", 4 * SECOND),
            (b"5M", 300 * SECOND),
            (b"6H", 6 * 3600 * SECOND),
            (b"99999999H", 99_999_999 * 3600 * SECOND),
            (b"00000001S", SECOND),
        ],
    )
    def test_is_a_time(self, value: bytes, nanoseconds: int) -> None:
        assert parse_timeout(value) == nanoseconds

    @pytest.mark.parametrize(
        "value",
        [b"", b"1", b"S", b"0S", b"00000000m", b"123456789S", b"-1S", b"+1S", b"1.5S", b"1 S", b"1s", b"1SS"],
    )
    def test_is_none(self, value: bytes) -> None:
        assert parse_timeout(value) == 0

    @given(strategies.integers(1, 99_999_999), strategies.sampled_from("HMSmun"))
    def test_is_rendered_as_it_was_read(self, count: int, unit: str) -> None:
        time = parse_timeout(b"%d%b" % (count, unit.encode()))
        assert parse_timeout(render_timeout(time)) == time

    @given(strategies.integers(1, 99_999_999 * 3600 * SECOND))
    def test_is_rounded_up_by_less_than_a_hundredth(self, time: int) -> None:
        assert time <= rounded(time) <= time + time // 100
        assert parse_timeout(render_timeout(rounded(time))) >= time

    @pytest.mark.parametrize(
        ("left", "told"),
        [
            (5 * SECOND, b"5S"),
            (5 * SECOND - 1, b"5S"),
            (4_991_234_567, b"5S"),
            (4_987_654_321, b"4990m"),
            (49_712_345, b"49800u"),
            (LEAST, b"1m"),
            (1, b"1m"),
            (-SECOND, b"1m"),
        ],
    )
    def test_what_is_left_is_told(self, left: int, told: bytes) -> None:
        fields = b"Host: a\r\ngrpc-timeout: 5S\r\nx-grpc-timeout: 5S\r\n"
        wanted = b"Host: a\r\ngrpc-timeout: %b\r\nx-grpc-timeout: 5S\r\n" % told
        assert with_time_left(fields, 5 * SECOND, left) == wanted

    def test_it_is_never_more_than_the_caller_s(self) -> None:
        fields = b"Host: a\r\ngrpc-timeout: 500u\r\n"
        assert with_time_left(fields, 500_000, 499_000) is fields

    def test_a_field_that_nobody_may_index_stays_one(self) -> None:
        assert with_time_left(b"grpc-timeout:5S\r\n", 5 * SECOND, SECOND) == b"grpc-timeout:1S\r\n"

    def test_a_layer_may_take_the_field_away(self) -> None:
        assert with_time_left(b"Host: a\r\n", 5 * SECOND, SECOND) == b"Host: a\r\n"


def timeout_of(head: RequestHead) -> int | None:
    return head.timeout if isinstance(head, TimedRequestHead) else None


class TestHead:
    @pytest.mark.parametrize(
        ("fields", "timeout"),
        [
            ([GRPC, (b"grpc-timeout", b"5S")], 5 * SECOND),
            ([(b"grpc-timeout", b"5S"), (b"content-type", b"application/grpc")], 5 * SECOND),
            ([(b"content-type", b"application/grpc;x"), (b"grpc-timeout", b"5S")], 5 * SECOND),
            ([GRPC], None),
            ([GRPC, (b"grpc-timeout", b"soon")], None),
            ([GRPC, (b"grpc-timeout", b"0S")], None),
            ([GRPC, (b"grpc-timeout", b"5S"), (b"grpc-timeout", b"4S")], None),
            ([(b"grpc-timeout", b"5S")], None),
            ([(b"content-type", b"application/grpc-web"), (b"grpc-timeout", b"5S")], None),
            ([(b"content-type", b"application/json"), (b"grpc-timeout", b"5S")], None),
        ],
    )
    def test_who_gives_a_time(self, fields: FieldList, timeout: int | None) -> None:
        """Read cold and remembered, with the table and without; the field itself always goes on."""
        whole = request_of(b"POST", b"/a.B/C", *fields)
        encoder, shared = hpack.Encoder(), Shared()
        for block in (plain(whole), encode(whole)):
            for _ in range(4):
                head = HeaderDecoder(Limits(), 4096, shared).request(block, False)
                assert timeout_of(head) == timeout
                assert all(b"%b: %b\r\n" % field in head.fields for field in fields)
        headers = HeaderDecoder(Limits(), 4096, shared)
        for path in (b"/a.B/C", b"/a.B/D", b"/a.B/E", b"/a.B/C", b"/a.B/E"):
            block = encode(request_of(b"POST", path, *fields), encoder)
            head = headers.request(block, False)
            assert (timeout_of(head), head.target) == (timeout, path)

    def test_what_is_remembered_without_its_path(self) -> None:
        shared = Shared()
        for number in range(6):
            path = b"/a.B/%d" % number
            fields = plain([(b":authority", b"a"), GRPC, (b"grpc-timeout", b"5S")])
            block = b"\x83\x86\x04" + bytes((len(path),)) + path + fields
            head = HeaderDecoder(Limits(), 4096, shared).request(block, False)
            assert (timeout_of(head), head.target) == (5 * SECOND, path)
        assert shared.pathless.young


class TestTold:
    def test_what_goes_on_at_once_is_what_came(self, wires: Wires) -> None:
        sent(wires, "5S", "5S").play(a1 >> answers(1), client << "1: 200 content-length=0 end")

    def test_the_time_that_connecting_took(self, wires: Wires) -> None:
        stage = wires()
        stage.play(client >> HELLO + call(1, "5S"), a << "dialled", passes(2.0))
        stage.play(
            a >> "accepts",
            a1 << got(1, "3S"),
            a1 >> BACK,
            a1 >> answers(1),
            client << "1: 200 content-length=0 end",
        )

    def test_each_try_is_told_what_is_left(self, wires: Wires) -> None:
        """The first endpoint says after a second that it has done nothing."""
        stage = sent(wires, "5S", "5S", endpoints="ab")
        refused = frames.reset_frame(1, frames.REFUSED_STREAM)
        stage.play(passes(1.0), a1 >> refused, b << "dialled", b >> "accepts", b1 << got(1, "4S"))
        stage.play(b1 >> BACK, b1 >> answers(1), client << "1: 200 content-length=0 end")

    def test_the_owner_s_limit_if_it_is_less(self, wires: Wires) -> None:
        sent(wires, "5S", "3S", annotations={"svc.mesh/timeout": "3s"}).play(
            a1 >> answers(1), client << "1: 200 content-length=0 end"
        )

    def test_the_caller_s_if_that_is_less(self, wires: Wires) -> None:
        sent(wires, "5S", "5S", annotations={"svc.mesh/timeout": "8s"}).play(
            a1 >> answers(1), client << "1: 200 content-length=0 end"
        )

    def test_the_limit_of_a_try_is_not_told(self, wires: Wires) -> None:
        """It ends with the response's head, and a stream may go on for long."""
        stage = sent(wires, "50S", "50S", annotations={"svc.mesh/per-try-timeout": "1s"})
        stage.play(a1 >> answers(1, end=False), client << "1: 200", passes(20.0))
        stage.play(a1 >> data(1, b"x"), client << '1: "x" end')

    def test_a_limit_that_a_layer_took_back_is_not_told(self, wires: Wires) -> None:
        class Over(GatewayTimeout):
            final = True

        async def hesitate(request: Request, handler: Handler) -> Response:
            request.within(1.0, lambda: Over("over")).cancel()
            return await handler(request)

        sent(wires, "5S", "5S", layers=[("rule", layer(hesitate))]).play(
            a1 >> answers(1), client << "1: 200 content-length=0 end"
        )

    def test_an_endpoint_of_http1(self, wires: Wires) -> None:
        stage = wires(http1="endpoint")
        stage.play(client >> HELLO + call(1, "5S"), a << "dialled", passes(1.0))
        lines = ("Host: web", "content-type: application/grpc", "grpc-timeout: 4S", "content-length: 0")
        stage.play(a >> "accepts", a1 << http("POST /a.B/C HTTP/1.1", *lines, "X-Forwarded-For: 10.1.2.3"))
        stage.play(a1 >> ok(), client << "1: 200 content-length=0 end")

    @pytest.mark.parametrize("timeout", ["soon", "0S", "1s", "123456789m"])
    def test_what_is_no_time_goes_on_as_it_is(self, wires: Wires, timeout: str) -> None:
        """The mesh knows of no deadline then, and the server says what it thinks of it."""
        stage = sent(wires, timeout, timeout, annotations={"svc.mesh/timeout": "30s"})
        stage.play(passes(20.0), a1 >> answers(1), client << "1: 200 content-length=0 end")


class TestKept:
    def test_no_answer(self, wires: Wires) -> None:
        stage = sent(wires, "2S", "2S")
        stage.play(passes(1.9), passes(0.2), a1 << "1: reset 8", client << EXCEEDED)
        (ended,) = stage.plane.watcher.ends
        assert isinstance(ended.error, CallerDeadline)
        assert stage.plane.count(columns.UPSTREAM_TIMEOUT) == 0
        assert stage.plane.count(columns.MESH_RESPONSES) == 1

    def test_the_endpoint_is_not_blamed(self, wires: Wires) -> None:
        """A caller that sets a short deadline must not take endpoints away from others."""
        stage = sent(wires, "1S", "1S")
        for stream in (3, 5, 7):
            stage.does(client >> call(stream, "1m"), passes(0.1))
        stage.does(passes(1.0))
        listener = stage.plane.listener
        assert listener.rule is not None
        assert listener.rule.backend is not None
        assert not listener.rule.backend.health.troubles

    def test_no_connection(self, wires: Wires) -> None:
        stage = wires()
        stage.play(client >> HELLO + call(1, "1S"), a << "dialled", passes(1.1), client << EXCEEDED)

    def test_longer_than_answers_usually_may_take(self, wires: Wires) -> None:
        """The caller has said how long it may take."""
        stage = sent(wires, "100S", "100S", limits=Limits(response_time=30.0))
        stage.play(passes(50.0), a1 >> answers(1), client << "1: 200 content-length=0 end")

    def test_within_the_response(self, wires: Wires) -> None:
        stage = sent(wires, "2S", "2S")
        stage.play(
            a1 >> answers(1, end=False) + data(1, b"one", end=False), client << "1: 200", client << '1: "one"'
        )
        stage.play(passes(2.1), a1 << "1: reset 8", client << Status(1, 4, "grpc_timeout", trailers=True))
        assert not stage.connection("client").busy

    def test_within_a_response_that_is_not_read(self, wires: Wires) -> None:
        """The status comes after what waits."""
        stage = sent(wires, "2S", "2S")
        body = data(1, b"x" * 40_000, end=False) * 2
        stage.does(a1 >> answers(1, end=False) + body, passes(2.1))
        said = stage.does(client >> frames.window_frame(1, 100_000) + frames.window_frame(0, 100_000))
        assert said["client"][-1] == Status(1, 4, "grpc_timeout", trailers=True)

    def test_the_owner_s_limit_within_the_response(self, wires: Wires) -> None:
        stage = sent(wires, "9S", "2S", annotations={"svc.mesh/timeout": "2s"})
        told = Status(1, 4, "request_timeout", trailers=True)
        stage.play(a1 >> answers(1, end=False), client << "1: 200")
        stage.play(passes(2.1), a1 << "1: reset 8", client << told)

    def test_others_are_broken_off(self, wires: Wires) -> None:
        stage = wires(annotations={"svc.mesh/timeout": "2s"})
        stage.play(client >> HELLO + asks(1), a << "dialled", a >> "accepts", a1 << f"1: GET / {FROM} end")
        stage.play(a1 >> BACK, a1 >> answers(1, end=False), client << "1: 200")
        stage.play(passes(2.1), a1 << "1: reset 8", client << "1: reset 2")

    def test_a_body_that_has_not_all_come(self, wires: Wires) -> None:
        stage = wires()
        begun = f"1: POST /a.B/C content-type=application/grpc grpc-timeout=2S {FROM}"
        stage.play(client >> HELLO + call(1, "2S", end=False), a << "dialled", a >> "accepts", a1 << begun)
        stage.play(a1 >> BACK)
        stage.play(passes(2.1), a1 << "1: reset 8", client << EXCEEDED, client << "1: reset 0")

    def test_over_all_tries(self, wires: Wires) -> None:
        """A layer that tries again hears of it where it stands, and nothing is sent any more."""
        tries = []

        async def stubborn(request: Request, handler: Handler) -> Response:
            while True:
                tries.append(request)
                try:
                    return await handler(request)
                except GatewayTimeout as error:
                    if len(tries) > 3:
                        raise error from None

        stage = sent(wires, "2S", "2S", layers=[("rule", layer(stubborn))])
        stage.play(passes(2.1), a1 << "1: reset 8", client << EXCEEDED)
        assert len(tries) == 4

    def test_it_is_forgotten_with_the_exchange(self, wires: Wires) -> None:
        stage = sent(wires, "5S", "5S")
        stage.play(a1 >> answers(1), client << "1: 200 content-length=0 end")
        assert not any(stage.plane.runtime.deadlines._buckets.values())
