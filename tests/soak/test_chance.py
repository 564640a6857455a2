"""Choices that do not depend on the order in which tasks run."""

from __future__ import annotations

import asyncio

from hack.soak.chance import begin, chance


async def choose(seed: str, turns: int) -> list[float]:
    begin(seed)
    chosen = []
    for _ in range(turns):
        chosen.append(chance().random())
        await asyncio.sleep(0)
    return chosen


async def test_a_task_makes_the_same_choices_whoever_else_runs() -> None:
    alone = await asyncio.create_task(choose("1/a", 5))
    together = await asyncio.gather(choose("1/b", 9), choose("1/a", 5), choose("2/a", 5))
    assert together[1] == alone
    assert together[0][:5] != alone
    assert together[2] != alone
