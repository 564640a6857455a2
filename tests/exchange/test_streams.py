"""An exchange between two streams: what it sends to whom, and when it lets one wait for the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from middleware.contract import Handler, Request, Response
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.exchange.layers import layer
from tests.exchange.script import a, a1, a2, a3, a4, b, b1, c, client, client2, client3, passes
from tests.exchange.streams import StreamStage

Streams = Callable[..., StreamStage]


class TestPlain:
    def test_a_connection_serves_one_after_another(self, streams: Streams) -> None:
        stage = streams()
        stage.play(
            client >> "GET /1",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /1",
            a1 >> "200 ok",
            client << "200 ok",
            a1 << "kept",
            client << "done",
            client >> "GET /2",
            a1 << "GET /2",
            a1 >> "404",
            client << "404",
            a1 << "kept",
            client << "done",
        )
        assert stage.plane.count(columns.REQUESTS_2XX) == 1
        assert stage.plane.count(columns.REQUESTS_4XX) == 1

    def test_a_body_streams_both_ways(self, streams: Streams) -> None:
        streams().play(
            client >> "POST / ab...",
            a << "dialled",
            a >> "accepts",
            a1 << "POST / ab...",
            client >> "...cd...",
            a1 << "...cd...",
            client >> "...ef",
            a1 << "...ef",
            a1 >> "200 uv...",
            client << "200 uv...",
            a1 >> "...wx...",
            client << "...wx...",
            a1 >> "...",
            client << "...",
            a1 << "kept",
            client << "done",
        )

    def test_a_body_that_comes_while_connecting_is_sent_with_the_head(self, streams: Streams) -> None:
        streams().play(
            client >> "POST / ...",
            a << "dialled",
            client >> "...ab...",
            client >> "...cd",
            a >> "accepts",
            a1 << "POST / abcd",
        )

    def test_an_answer_may_overtake_its_request(self, streams: Streams) -> None:
        """Its connection is not used again: the rest of the request is still on its way to it."""
        streams().play(
            client >> "POST / ab...",
            a << "dialled",
            a >> "accepts",
            a1 << "POST / ab...",
            a1 >> "413",
            client << "413",
            a1 << "closed",
            client << "done",
        )

    def test_an_answer_may_begin_before_its_request_ends(self, streams: Streams) -> None:
        streams().play(
            client >> "POST / ab...",
            a << "dialled",
            a >> "accepts",
            a1 << "POST / ab...",
            a1 >> "200 x...",
            client << "200 x...",
            client >> "...cd...",
            a1 << "...cd...",
            a1 >> "...y...",
            client << "...y...",
            client >> "...",
            a1 << "...",
            a1 >> "...",
            client << "...",
            a1 << "kept",
            client << "done",
        )

    def test_interim_responses_pass(self, streams: Streams) -> None:
        streams().play(
            client >> "POST / ...",
            a << "dialled",
            a >> "accepts",
            a1 << "POST / ...",
            a1 >> "100",
            client << "100",
            a1 >> "103",
            client << "103",
            client >> "...x",
            a1 << "...x",
            a1 >> "204",
            client << "204",
            a1 << "kept",
            client << "done",
        )

    def test_interim_responses_without_end_are_an_error(self, streams: Streams) -> None:
        stage = streams()
        stage.play(client >> "GET /", a << "dialled", a >> "accepts", a1 << "GET /")
        for _ in range(16):
            stage.play(a1 >> "103", client << "103")
        stage.play(a1 >> "103", a1 << "closed", client << "502 upstream_protocol_error", client << "done")

    def test_an_endpoint_that_will_close_is_not_kept(self, streams: Streams) -> None:
        streams().play(
            client >> "GET /1",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /1",
            a1 >> "closes after it",
            a1 >> "200",
            client << "200",
            a1 << "closed",
            client << "done",
            client >> "GET /2",
            a << "dialled",
        )

    def test_what_was_sent_unasked_answers_nobody(self, streams: Streams) -> None:
        streams().play(
            client >> "GET /1",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /1",
            a1 >> "200",
            client << "200",
            a1 << "kept",
            client << "done",
            a1 >> "talks unasked",
            client >> "GET /2",
            a1 << "closed",
            a << "dialled",
            a >> "accepts",
            a2 << "GET /2",
        )


class TestFailures:
    def test_another_endpoint_when_one_refuses(self, streams: Streams) -> None:
        stage = streams(endpoints="abc")
        stage.play(
            client >> "GET /",
            a << "dialled",
            a >> "refuses",
            c << "dialled",
            c >> "refuses",
            b << "dialled",
            b >> "accepts",
            b1 << "GET /",
        )
        assert stage.plane.count(columns.UPSTREAM_CONNECT_FAILED) == 2

    def test_all_refuse(self, streams: Streams) -> None:
        streams(endpoints="ab").play(
            client >> "GET /",
            a << "dialled",
            a >> "refuses",
            b << "dialled",
            b >> "refuses",
            client << "503 connect_failed",
            client << "done",
        )

    def test_connecting_takes_too_long(self, streams: Streams) -> None:
        stage = streams()
        stage.play(
            client >> "GET /", a << "dialled", passes(3.0), client << "503 connect_failed", client << "done"
        )
        assert stage.plane.count(columns.UPSTREAM_CONNECT_TIMEOUT) == 1

    def test_no_endpoint(self, streams: Streams) -> None:
        streams(endpoints="").play(client >> "GET /", client << "503 no_endpoint", client << "done")

    def test_an_endpoint_that_closes_unanswered(self, streams: Streams) -> None:
        stage = streams()
        stage.play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "closes",
            client << "502 upstream_reset",
            client << "done",
        )
        assert stage.plane.count(columns.UPSTREAM_RESET) == 1

    def test_a_connection_that_was_kept_and_closes_is_no_error(self, streams: Streams) -> None:
        """Twice: what is sent a third time goes on a new connection."""
        stage = streams()
        peers = ((a1, client), (a2, client2), (a3, client3))
        for _, peer in peers:
            stage.play(peer >> "GET /", a << "dialled")
        for one, _ in peers:
            stage.play(a >> "accepts", one << "GET /")
        for one, peer in peers:
            stage.play(one >> "200", peer << "200", one << "kept", peer << "done")
        stage.play(
            client >> "GET /again",
            a3 << "GET /again",
            a3 >> "closes",
            a2 << "GET /again",
            a2 >> "closes",
            a << "dialled",
            a >> "accepts",
            a4 << "GET /again",
        )
        assert stage.plane.count(columns.RESENDS) == 2

    @pytest.mark.parametrize("method", ["POST", "PATCH"])
    def test_what_may_have_been_processed_is_not_sent_again(self, streams: Streams, method: str) -> None:
        streams().play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "200",
            client << "200",
            a1 << "kept",
            client << "done",
            client >> f"{method} /",
            a1 << f"{method} /",
            a1 >> "closes",
            client << "502 upstream_reset",
            client << "done",
        )

    def test_an_endpoint_that_closes_within_its_response(self, streams: Streams) -> None:
        stage = streams()
        stage.play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "200 x...",
            client << "200 x...",
            a1 >> "closes",
            client << "broken off",
        )
        assert stage.plane.count(columns.UPSTREAM_TRUNCATED) == 1

    def test_nonsense_before_and_within_a_response(self, streams: Streams) -> None:
        stage = streams()
        stage.play(
            client >> "GET /1",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /1",
            a1 >> "talks nonsense",
            a1 << "closed",
            client << "502 upstream_protocol_error",
            client << "done",
            client >> "GET /2",
            a << "dialled",
            a >> "accepts",
            a2 << "GET /2",
            a2 >> "200 ...",
            client << "200 ...",
            a2 >> "talks nonsense",
            a2 << "closed",
            client << "broken off",
        )
        assert stage.plane.count(columns.UPSTREAM_PROTOCOL_ERROR) == 2
        assert stage.plane.count(columns.REQUESTS_2XX) == 1

    def test_switching_unasked_is_nonsense(self, streams: Streams) -> None:
        streams().play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "101",
            a1 << "closed",
            client << "502 upstream_protocol_error",
            client << "done",
        )


class TestClientGone:
    """Whatever was under way for it ends with it."""

    def test_while_connecting(self, streams: Streams) -> None:
        streams().play(client >> "GET /", a << "dialled", client >> "leaves", a << "given up")

    def test_before_an_answer(self, streams: Streams) -> None:
        stage = streams()
        stage.play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            client >> "leaves",
            a1 << "closed",
        )
        assert stage.plane.count(columns.REQUESTS_NONE) == 1

    def test_within_its_request(self, streams: Streams) -> None:
        streams().play(
            client >> "PUT / x...",
            a << "dialled",
            a >> "accepts",
            a1 << "PUT / x...",
            client >> "leaves",
            a1 << "closed",
        )

    def test_within_its_response(self, streams: Streams) -> None:
        stage = streams()
        stage.play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "200 ...",
            client << "200 ...",
            client >> "leaves",
            a1 << "closed",
        )
        assert stage.plane.count(columns.REQUESTS_2XX) == 1

    def test_in_a_tunnel(self, streams: Streams) -> None:
        streams().play(
            client >> "GET /upgrade",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /upgrade",
            a1 >> "101",
            client << "101 ...",
            client >> "leaves",
            a1 << "closed",
        )

    def test_in_the_queue(self, streams: Streams) -> None:
        """Its place is free for the next one."""
        streams(limits=Limits(upstream_connections=1, upstream_queue=1)).play(
            client >> "GET /1",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /1",
            client2 >> "GET /2",
            client2 >> "leaves",
            client3 >> "GET /3",
            a1 >> "200",
            client << "200",
            a1 << "kept",
            a1 << "GET /3",
            client << "done",
        )


class TestTunnel:
    """A 101: bytes both ways until both sides have ended, in either order. Its connection is in no pool."""

    def begin(self, streams: Streams) -> StreamStage:
        stage = streams(limits=Limits(upstream_connections=1))
        stage.play(
            client >> "GET /upgrade",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /upgrade",
            a1 >> "101",
            client << "101 ...",
            client >> "...ping...",
            a1 << "...ping...",
            a1 >> "...pong...",
            client << "...pong...",
        )
        return stage

    def test_it_is_in_nobodys_way(self, streams: Streams) -> None:
        self.begin(streams).play(client2 >> "GET /", a << "dialled")

    def test_the_client_ends_first(self, streams: Streams) -> None:
        self.begin(streams).play(
            client >> "half-closes",
            a1 << "...",
            a1 >> "...late...",
            client << "...late...",
            a1 >> "half-closes",
            client << "...",
            a1 << "closed",
            client << "done",
        )

    def test_the_endpoint_ends_first(self, streams: Streams) -> None:
        self.begin(streams).play(
            a1 >> "half-closes",
            client << "...",
            client >> "...late...",
            a1 << "...late...",
            client >> "half-closes",
            a1 << "...",
            a1 << "closed",
            client << "done",
        )

    def test_the_endpoint_breaks_off(self, streams: Streams) -> None:
        self.begin(streams).play(a1 >> "closes", client << "broken off")

    def test_backpressure(self, streams: Streams) -> None:
        self.begin(streams).play(
            client >> "stops reading",
            a1 >> "...much...",
            client << "...much...",
            a1 << "hold on",
            a1 >> "stops reading",
            client << "hold on",
            client >> "reads",
            a1 << "go on",
            a1 >> "reads",
            client << "go on",
        )


class TestBackpressure:
    def test_a_client_that_does_not_read_holds_its_endpoint(self, streams: Streams) -> None:
        streams().play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            client >> "stops reading",
            a1 >> "200 x...",
            client << "200 x...",
            a1 << "hold on",
            a1 >> "...y...",
            client >> "reads",
            a1 << "go on",
            client << "...y...",
            a1 >> "...",
            client << "...",
            a1 << "kept",
            client << "done",
        )

    def test_a_response_that_ends_within_what_fills_the_client(self, streams: Streams) -> None:
        """The connection is kept, and is not held for a client that it does not serve any more."""
        streams().play(
            client >> "GET /1",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /1",
            client >> "stops reading",
            a1 >> "200 x",
            client << "200 x",
            a1 << "hold on",
            a1 << "kept",
            client << "done",
            client2 >> "GET /2",
            a1 << "GET /2",
            a1 >> "200 y",
            client2 << "200 y",
            a1 << "kept",
            client2 << "done",
        )

    def test_a_client_that_reads_again_lets_go_of_nothing_that_is_not_its_own(self, streams: Streams) -> None:
        streams().play(
            client >> "GET /1",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /1",
            client >> "stops reading",
            a1 >> "200 x",
            client << "200 x",
            a1 << "hold on",
            a1 << "kept",
            client << "done",
            client2 >> "stops reading",
            client2 >> "GET /2",
            a1 << "GET /2",
            a1 >> "200 y...",
            client2 << "200 y...",
            a1 << "hold on",
            client >> "reads",
        )

    def test_an_endpoint_that_does_not_read_holds_its_client(self, streams: Streams) -> None:
        streams().play(
            client >> "POST / x...",
            a << "dialled",
            a >> "accepts",
            a1 << "POST / x...",
            a1 >> "stops reading",
            client << "hold on",
            a1 >> "reads",
            client << "go on",
            client >> "...y",
            a1 << "...y",
        )

    def test_a_large_body_waits_for_its_endpoint(self, streams: Streams) -> None:
        streams(limits=Limits(replay_bytes=4)).play(
            client >> "POST / abc...",
            a << "dialled",
            client >> "...de...",
            client << "hold on",
            a >> "accepts",
            client << "go on",
            a1 << "POST / abcde...",
            client >> "...f",
            a1 << "...f",
        )

    def test_the_end_of_a_large_body_holds_nobody(self, streams: Streams) -> None:
        """From whom nothing is read, nobody learns that he has left."""
        streams(limits=Limits(replay_bytes=4)).play(
            client >> "POST / abc...",
            a << "dialled",
            client >> "...de",
            a >> "accepts",
            a1 << "POST / abcde",
        )

    def test_an_endpoint_that_answers_while_it_does_not_read(self, streams: Streams) -> None:
        streams().play(
            client >> "POST / x...",
            a << "dialled",
            a >> "accepts",
            a1 << "POST / x...",
            a1 >> "stops reading",
            client << "hold on",
            a1 >> "413",
            client << "413",
            a1 << "closed",
            client << "done",
        )


class TestPool:
    """One connection, two places in the queue."""

    LIMITS = Limits(upstream_connections=1, upstream_queue=2, upstream_queue_time=5.0)

    def full(self, streams: Streams) -> StreamStage:
        stage = streams(limits=self.LIMITS)
        stage.play(
            client >> "GET /1",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /1",
            client2 >> "GET /2",
            client3 >> "POST /3 body",
        )
        return stage

    def test_they_are_served_in_turn(self, streams: Streams) -> None:
        self.full(streams).play(
            a1 >> "200",
            client << "200",
            a1 << "kept",
            a1 << "GET /2",
            client << "done",
            a1 >> "200",
            client2 << "200",
            a1 << "kept",
            a1 << "POST /3 body",
            client2 << "done",
            a1 >> "200",
            client3 << "200",
            a1 << "kept",
            client3 << "done",
        )

    def test_a_connection_that_closes_makes_room_for_a_new_one(self, streams: Streams) -> None:
        self.full(streams).play(
            a1 >> "closes",
            client << "502 upstream_reset",
            client << "done",
            a << "dialled",
            a >> "accepts",
            a2 << "GET /2",
            a2 >> "closes after it",
            a2 >> "200",
            client2 << "200",
            a2 << "closed",
            client2 << "done",
            a << "dialled",
            a >> "accepts",
            a3 << "POST /3 body",
        )

    def test_so_does_a_tunnel(self, streams: Streams) -> None:
        stage = streams(limits=self.LIMITS)
        stage.play(
            client >> "GET /upgrade",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /upgrade",
            client2 >> "GET /2",
            a1 >> "101",
            a << "dialled",
            client << "101 ...",
            a >> "accepts",
            a2 << "GET /2",
        )

    def test_one_too_many(self, streams: Streams) -> None:
        stage = self.full(streams)
        stage.client("late").says("GET /4")
        stage.loop.settle()
        assert list(stage.log) == [("late", "503 pool_full"), ("late", "done")]
        stage.log.clear()
        assert stage.plane.count(columns.UPSTREAM_OVERLOADED) == 1

    def test_too_long(self, streams: Streams) -> None:
        stage = streams(limits=self.LIMITS)
        stage.play(
            client >> "GET /1",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /1",
            client2 >> "GET /2",
            passes(1.0),
            client3 >> "POST /3 body",
            passes(4.1),
            client2 << "503 pool_timeout",
            client2 << "done",
            passes(1.0),
            client3 << "503 pool_timeout",
            client3 << "done",
            a1 >> "200",
            client << "200",
            a1 << "kept",
            client << "done",
        )

    def test_a_dial_that_fails_makes_room(self, streams: Streams) -> None:
        streams(limits=self.LIMITS).play(
            client >> "GET /1",
            a << "dialled",
            client2 >> "GET /2",
            client3 >> "GET /3",
            a >> "refuses",
            a << "dialled",
            client << "503 connect_failed",
            client << "done",
            a >> "refuses",
            a << "dialled",
            client2 << "503 connect_failed",
            client2 << "done",
            a >> "accepts",
            a1 << "GET /3",
        )

    def test_a_client_that_leaves_its_dial_makes_room(self, streams: Streams) -> None:
        streams(limits=self.LIMITS).play(
            client >> "GET /1",
            a << "dialled",
            client2 >> "GET /2",
            client >> "leaves",
            a << "given up",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /2",
        )

    def test_an_endpoint_that_leaves_the_plan_serves_who_waits(self, streams: Streams) -> None:
        stage = self.full(streams)
        stage.play(
            lambda: stage.plane.endpoints("b"),
            a1 >> "200",
            client << "200",
            a1 << "kept",
            a1 << "GET /2",
            client << "done",
            client >> "GET /4",
            b << "dialled",
            a1 >> "200",
            client2 << "200",
            a1 << "kept",
            a1 << "POST /3 body",
            client2 << "done",
            a1 >> "200",
            client3 << "200",
            a1 << "kept",
            a1 << "closed",
            client3 << "done",
        )


class TestRefused:
    """What an endpoint says it has not done (HTTP/2), whatever it was."""

    def test_another_endpoint_gets_it(self, streams: Streams) -> None:
        stage = streams(endpoints="ab")
        stage.play(client >> "POST / body", a << "dialled", a >> "accepts", a1 << "POST / body")
        stage.play(a1 >> "has done nothing", b << "dialled", b >> "accepts", b1 << "POST / body")
        assert stage.plane.count(columns.RESENDS) == 1
        assert stage.plane.count(columns.UPSTREAM_RESET) == 0

    def test_only_so_often(self, streams: Streams) -> None:
        stage = streams()
        stage.play(client >> "POST /", a << "dialled", a >> "accepts", a1 << "POST /")
        stage.play(a1 >> "has done nothing", a << "dialled", a >> "accepts", a2 << "POST /")
        stage.play(a2 >> "has done nothing", a << "dialled", a >> "accepts", a3 << "POST /")
        stage.play(a3 >> "has done nothing", client << "503 upstream_refused", client << "done")


class TestTrailers:
    """Those that are no part of a body's bytes."""

    def test_both_ways(self, streams: Streams) -> None:
        stage = streams()
        stage.play(client >> "POST / a...", a << "dialled", a >> "accepts", a1 << "POST / a...")
        stage.play(
            client >> "ends with trailers", a1 << "...and x: y", a1 >> "200 b...", client << "200 b..."
        )
        stage.play(a1 >> "ends with trailers", client << "...and x: y", a1 << "kept", client << "done")

    def test_they_wait_for_the_endpoint(self, streams: Streams) -> None:
        stage = streams()
        stage.play(client >> "POST / a...", a << "dialled", client >> "ends with trailers")
        stage.play(a >> "accepts", a1 << "POST / a...", a1 << "...and x: y")

    def test_they_are_sent_again(self, streams: Streams) -> None:
        stage = streams(endpoints="ab")
        stage.play(client >> "POST / a...", a << "dialled", a >> "accepts", a1 << "POST / a...")
        stage.play(client >> "ends with trailers", a1 << "...and x: y")
        stage.play(a1 >> "has done nothing", b << "dialled")
        stage.play(b >> "accepts", b1 << "POST / a...", b1 << "...and x: y")

    def test_layers_see_a_whole_response(self, streams: Streams) -> None:
        async def read(request: Request, handler: Handler) -> Response:
            response = await handler(request)
            assert await response.read(100) == b"ab"
            return response

        stage = streams(layers=[("rule", layer(read))])
        stage.play(
            client >> "GET /",
            a << "dialled",
            a >> "accepts",
            a1 << "GET /",
            a1 >> "200 a...",
            a1 >> "...b...",
            a1 >> "ends with trailers",
            client << "200 ab...",
            client << "...and x: y",
            a1 << "kept",
            client << "done",
        )
