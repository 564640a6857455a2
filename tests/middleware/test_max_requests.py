from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from middleware.contract import ExchangeError, Handler, Reply, Request, Response, UpstreamReset
from middleware.max_requests import MIDDLEWARE, ConcurrencyLimited, Options, QueueTimeout, build, parse
from middleware.registry import MIDDLEWARES
from middleware.testing import FakeContext, FakeRequest, FakeResponse, handler_of, run, sent_over, status_of
from tests.middleware.problems import assert_problem

NAME = "svc.mesh/max-requests"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("100", Options(100, 100)),
        (" 100  queue=50 queue-time=250ms ", Options(100, 50, 0.25)),
        ("5 queue=0", Options(5, 0)),
        ("50000", Options(50000, 10000)),
        ("adaptive", Options(1000, 100, least=3)),
        ("adaptive max=2", Options(2, 100, least=2)),
        ("adaptive min=10 max=10 queue=0", Options(10, 0, least=10)),
    ],
)
def test_values(text: str, options: Options) -> None:
    assert parse({NAME: text}) == options
    assert sent_over(options) == options


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", '"" is neither a number nor adaptive'),
        ("many", '"many" is neither a number nor adaptive'),
        ("0", "0 is out of range"),
        ("100001", "100001 is out of range"),
        ("10 20", '"20" is not name=value'),
        ("10 queue=-1", "-1 is out of range"),
        ("10 queue=10001", "10001 is out of range"),
        ("10 queue=1 queue=1", "queue is given twice"),
        ("10 queue-time=2m", "2m is out of range"),
        ("10 queue=0 queue-time=1s", "queue-time has no effect without a queue"),
        ("10 min=5", '"min" is not known'),
        ("adaptive min=5 max=4", "min=5 is greater than max=4"),
        ("adaptive max=0", "0 is out of range"),
    ],
)
def test_a_bad_value_is_a_problem(text: str, reason: str) -> None:
    assert_problem(parse({NAME: text}), NAME, text, reason)


def test_unused() -> None:
    assert parse({"svc.mesh/enabled": "true"}) is None


async def test_a_request_is_in_progress_until_its_end() -> None:
    context = FakeContext()
    handler, scripted = handler_of(build(Options(2, 0), context))
    requests = [FakeRequest() for _ in range(4)]
    assert [status_of(handler(request)) for request in requests[:3]] == [200, 200, "concurrency_limited"]
    requests[0].end()
    assert status_of(handler(requests[3])) == 200
    assert len(scripted.requests) == 3
    assert context.metrics == {
        "svcmesh_concurrency_limit": 2,
        "svcmesh_concurrency_queued": 0,
        "svcmesh_concurrency_limited": 1,
    }


async def test_a_refusal_says_why_and_when_to_try_again() -> None:
    handler, _ = handler_of(build(Options(1, 0), FakeContext()))
    run(handler(FakeRequest()))
    with pytest.raises(ConcurrencyLimited, match="1 requests are in progress and 0 wait") as error:
        run(handler(FakeRequest()))
    assert error.value.status == 503
    assert error.value.headers == (("Retry-After", "1"),)
    assert not error.value.processed


def test_a_request_that_fails_is_in_progress_until_its_end_too() -> None:
    handler, _ = handler_of(build(Options(1, 0), FakeContext()), ConcurrencyLimited(""), 200)
    request = FakeRequest()
    assert status_of(handler(request)) == "concurrency_limited"
    request.end(503)
    assert status_of(handler(FakeRequest())) == 200


class Crowd:
    """Requests to one layer, each a task."""

    def __init__(self, options: Options) -> None:
        self.context = FakeContext()
        self.order: list[Request] = []
        layer = build(options, self.context)

        async def serve(request: Request) -> Response:
            self.order.append(request)
            return FakeResponse(200)

        self.handler: Handler = layer(serve)

    def ask(self, source: str) -> tuple[FakeRequest, asyncio.Task[Any]]:
        request = FakeRequest(source=source)

        async def go(answer: Awaitable[Response]) -> Response:
            return await answer

        return request, asyncio.get_running_loop().create_task(go(self.handler(request)))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_pod_with_least_is_next() -> None:
    crowd = Crowd(Options(2, 4))
    greedy = [crowd.ask("10.1.0.1") for _ in range(5)]
    await settle()
    modest, _ = crowd.ask("10.1.0.2")
    await settle()
    greedy[0][0].end()
    await settle()
    assert crowd.order == [greedy[0][0], greedy[1][0], modest]
    assert crowd.context.metrics["svcmesh_concurrency_queued"] == 4
    for _, task in greedy[2:]:
        task.cancel()


async def test_a_full_queue_makes_room_for_who_has_less() -> None:
    crowd = Crowd(Options(1, 2))
    greedy = [crowd.ask("10.1.0.1") for _ in range(3)]
    await settle()
    _, modest = crowd.ask("10.1.0.2")
    await settle()
    with pytest.raises(ConcurrencyLimited):
        await greedy[2][1]
    assert not modest.done()
    assert not greedy[1][1].done()
    for _, task in (greedy[1], ("", modest)):
        task.cancel()


async def test_who_waits_too_long_or_leaves_gives_the_place_up() -> None:
    crowd = Crowd(Options(1, 2))
    first, _ = crowd.ask("10.1.0.1")
    _, left = crowd.ask("10.1.0.1")
    await settle()
    left.cancel()
    late, waits = crowd.ask("10.1.0.1")
    await settle()
    (limit,) = late.deadlines
    assert limit.seconds == 1.0
    assert not limit.cancelled
    error = limit.error()
    assert isinstance(error, QueueTimeout)
    assert str(error) == "none of 1 requests before it ended within 1s"
    waits.cancel()
    await settle()
    assert [limit.cancelled for limit in late.deadlines] == [True]
    last, served = crowd.ask("10.1.0.1")
    await settle()
    first.end()
    assert (await served).status == 200
    assert crowd.order == [first, last]


def played(answer: Callable[[float], Response | ExchangeError], requests: int) -> dict[str, int]:
    """Play requests to an adaptive layer, ten at once; return its metrics."""
    context = FakeContext()

    async def serve(_request: Request) -> Response:
        context.time += 0.001
        outcome = answer(context.time)
        if isinstance(outcome, ExchangeError):
            raise outcome
        return outcome

    handler = build(Options(100, 0, least=3), context)(serve)
    for _ in range(requests):
        request = FakeRequest()
        with contextlib.suppress(UpstreamReset):
            run(handler(request))
        request.end()
    return context.metrics


def test_an_adaptive_limit_begins_when_it_knows_the_latency() -> None:
    assert played(lambda _: FakeResponse(200), 9)["svcmesh_concurrency_limit"] == 3
    assert played(lambda _: FakeResponse(200), 10)["svcmesh_concurrency_limit"] == 20


@pytest.mark.parametrize(
    "answer", [FakeResponse(500), Reply(200), UpstreamReset("")], ids=["500", "reply", "reset"]
)
def test_what_says_nothing_about_the_latency_is_not_taken_for_it(answer: Response | ExchangeError) -> None:
    assert played(lambda _: answer, 100)["svcmesh_concurrency_limit"] == 3


def test_the_time_of_a_request_includes_its_waiting() -> None:
    names = [middleware.name for middleware in MIDDLEWARES]
    assert names.index("timeout") < names.index("max-requests") < names.index("circuit-breaker")


def test_the_registry_entry_documents_what_parse_reads() -> None:
    assert [annotation.name for annotation in MIDDLEWARE.annotations] == [NAME]
