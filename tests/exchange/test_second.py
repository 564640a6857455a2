"""A second try beside a slow one, step by step: which of the two becomes the response, and what is left."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from middleware.contract import Handler, Request, Response
from nodeagent.plan.model import Affinity
from nodeagent.stats import columns
from tests.exchange.http1 import Http1Stage, get, ok
from tests.exchange.layers import layer
from tests.exchange.script import a, a1, b, b1, client, passes
from tests.exchange.streams import StreamStage

Streams = Callable[..., StreamStage]


class Race:
    """A second try that begins after half a second."""

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


class TestSecondTry(Race):
    """What the client and the endpoints hear."""

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


class TestBalancer(Race):
    """Each of the two tries is counted at its own endpoint, and its time is that endpoint's."""

    def test_both_are_under_way(self, streams: Streams) -> None:
        stage = self.both(streams)
        assert stage.plane.under_way == {"a": 1, "b": 1}
        stage.does(client >> "leaves")
        assert stage.plane.under_way == {}

    def test_the_second_is_faster(self, streams: Streams) -> None:
        stage = self.both(streams)
        stage.does(passes(0.2), b1 >> "200 x...")
        assert stage.plane.heard == [("b", True, 0.3)]
        assert stage.plane.under_way == {"b": 1}
        stage.does(b1 >> "...y")
        assert stage.plane.under_way == {}

    def test_the_first_is_faster(self, streams: Streams) -> None:
        stage = self.both(streams)
        stage.does(a1 >> "200 x...")
        assert stage.plane.heard == [("a", True, 0.6)]
        assert stage.plane.under_way == {"a": 1}
        stage.does(a1 >> "...y")
        assert stage.plane.under_way == {}

    def test_the_second_breaks(self, streams: Streams) -> None:
        stage = self.both(streams)
        stage.does(b1 >> "closes")
        assert stage.plane.heard == [("b", False, 0.1)]
        assert stage.plane.under_way == {"a": 1}
        stage.does(a1 >> "200 x")

    def test_the_second_does_not_connect(self, streams: Streams) -> None:
        stage = self.waiting(streams)
        stage.does(passes(0.6), b >> "refuses")
        assert stage.plane.heard == [("b", False, 0.1)]
        assert stage.plane.under_way == {"a": 1}
        stage.does(a1 >> "200 x")

    def test_the_first_breaks_and_the_second_answers(self, streams: Streams) -> None:
        stage = self.both(streams)
        stage.does(a1 >> "closes", passes(0.2), b1 >> "200 x")
        assert stage.plane.heard == [("a", False, 0.6), ("b", True, 0.3)]
        assert stage.plane.under_way == {}

    def test_one_that_is_not_permitted_is_not_counted(self, streams: Streams) -> None:
        self.permits = False
        stage = self.waiting(streams)
        stage.does(passes(0.6))
        assert stage.plane.under_way == {"a": 1}
        assert [one.begins for one in stage.plane.balancers if one.begins] == [1]
        stage.does(a1 >> "200 x")


class TestCookie(Race):
    """Whose endpoint the client is given (`svc.mesh/session-affinity`)."""

    def stage(self, wires: Callable[..., Http1Stage]) -> Http1Stage:
        return wires(endpoints="ab", affinity=Affinity("shop"), layers=[("rule", layer(self.race))])

    def first_cookie(self, stage: Http1Stage) -> str:
        """Have the first client's request answered by `a`, and return the cookie that it got."""
        said = stage.does(client >> get(), a >> "accepts", a1 >> ok())
        found = re.search(rb"Set-Cookie: (shop=\w+);", b"".join(said["client"]))
        assert found is not None, said
        return found[1].decode()

    def test_a_client_without_one_is_given_the_one_that_has_answered(
        self, wires: Callable[..., Http1Stage]
    ) -> None:
        stage = self.stage(wires)
        of_a = self.first_cookie(stage)
        stage.does(client >> get(), b >> "accepts", passes(0.6))
        said = stage.does(a1 >> ok())
        answer = b"".join(said["client"])
        assert b"Set-Cookie: " + of_a.encode() in answer, "b had the request first, and a was faster"

    def test_a_client_keeps_the_one_that_it_has(self, wires: Callable[..., Http1Stage]) -> None:
        stage = self.stage(wires)
        of_a = self.first_cookie(stage)
        stage.does(client >> get("/", f"Cookie: {of_a}"), passes(0.6), b >> "accepts")
        said = stage.does(b1 >> ok(b"from b"))
        answer = b"".join(said["client"])
        assert answer.endswith(b"from b")
        assert b"Set-Cookie" not in answer
