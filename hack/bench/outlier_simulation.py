"""What is lost because workers do not tell each other of failures: outlier detection, in a time of our own.

One of some endpoints fails a part of its requests; each request goes to any worker, by lot. Every worker has
its own outlier detection with the default options, and takes the endpoints that it has not ejected in turn.
No clock and no socket takes part, so a seed gives the same figures on every machine.
"""

from __future__ import annotations

import random
from typing import Final

from nodeagent.plan.model import OutlierDetection
from nodeagent.proxy.balance.round_robin import RoundRobin
from nodeagent.proxy.outliers import Outliers

ENDPOINTS: Final = ("bad", "good 1", "good 2", "good 3")
SECONDS: Final = 60.0
SEEDS: Final = 20
"""Runs that a figure is the mean of."""


class _Worker:
    def __init__(self, number: int, options: OutlierDetection) -> None:
        self.outliers = Outliers(options, ENDPOINTS, 0.0)
        self._balancer: RoundRobin[str] = RoundRobin(number)

    def pick(self) -> str:
        ejected = self.outliers.ejected
        picked = self._balancer.pick(tuple(one for one in ENDPOINTS if one not in ejected), ())
        assert picked is not None
        return picked


def failed_requests(workers: int, per_second: int, failing: float, seed: int) -> int:
    """Return how many requests fail in `SECONDS` if one endpoint fails this part of its requests."""
    chance = random.Random(seed)
    options = OutlierDetection(("5xx",))
    crew = [_Worker(number, options) for number in range(workers)]
    failed, looked = 0, 0
    for number in range(int(SECONDS * per_second)):
        now = number / per_second
        if int(now) > looked:  # workers look once a second
            looked = int(now)
            for worker in crew:
                worker.outliers.advance(now)
        worker = chance.choice(crew)
        endpoint = worker.pick()
        if endpoint == "bad" and chance.random() < failing:
            failed += 1
            worker.outliers.failed(endpoint, "503", now)
        else:
            worker.outliers.passed(endpoint)
    return failed


def mean_failed(workers: int, per_second: int, failing: float) -> float:
    """Return the mean over some runs."""
    runs = (failed_requests(workers, per_second, failing, seed) for seed in range(SEEDS))
    return sum(runs) / SEEDS
