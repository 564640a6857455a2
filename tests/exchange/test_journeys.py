"""The journeys of exchanges: what their stages say after retries, failed connections and second tries."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from middleware.contract import Handler, Journey, Request, Response, Stage
from tests.exchange.layers import layer
from tests.exchange.script import a, a1, b, b1, client, passes
from tests.exchange.streams import StreamStage

Streams = Callable[..., StreamStage]


def told(stage: StreamStage) -> list[tuple[str, int, str, float]]:
    """Return the stages: kind, number, outcome, and the seconds they took."""
    journey = stage.plane.watcher.ends[-1].journey
    assert journey is not None
    assert journey.left_out == 0
    return shown(journey)


def shown(journey: Journey) -> list[tuple[str, int, str, float]]:
    """Return the stages of a journey in the same way."""
    return [(one.kind, one.number, one.outcome, round(one.took, 3)) for one in journey.stages]


async def again(request: Request, handler: Handler) -> Response:
    """Send the request twice."""
    (await handler(request)).discard()
    return await handler(request)


@pytest.fixture
def wanted(streams: Streams) -> Streams:
    """Make stages on which journeys are kept."""

    def make(**settings: object) -> StreamStage:
        stage = streams(**settings)
        stage.plane.listener.journeys = True
        return stage

    return make


def test_nobody_wants_it(streams: Streams) -> None:
    stage = streams()
    stage.plane.watcher.wants_all = False
    stage.plane.listener.tap(None)  # has it ask again what is wanted
    stage.does(client >> "GET /", a >> "accepts", a1 >> "503 x")
    assert stage.plane.watcher.ends[-1].journey is None


def test_a_connection_is_made_and_the_endpoint_answers(wanted: Streams) -> None:
    stage = wanted()
    stage.does(client >> "GET /", passes(0.2), a >> "accepts", passes(0.3), a1 >> "200 x...", passes(0.4))
    stage.does(a1 >> "...y")
    assert told(stage) == [("connect", 1, "", 0.2), ("try", 1, "200", 0.7)]
    journey = stage.plane.watcher.ends[-1].journey
    assert journey is not None
    assert journey.stages[1].answered == pytest.approx(journey.start + 0.5)


def test_an_endpoint_that_accepts_nothing(wanted: Streams) -> None:
    stage = wanted(endpoints="ab")
    stage.does(client >> "GET /", passes(0.2), a >> "refuses", passes(0.3), b >> "accepts", b1 >> "200 x")
    assert told(stage) == [
        ("connect", 1, "connect_failed", 0.2),
        ("connect", 2, "", 0.3),
        ("try", 2, "200", 0.0),
    ]


def test_a_second_try_beside_the_first(wanted: Streams) -> None:
    async def race(request: Request, handler: Handler) -> Response:
        limit = request.race(0.5, lambda: True)
        try:
            return await handler(request)
        finally:
            limit.cancel()

    stage = wanted(endpoints="ab", layers=[("rule", layer(race))])
    stage.does(client >> "GET /", a >> "accepts", passes(0.6), b >> "accepts", passes(0.2), b1 >> "200 x")
    kinds = [one for one in told(stage) if one[0] == "try"]
    assert kinds == [("try", 1, "abandoned", 0.8), ("try", 2, "200", 0.2)]


def test_a_layer_that_waits_and_tries_again(wanted: Streams) -> None:
    async def wait_between(request: Request, handler: Handler) -> Response:
        (await handler(request)).discard()
        request.waited("backoff", stage.plane.loop.time())
        return await handler(request)

    stage = wanted(endpoints="ab", layers=[("rule", layer(wait_between))])
    stage.does(client >> "GET /", a >> "accepts", passes(0.1), a1 >> "503 x", b >> "accepts", b1 >> "200 y")
    assert [(kind, number, outcome) for kind, number, outcome, _ in told(stage)] == [
        ("connect", 1, ""),
        ("try", 1, "503"),
        ("backoff", 0, ""),
        ("connect", 2, ""),
        ("try", 2, "200"),
    ]


def test_a_client_that_leaves(wanted: Streams) -> None:
    stage = wanted()
    stage.does(client >> "GET /", a >> "accepts", passes(0.1), client >> "leaves")
    assert told(stage)[-1] == ("try", 1, "abandoned", 0.1)


def test_an_endpoint_that_breaks_off(wanted: Streams) -> None:
    stage = wanted()
    stage.does(client >> "POST /", a >> "accepts", passes(0.1), a1 >> "closes")
    assert told(stage)[-1] == ("try", 1, "upstream_reset", 0.1)


def test_the_stages_are_values() -> None:
    assert Stage("try", 1.0, 3.0).took == 2.0


def test_a_layer_follows_the_journey_that_nobody_else_wants(streams: Streams) -> None:
    seen: list[list[tuple[str, int, str, float]]] = []

    async def follow(request: Request, handler: Handler) -> Response:
        so_far = request.follow_journey()
        seen.append(shown(so_far()))
        try:
            return await handler(request)
        finally:
            seen.append(shown(so_far()))

    stage = streams(endpoints="ab", layers=[("listener", layer(follow)), ("rule", layer(again))])
    stage.plane.listener.journeys = False
    stage.does(client >> "GET /", a >> "accepts", passes(0.1), a1 >> "503 x", passes(0.2), b >> "accepts")
    stage.does(passes(0.4), b1 >> "200 y...", passes(0.8), b1 >> "...z")
    assert seen == [
        [],
        [("connect", 1, "", 0.0), ("try", 1, "503", 0.1), ("connect", 2, "", 0.2), ("try", 2, "200", 0.4)],
    ]


def test_a_layer_that_begins_to_follow_late_misses_what_was_before(streams: Streams) -> None:
    seen: list[list[tuple[str, int, str, float]]] = []

    async def follow(request: Request, handler: Handler) -> Response:
        response = await handler(request)
        seen.append(shown(request.follow_journey()()))
        return response

    stage = streams(layers=[("rule", layer(follow))])
    stage.plane.listener.journeys = False
    stage.does(client >> "GET /", a >> "accepts", passes(0.5), a1 >> "200 x")
    assert seen == [[("middleware", 0, "", 0.5)]]
