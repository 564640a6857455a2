from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.contract import NoEndpoint, Problem
from middleware.mirror import MIRROR, MOST_AT_ONCE, Options, Share, build, parse
from middleware.testing import FakeContext, FakeRequest, handler_of, run
from middleware.values import WHOLE


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("next", Options("next")),
        (" next.staging  10% ", Options("next.staging", 1000)),
        ("n 0.01%", Options("n", 1)),
    ],
)
def test_values(text: str, options: Options) -> None:
    assert parse({MIRROR: text}) == options


@pytest.mark.parametrize(
    "text", ["", "10%", "next 0%", "next 101%", "next 10", "a.b.c", "Next", "a/b", "a b c", "a." * 1000]
)
def test_bad_values_are_problems(text: str) -> None:
    assert isinstance(parse({MIRROR: text}), Problem)


@given(st.integers(1, WHOLE), st.floats(0, 1, exclude_max=True), st.integers(0, 500))
def test_shares_are_exact_to_within_one_request(share: int, fraction: float, requests: int) -> None:
    policy = Share(share, fraction)
    copied = sum(policy.due() for _ in range(requests))
    assert abs(copied - requests * share / WHOLE) < 1 + 1e-9


def test_a_copy_when_the_answer_is_there() -> None:
    context = FakeContext()
    handler, _ = handler_of(build(Options("next"), context), 200)
    request = FakeRequest()
    assert run(handler(request)).status == 200
    ((backend, done),) = request.asides
    assert backend == "next"
    done(0)
    assert context.metrics == {
        "svcmesh_mirrored_requests": 1,
        "svcmesh_mirror_failures": 1,
        "svcmesh_mirror_left_out": 0,
    }


def test_failures_are_copied_too_and_stay_failures() -> None:
    handler, _ = handler_of(build(Options("next"), FakeContext()), NoEndpoint("none"))
    request = FakeRequest()
    with pytest.raises(NoEndpoint):
        run(handler(request))
    assert len(request.asides) == 1


def test_what_is_not_kept_is_left_out() -> None:
    context = FakeContext()
    handler, _ = handler_of(build(Options("next"), context), 200)
    for request in (FakeRequest(replayable=False), FakeRequest(completed=None)):
        run(handler(request))
        assert request.asides == []
    assert context.metrics["svcmesh_mirror_left_out"] == 2


def test_so_many_at_once() -> None:
    context = FakeContext()
    handler, _ = handler_of(build(Options("next"), context), 200)
    requests = [FakeRequest() for _ in range(MOST_AT_ONCE + 1)]
    for request in requests:
        run(handler(request))
    assert context.metrics["svcmesh_mirror_left_out"] == 1
    requests[0].asides[0][1](200)
    run(handler(FakeRequest()))
    assert context.metrics["svcmesh_mirrored_requests"] == MOST_AT_ONCE + 1
