"""A second try beside a slow one, step by step: which of the two becomes the response, and what is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from middleware.contract import Handler, Request, Response
from nodeagent.stats import columns
from tests.exchange.layers import layer
from tests.exchange.script import a, a1, b, b1, client, passes
from tests.exchange.streams import StreamStage

Streams = Callable[..., StreamStage]


class TestSecondTry:
    """Begins after half a second."""

    async def race(self, request: Request, handler: Handler) -> Response:
        race = request.race(0.5, self.permit)
        try:
            return await handler(request)
        finally:
            race.cancel()

    def permit(self) -> bool:
        self.asked += 1
        return self.permits

    @pytest.fixture(autouse=True)
    def _permit(self) -> None:
        self.permits, self.asked = True, 0

    def waiting(self, streams: Streams) -> StreamStage:
        """Return a stage on which the first endpoint has the request and is slow."""
        stage = streams(endpoints="ab", layers=[("rule", layer(self.race))])
        stage.play(client >> "GET /", a << "dialled", a >> "accepts", a1 << "GET /")
        return stage

    def both(self, streams: Streams) -> StreamStage:
        stage = self.waiting(streams)
        stage.play(passes(0.6), b << "dialled", b >> "accepts", b1 << "GET /")
        return stage

    def test_the_second_is_faster(self, streams: Streams) -> None:
        self.both(streams).play(
            b1 >> "200 x...",
            a1 << "closed",
            client << "200 x...",
            b1 >> "...y",
            client << "...y",
            b1 << "kept",
            client << "done",
        )

    def test_the_first_is_faster(self, streams: Streams) -> None:
        self.both(streams).play(
            a1 >> "200 x", b1 << "closed", client << "200 x", a1 << "kept", client << "done"
        )

    def test_the_first_is_fast_enough(self, streams: Streams) -> None:
        self.waiting(streams).play(
            passes(0.4), a1 >> "200 x", client << "200 x", a1 << "kept", client << "done", passes(5.0)
        )
        assert self.asked == 0

    def test_it_is_not_permitted(self, streams: Streams) -> None:
        self.permits = False
        self.waiting(streams).play(
            passes(0.6), a1 >> "200 x", client << "200 x", a1 << "kept", client << "done"
        )
        assert self.asked == 1

    def test_the_first_answers_while_the_second_connects(self, streams: Streams) -> None:
        self.waiting(streams).play(
            passes(0.6),
            b << "dialled",
            a1 >> "200 x",
            b << "given up",
            client << "200 x",
            a1 << "kept",
            client << "done",
        )

    def test_the_first_breaks_while_the_second_connects(self, streams: Streams) -> None:
        self.waiting(streams).play(
            passes(0.6),
            b << "dialled",
            a1 >> "closes",
            b >> "accepts",
            b1 << "GET /",
            b1 >> "200 x",
            client << "200 x",
            b1 << "kept",
            client << "done",
        )

    def test_the_first_breaks_while_the_second_is_asked(self, streams: Streams) -> None:
        self.both(streams).play(
            a1 >> "closes", b1 >> "200 x", client << "200 x", b1 << "kept", client << "done"
        )

    def test_the_second_breaks(self, streams: Streams) -> None:
        self.both(streams).play(
            b1 >> "closes", a1 >> "200 x", client << "200 x", a1 << "kept", client << "done"
        )

    def test_the_second_does_not_connect(self, streams: Streams) -> None:
        stage = self.waiting(streams)
        stage.play(
            passes(0.6),
            b << "dialled",
            b >> "refuses",
            a1 >> "200 x",
            client << "200 x",
            a1 << "kept",
            client << "done",
        )
        assert stage.plane.count(columns.UPSTREAM_CONNECT_FAILED) == 1

    def test_the_first_still_connects(self, streams: Streams) -> None:
        streams(endpoints="ab", layers=[("rule", layer(self.race))]).play(
            client >> "GET /",
            a << "dialled",
            passes(0.6),
            b << "dialled",
            b >> "accepts",
            b1 << "GET /",
            b1 >> "200 x",
            a << "given up",
            client << "200 x",
            b1 << "kept",
            client << "done",
        )

    def test_both_break(self, streams: Streams) -> None:
        self.both(streams).play(
            a1 >> "closes", b1 >> "closes", client << "502 upstream_reset", client << "done"
        )

    def test_the_client_leaves(self, streams: Streams) -> None:
        stage = self.both(streams)
        said = stage.does(client >> "leaves")
        assert said == {"a1": ["closed"], "b1": ["closed"]}

    def test_a_request_that_has_not_come_completely(self, streams: Streams) -> None:
        streams(endpoints="ab", layers=[("rule", layer(self.race))]).play(
            client >> "PUT / ab...",
            a << "dialled",
            a >> "accepts",
            a1 << "PUT / ab...",
            passes(0.6),
            client >> "...c",
            a1 << "...c",
        )
        assert self.asked == 0
