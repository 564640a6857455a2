"""The table of what each middleware costs has all of them, in use."""

from __future__ import annotations

from itertools import chain

from hack.bench.middleware_case import CASES, measure
from hack.bench.services import layers_of
from middleware.registry import MIDDLEWARES


def test_every_middleware_of_requests_has_a_line() -> None:
    assert {case.middleware for case in CASES} == {
        middleware.name for middleware in MIDDLEWARES if middleware.scope != "connection"
    }


def test_every_line_has_its_middleware_in_use() -> None:
    assert [[spec.name for spec in chain(*layers_of(case.annotations))] for case in CASES] == [
        [case.middleware] for case in CASES
    ]
    assert len({case.shown for case in CASES}) == len(CASES)


def test_every_line_can_be_measured() -> None:
    measured = [cost.case for cost in measure(rounds=1)]
    assert measured == list(CASES)
