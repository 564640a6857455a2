"""Layers around an exchange between two streams: what they may do, and when its two sides hear of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from middleware.contract import (
    Ended,
    ExchangeError,
    GatewayTimeout,
    Handler,
    Reply,
    Request,
    Response,
)
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.exchange.layers import Gate, layer
from tests.exchange.script import a, a1, a2, b, b1, client, client2, d, d1, passes
from tests.exchange.streams import StreamStage

Streams = Callable[..., StreamStage]
RETRY = {"svc.mesh/retry-attempts": "2", "svc.mesh/retry-on": "5xx"}


class TooLong(GatewayTimeout):
    reason = "too_long"


class OverForGood(TooLong):
    reason = "over_for_good"
    final = True


class TestWaiting:
    """A layer that waits, before or after its endpoint has answered."""

    async def before(self, request: Request, handler: Handler) -> Response:
        await self.gate()
        return await handler(request)

    async def after(self, request: Request, handler: Handler) -> Response:
        response = await handler(request)
        await self.gate()
        return response

    @pytest.fixture(autouse=True)
    def _gate(self) -> None:
        self.gate = Gate()

    def answered(self, streams: Streams, answer: str) -> StreamStage:
        stage = streams(layers=[("rule", layer(self.after))])
        stage.play(
            client >> "GET /", a << "dialled", a >> "accepts", a1 << "GET /", a1 >> answer, a1 << "hold on"
        )
        return stage

    def test_before_it_is_sent(self, streams: Streams) -> None:
        streams(layers=[("rule", layer(self.before))]).play(
            client >> "GET /",
            passes(5.0),
            self.gate.opens,
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "200 x",
            client << "200 x",
            a1 << "kept",
            client << "done",
        )

    def test_a_body_meanwhile_is_kept_and_bounded(self, streams: Streams) -> None:
        streams(layers=[("rule", layer(self.before))], limits=Limits(replay_bytes=4)).play(
            client >> "POST / ab...",
            client >> "...cde...",
            client << "hold on",
            self.gate.opens,
            a << "dialled",
            a >> "accepts",
            client << "go on",
            a1 << "POST / abcde...",
        )

    def test_a_body_that_was_held_goes_on_to_a_connection_that_was_kept(self, streams: Streams) -> None:
        stage = streams(layers=[("rule", layer(self.before))], limits=Limits(replay_bytes=4))
        stage.play(
            client >> "GET /",
            self.gate.opens,
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "200",
            client << "200",
            a1 << "kept",
            client << "done",
            client >> "POST / abcde...",
            client >> "...f...",
            client << "hold on",
            self.gate.opens,
            client << "go on",
            a1 << "POST / abcdef...",
        )

    def test_the_client_leaves_meanwhile(self, streams: Streams) -> None:
        streams(layers=[("rule", layer(self.before))]).play(
            client >> "GET /", client >> "leaves", self.gate.opens
        )

    def test_after_the_whole_answer(self, streams: Streams) -> None:
        self.answered(streams, "200 x").play(
            self.gate.opens, a1 << "go on", client << "200 x", a1 << "kept", client << "done"
        )

    def test_after_the_head(self, streams: Streams) -> None:
        self.answered(streams, "200 x...").play(
            a1 >> "...y...",
            self.gate.opens,
            a1 << "go on",
            client << "200 x...",
            client << "...y...",
            a1 >> "...",
            client << "...",
            a1 << "kept",
            client << "done",
        )

    def test_for_a_client_that_stops_reading(self, streams: Streams) -> None:
        """One that does not read an interim response: what follows is held for it, not for the layer."""
        stage = streams(layers=[("rule", layer(self.after))])
        stage.play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            client >> "stops reading",
            a1 >> "103",
            client << "103",
            a1 << "hold on",
            a1 >> "200 x...",
            client >> "reads",
            a1 << "go on",
            a1 << "hold on",
            self.gate.opens,
            a1 << "go on",
            client << "200 x...",
        )

    def test_a_client_that_reads_again_does_not_hurry_the_layer(self, streams: Streams) -> None:
        stage = streams(layers=[("rule", layer(self.after))])
        stage.play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "103",
            client << "103",
            client >> "stops reading",
            a1 >> "103",
            client << "103",
            a1 << "hold on",
            client >> "reads",
            a1 << "go on",
            a1 >> "200 ...",
            a1 << "hold on",
            client >> "stops reading",
            client >> "reads",
            self.gate.opens,
            a1 << "go on",
            client << "200 ...",
        )

    def test_the_endpoint_closes_meanwhile(self, streams: Streams) -> None:
        """Nobody notices while it is held: its response is passed on as far as it came."""
        self.answered(streams, "200 x...").play(
            a1 >> "closes",
            self.gate.opens,
            a1 << "go on",
            client << "200 x...",
            client << "broken off",
        )

    def test_the_client_leaves_meanwhile_too(self, streams: Streams) -> None:
        self.answered(streams, "200 x...").play(client >> "leaves", a1 << "closed", self.gate.opens)


class TestReply:
    """A layer that answers by itself."""

    def test_in_place_of_an_endpoint(self, streams: Streams) -> None:
        async def reply(request: Request, handler: Handler) -> Response:
            return Reply(403, body=b"no", reason="forbidden")

        stage = streams(layers=[("rule", layer(reply))])
        stage.play(client >> "GET /", client << "403 forbidden", client << "done")
        assert stage.plane.count(columns.MESH_RESPONSES) == 1

    def test_before_the_request_has_all_come(self, streams: Streams) -> None:
        async def reply(request: Request, handler: Handler) -> Response:
            return Reply(403, reason="forbidden")

        streams(layers=[("rule", layer(reply))]).play(
            client >> "POST / ...", client << "403 forbidden", client << "done"
        )

    @pytest.mark.parametrize("answer", ["200 x", "200 x..."])
    def test_in_place_of_a_response(self, streams: Streams, answer: str) -> None:
        """A response that was neither discarded nor returned costs its connection."""

        async def reply(request: Request, handler: Handler) -> Response:
            await handler(request)
            return Reply(403, reason="forbidden")

        streams(layers=[("rule", layer(reply))]).play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> answer,
            a1 << "closed",
            client << "403 forbidden",
            client << "done",
        )

    def test_in_place_of_a_response_that_was_discarded(self, streams: Streams) -> None:
        async def reply(request: Request, handler: Handler) -> Response:
            response = await handler(request)
            response.discard()
            return Reply(403, reason="forbidden")

        streams(layers=[("rule", layer(reply))]).play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "200 x",
            a1 << "kept",
            client << "403 forbidden",
            client << "done",
        )


class TestBugs:
    """What layers may not do costs one request."""

    @pytest.mark.parametrize("late", [False, True])
    def test_it_raises(self, streams: Streams, late: bool) -> None:
        async def broken(request: Request, handler: Handler) -> Response:
            if late:
                await handler(request)
            raise ZeroDivisionError

        stage = streams(layers=[("rule", layer(broken))])
        asked = (a << "dialled", a >> "accepts", a1 << "GET /", a1 >> "200 x...", a1 << "closed")
        stage.play(
            client >> "GET /", *(asked if late else ()), client << "500 internal_error", client << "done"
        )
        assert [type(bug) for bug in stage.plane.watcher.bugs] == [ZeroDivisionError]

    def test_it_returns_what_it_has_discarded(self, streams: Streams) -> None:
        async def broken(request: Request, handler: Handler) -> Response:
            response = await handler(request)
            response.discard()
            return response

        streams(layers=[("rule", layer(broken))]).play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "200 x",
            a1 << "kept",
            client << "500 internal_error",
            client << "done",
        )

    def test_it_returns_the_response_of_an_earlier_try(self, streams: Streams) -> None:
        async def broken(request: Request, handler: Handler) -> Response:
            first = await handler(request)
            first.discard()
            await handler(request)
            return first

        streams(layers=[("rule", layer(broken))]).play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "200 x",
            a1 << "kept",
            a1 << "GET /",
            a1 >> "200 y",
            a1 << "closed",
            client << "500 internal_error",
            client << "done",
        )

    def test_it_awaits_in_its_finally(self, streams: Streams) -> None:
        gate = Gate()

        async def broken(request: Request, handler: Handler) -> Response:
            try:
                return await handler(request)
            finally:
                await gate()

        stage = streams(layers=[("rule", layer(broken))])
        stage.play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            client >> "leaves",
            a1 << "closed",
        )
        assert len(stage.plane.watcher.bugs) == 1

    def test_what_is_told_of_the_end_fails(self, streams: Streams) -> None:
        ends: list[Ended] = []

        def fail(_: Ended) -> None:
            raise ZeroDivisionError

        async def ending(request: Request, handler: Handler) -> Response:
            request.at_end(fail)
            request.at_end(ends.append)
            return await handler(request)

        stage = streams(layers=[("rule", layer(ending))])
        stage.play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "200 x",
            client << "200 x",
            a1 << "kept",
            client << "done",
        )
        assert [(ended.status, ended.endpoint) for ended in ends] == [(200, "10.1.0.1:8080")]
        assert len(stage.plane.watcher.bugs) == 1


class TestHeads:
    def test_method_and_target_are_changed(self, streams: Streams) -> None:
        async def change(request: Request, handler: Handler) -> Response:
            request.method, request.target = "PUT", "/changed"
            request.headers.set("Host", "other")
            return await handler(request)

        stage = streams(layers=[("rule", layer(change))])
        stage.play(client >> "GET /", a << "dialled", a >> "accepts", a1 << "PUT /changed")

    def test_another_backend(self, streams: Streams) -> None:
        async def choose(request: Request, handler: Handler) -> Response:
            request.backend = "other"
            return await handler(request)

        streams(layers=[("rule", layer(choose))]).play(
            client >> "GET /",
            d << "dialled",
            d >> "accepts",
            d1 << "GET /",
            d1 >> "200",
            client << "200",
            d1 << "kept",
            client << "done",
        )

    def test_another_backend_when_the_first_fails(self, streams: Streams) -> None:
        async def fail_over(request: Request, handler: Handler) -> Response:
            try:
                return await handler(request)
            except ExchangeError:
                request.backend = "other"
                return await handler(request)

        streams(layers=[("rule", layer(fail_over))]).play(
            client >> "POST / ab...",
            a << "dialled",
            a >> "refuses",
            d << "dialled",
            client >> "...c",
            d >> "accepts",
            d1 << "POST / abc",
        )


class TestRead:
    """A layer that reads a response, up to a limit, and passes it on."""

    def stage(self, streams: Streams, limit: int = 4, **options: object) -> StreamStage:
        self.bodies: list[bytes | None] = []

        async def read(request: Request, handler: Handler) -> Response:
            response = await handler(request)
            self.bodies.append(await response.read(limit))
            return response

        stage = streams(layers=[("rule", layer(read))], **options)
        stage.play(client >> "GET /", a << "dialled", a >> "accepts", a1 << "GET /")
        return stage

    def test_at_once(self, streams: Streams) -> None:
        self.stage(streams).play(a1 >> "200 abc", client << "200 abc", a1 << "kept", client << "done")
        assert self.bodies == [b"abc"]

    def test_in_pieces(self, streams: Streams) -> None:
        self.stage(streams).play(
            a1 >> "200 a...",
            a1 >> "...b...",
            a1 >> "...c",
            client << "200 abc",
            a1 << "kept",
            client << "done",
        )
        assert self.bodies == [b"abc"]

    def test_too_much(self, streams: Streams) -> None:
        large = "x" * 2000
        self.stage(streams).play(
            a1 >> "200 a...",
            a1 >> f"...{large}...",
            client << f"200 a{large}...",
            a1 >> "...z",
            client << "...z",
            a1 << "kept",
            client << "done",
        )
        assert self.bodies == [None]

    def test_cut_off(self, streams: Streams) -> None:
        self.stage(streams).play(
            a1 >> "200 a...", a1 >> "closes", client << "502 upstream_reset", client << "done"
        )

    def test_cut_off_and_tried_again(self, streams: Streams) -> None:
        """Retry stands above the layer that reads."""
        self.stage(streams, annotations=RETRY).play(
            a1 >> "200 a...",
            a1 >> "closes",
            a << "dialled",
            a >> "accepts",
            a2 << "GET /",
            a2 >> "200 b",
            client << "200 b",
            a2 << "kept",
            client << "done",
        )
        assert self.bodies == [b"b"]

    def test_for_a_client_that_does_not_read(self, streams: Streams) -> None:
        """It has not read an interim response: its answer is read for the layer nevertheless."""
        self.stage(streams).play(
            client >> "stops reading",
            a1 >> "103",
            client << "103",
            a1 << "hold on",
            a1 >> "200 a...",
            client >> "reads",
            a1 << "go on",
            a1 >> "...b",
            client << "200 ab",
            a1 << "kept",
            client << "done",
        )


class TestRetry:
    def test_on_a_status_with_the_kept_body(self, streams: Streams) -> None:
        stage = streams(endpoints="ab", annotations=RETRY)
        stage.play(
            client >> "PUT / abc",
            a << "dialled",
            a >> "accepts",
            a1 << "PUT / abc",
            a1 >> "503 x",
            a1 << "kept",
            b << "dialled",
            b >> "accepts",
            b1 << "PUT / abc",
            b1 >> "200 y",
            client << "200 y",
            b1 << "kept",
            client << "done",
        )

    def test_on_a_status_before_the_request_has_all_come(self, streams: Streams) -> None:
        """The first connection is not kept: half a request is on its way to it."""
        streams(endpoints="ab", annotations=RETRY).play(
            client >> "PUT / ab...",
            a << "dialled",
            a >> "accepts",
            a1 << "PUT / ab...",
            a1 >> "503",
            a1 << "closed",
            b << "dialled",
            client >> "...c...",
            b >> "accepts",
            b1 << "PUT / abc...",
            client >> "...d",
            b1 << "...d",
        )

    def test_a_response_that_has_not_all_come_costs_its_connection(self, streams: Streams) -> None:
        streams(endpoints="ab", annotations=RETRY).play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "503 x...",
            a1 << "closed",
            b << "dialled",
        )

    def test_on_a_reset(self, streams: Streams) -> None:
        streams(endpoints="ab", annotations=RETRY).play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "closes",
            b << "dialled",
            b >> "accepts",
            b1 << "GET /",
            b1 >> "200",
            client << "200",
            b1 << "kept",
            client << "done",
        )

    def test_when_no_endpoint_accepts(self, streams: Streams) -> None:
        """What is refused by all is one try; the next waits a moment."""
        streams(endpoints="ab", annotations={"svc.mesh/retry-attempts": "1"}).play(
            client >> "POST / x",
            a << "dialled",
            a >> "refuses",
            b << "dialled",
            b >> "refuses",
            b << "dialled",
            b >> "refuses",
            a << "dialled",
            a >> "accepts",
            a1 << "POST / x",
        )

    def test_a_body_that_is_not_kept_any_more(self, streams: Streams) -> None:
        streams(endpoints="ab", annotations=RETRY, limits=Limits(replay_bytes=4)).play(
            client >> "PUT / abc...",
            a << "dialled",
            a >> "accepts",
            a1 << "PUT / abc...",
            client >> "...de",
            a1 << "...de",
            a1 >> "503",
            client << "503",
            a1 << "kept",
            client << "done",
        )

    def test_a_body_that_outgrows_what_is_kept_while_the_layer_waits(self, streams: Streams) -> None:
        """It is held then, and all of it goes to the next endpoint, but to none after that."""
        gate = Gate()

        async def retry(request: Request, handler: Handler) -> Response:
            (await handler(request)).discard()
            await gate()
            (await handler(request)).discard()
            return await handler(request)

        streams(layers=[("rule", layer(retry))], limits=Limits(replay_bytes=4)).play(
            client >> "PUT / abc...",
            a << "dialled",
            a >> "accepts",
            a1 << "PUT / abc...",
            a1 >> "503",
            a1 << "closed",
            client >> "...de...",
            client << "hold on",
            gate.opens,
            a << "dialled",
            a >> "accepts",
            client << "go on",
            a2 << "PUT / abcde...",
            client >> "...f",
            a2 << "...f",
            a2 >> "503",
            a2 << "kept",
            client << "502 upstream_reset",
            client << "done",
        )

    def test_a_held_client_is_let_go_for_a_connection_that_was_kept(self, streams: Streams) -> None:
        streams(endpoints="ab", annotations=RETRY).play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            client2 >> "PUT / x...",
            b << "dialled",
            b >> "accepts",
            b1 << "PUT / x...",
            b1 >> "stops reading",
            client2 << "hold on",
            a1 >> "200",
            client << "200",
            a1 << "kept",
            client << "done",
            b1 >> "503",
            client2 << "go on",
            b1 << "closed",
            a1 << "PUT / x...",
            client2 >> "...y",
            a1 << "...y",
        )

    def test_an_endpoint_that_is_full_at_once_holds_its_client(self, streams: Streams) -> None:
        """What was kept while connecting fills it."""
        stage = streams()
        stage.play(client >> "PUT / x...", a << "dialled")
        stage.dialer.full = True
        stage.play(a >> "accepts", a1 << "PUT / x...", client << "hold on")

    def test_a_held_client_is_let_go_for_a_tunnel(self, streams: Streams) -> None:
        """The first endpoint did not read all of the head."""
        stage = streams(endpoints="ab", annotations=RETRY)
        stage.play(client >> "GET /upgrade", a << "dialled")
        stage.dialer.full = True
        stage.play(a >> "accepts", a1 << "GET /upgrade", client << "hold on")
        stage.dialer.full = False
        stage.play(
            a1 >> "503",
            client << "go on",
            a1 << "kept",
            b << "dialled",
            b >> "accepts",
            b1 << "GET /upgrade",
            b1 >> "101",
            client << "101 ...",
            client >> "...ping...",
            b1 << "...ping...",
        )

    def test_a_held_client_of_a_retry_is_let_go(self, streams: Streams) -> None:
        """The first endpoint did not read, so the client was held; the next one reads."""
        streams(endpoints="ab", annotations=RETRY).play(
            client >> "PUT / x...",
            a << "dialled",
            a >> "accepts",
            a1 << "PUT / x...",
            a1 >> "stops reading",
            client << "hold on",
            a1 >> "503",
            client << "go on",
            a1 << "closed",
            b << "dialled",
            b >> "accepts",
            b1 << "PUT / x...",
            client >> "...y",
            b1 << "...y",
        )


class TestLimits:
    """`within` above retry is the request's, below it the try's."""

    @staticmethod
    def limited(streams: Streams, seconds: float, *, final: bool, **options: object) -> StreamStage:
        async def limit(request: Request, handler: Handler) -> Response:
            request.within(seconds, lambda: (OverForGood if final else TooLong)("over"))
            return await handler(request)

        return streams(layers=[("listener", layer(limit))], **options)

    def test_while_connecting(self, streams: Streams) -> None:
        self.limited(streams, 1.0, final=True).play(
            client >> "GET /",
            a << "dialled",
            passes(1.1),
            a << "given up",
            client << "504 over_for_good",
            client << "done",
        )

    def test_while_waiting_for_an_answer(self, streams: Streams) -> None:
        stage = self.limited(streams, 1.0, final=True)
        stage.play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            passes(1.1),
            a1 << "closed",
            client << "504 over_for_good",
            client << "done",
        )
        assert stage.plane.count(columns.UPSTREAM_TIMEOUT) == 1

    def test_within_the_response(self, streams: Streams) -> None:
        self.limited(streams, 1.0, final=True).play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "200 x...",
            client << "200 x...",
            passes(1.1),
            a1 << "closed",
            client << "broken off",
        )

    def test_in_the_queue(self, streams: Streams) -> None:
        self.limited(streams, 1.0, final=True, limits=Limits(upstream_connections=1)).play(
            client >> "GET /1",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /1",
            a1 >> "200 ...",
            client << "200 ...",
            passes(0.5),
            client2 >> "GET /2",
            passes(0.6),
            a1 << "closed",
            client << "broken off",
            a << "dialled",
            passes(0.5),
            a << "given up",
            client2 << "504 over_for_good",
            client2 << "done",
        )

    def test_while_a_layer_waits(self, streams: Streams) -> None:
        """What wakes up later finds that it is over."""
        gate = Gate()

        async def wait(request: Request, handler: Handler) -> Response:
            await gate()
            return await handler(request)

        async def limit(request: Request, handler: Handler) -> Response:
            request.within(1.0, lambda: OverForGood("over"))
            return await handler(request)

        streams(layers=[("listener", layer(limit)), ("rule", layer(wait))]).play(
            client >> "GET /", passes(1.1), client << "504 over_for_good", client << "done", gate.opens
        )

    def test_nothing_helps_once_it_is_final(self, streams: Streams) -> None:
        async def stubborn(request: Request, handler: Handler) -> Response:
            for _ in range(3):
                try:
                    return await handler(request)
                except OverForGood:
                    pass
            return await handler(request)

        async def limit(request: Request, handler: Handler) -> Response:
            request.within(1.0, lambda: OverForGood("over"))
            return await handler(request)

        streams(layers=[("listener", layer(limit)), ("rule", layer(stubborn))]).play(
            client >> "GET /",
            a << "dialled",
            passes(1.1),
            a << "given up",
            client << "504 over_for_good",
            client << "done",
        )

    def test_of_each_try(self, streams: Streams) -> None:
        stage = streams(
            endpoints="ab",
            annotations={"svc.mesh/retry-attempts": "1", "svc.mesh/per-try-timeout": "1s"},
        )
        stage.play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            passes(1.1),
            a1 << "closed",
            b << "dialled",
            b >> "accepts",
            b1 << "GET /",
            passes(0.5),
            b1 >> "200 ...",
            client << "200 ...",
            passes(30.0),
            b1 >> "...",
            client << "...",
            b1 << "kept",
            client << "done",
        )

    def test_of_each_try_and_of_all(self, streams: Streams) -> None:
        streams(
            endpoints="ab",
            annotations={
                "svc.mesh/retry-attempts": "5",
                "svc.mesh/per-try-timeout": "1s",
                "svc.mesh/timeout": "1500ms",
            },
        ).play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            passes(1.02),
            a1 << "closed",
            b << "dialled",
            b >> "accepts",
            b1 << "GET /",
            passes(0.6),
            b1 << "closed",
            client << "504 request_timeout",
            client << "done",
        )

    def test_of_a_client_that_has_not_sent_all(self, streams: Streams) -> None:
        """It is the client's fault, and no reason to try again or to blame the endpoint."""
        stage = streams(annotations={"svc.mesh/retry-attempts": "5", "svc.mesh/per-try-timeout": "1s"})
        stage.play(
            client >> "PUT / x...",
            a << "dialled",
            a >> "accepts",
            a1 << "PUT / x...",
            passes(1.1),
            a1 << "closed",
            client << "408 try_timeout, closing",
            client << "done",
        )
        assert not stage.plane.listener.rule.backend.health.troubles  # type: ignore[union-attr]


class TestEndings:
    """What the client's side tells an exchange, at each point of its life."""

    WORDS = (
        ("waits for the endpoint too long", "504 response_timeout"),
        ("waits with its body too long", "504 upstream_stalled"),
        ("is idle", "504 idle_timeout"),
        ("stops in its body", "408 body_timeout, closing"),
    )

    @pytest.mark.parametrize(("word", "answer"), WORDS)
    def test_before_the_answer(self, streams: Streams, word: str, answer: str) -> None:
        streams().play(
            client >> "PUT / ...",
            a << "dialled",
            a >> "accepts",
            a1 << "PUT / ...",
            client >> word,
            a1 << "closed",
            client << answer,
            client << "done",
        )

    @pytest.mark.parametrize(("word", "answer"), WORDS)
    def test_a_layer_may_try_again_but_not_for_a_client_that_stopped(
        self, streams: Streams, word: str, answer: str
    ) -> None:
        stage = streams(endpoints="ab", annotations={"svc.mesh/retry-attempts": "1"})
        stage.play(
            client >> "PUT / ...",
            a << "dialled",
            a >> "accepts",
            a1 << "PUT / ...",
            client >> word,
            a1 << "closed",
            *((client << answer, client << "done") if "408" in answer else (b << "dialled",)),
        )

    @pytest.mark.parametrize("word", [word for word, _ in WORDS[1:]])
    def test_within_the_response(self, streams: Streams, word: str) -> None:
        """Only breaking off is left."""
        streams().play(
            client >> "PUT / ...",
            a << "dialled",
            a >> "accepts",
            a1 << "PUT / ...",
            a1 >> "200 x...",
            client << "200 x...",
            client >> word,
            a1 << "closed",
            client << "broken off",
        )

    def test_an_endpoint_that_takes_slowly_is_not_stalled(self, streams: Streams) -> None:
        streams().play(
            client >> "PUT / ...",
            a << "dialled",
            a >> "accepts",
            a1 << "PUT / ...",
            a1 >> "stops reading",
            client << "hold on",
            a1 >> "reads",
            client << "go on",
            client >> "waits with its body too long",
            client >> "waits with its body too long",
            a1 << "closed",
            client << "504 upstream_stalled",
            client << "done",
        )

    @pytest.mark.parametrize("word", [word for word, _ in WORDS[:2]])
    def test_nobody_is_blamed_while_a_layer_waits(self, streams: Streams, word: str) -> None:
        """There is no endpoint, so it is not an endpoint that is waited for."""
        gate = Gate()

        async def wait(request: Request, handler: Handler) -> Response:
            await gate()
            return await handler(request)

        streams(layers=[("rule", layer(wait))]).play(
            client >> "GET /", client >> word, gate.opens, a << "dialled"
        )


class TestWhatSeesRequests:
    """The scope `request`: shown each request at once, before any layer."""

    def test_it_changes_the_head_and_learns_of_the_end(self, streams: Streams) -> None:
        seen: list[int] = []

        def show(request: Request) -> None:
            request.target = "/seen"
            request.at_end(lambda ended: seen.append(ended.status))

        stage = streams(layers=[("request", show)])
        stage.play(client >> "GET /", a << "dialled", a >> "accepts", a1 << "GET /seen")
        assert seen == []
        stage.play(a1 >> "200 x", client << "200 x", a1 << "kept", client << "done")
        assert seen == [200]

    def test_its_error_ends_the_request(self, streams: Streams) -> None:
        def refuse(_request: Request) -> None:
            raise TooLong("no")

        stage = streams(layers=[("request", refuse)])
        stage.play(client >> "GET /", client << "504 too_long", client << "done")
        assert stage.plane.watcher.bugs == []

    def test_a_bug_costs_one_request(self, streams: Streams) -> None:
        bugs = [ZeroDivisionError]

        def fail(_request: Request) -> None:
            if bugs:
                raise bugs.pop()

        stage = streams(layers=[("request", fail)])
        stage.play(client >> "GET /", client << "500 internal_error", client << "done")
        assert [type(bug) for bug in stage.plane.watcher.bugs] == [ZeroDivisionError]
        stage.play(client2 >> "GET /", a << "dialled")
