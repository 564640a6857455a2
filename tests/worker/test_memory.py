"""Who is broken off when a worker holds too much."""

from __future__ import annotations

import pytest

from nodeagent.proxy.runtime import Holding
from nodeagent.worker.heap import trim
from nodeagent.worker.memory import MIB, resident, too_greedy

BUDGET = 320 * MIB
GREEDY = Holding("10.0.0.1", 4096, 21 * MIB, 21 * MIB)
MANY = Holding("10.0.0.1", 10, 9 * MIB, 161 * MIB)


@pytest.mark.parametrize(
    ("used", "most", "expected"),
    [
        (BUDGET, GREEDY, None),
        (BUDGET + 1, GREEDY, GREEDY),
        (BUDGET + 1, MANY, MANY),
        (
            BUDGET + 1,
            Holding("10.0.0.1", 10, 20 * MIB, 160 * MIB),
            None,
        ),  # it is not the clients that fill it
        (BUDGET + 1, None, None),
    ],
)
def test_only_beyond_the_budget_and_only_who_fills_it(
    used: int, most: Holding | None, expected: Holding | None
) -> None:
    assert too_greedy(used, BUDGET, lambda: most) == expected


def test_what_this_process_uses() -> None:
    trim()
    before = resident()
    block = bytearray(64 * MIB)
    block[::4096] = b"x" * len(block[::4096])
    assert 60 * MIB < resident() - before < 100 * MIB
