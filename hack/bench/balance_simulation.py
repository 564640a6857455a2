"""What is lost because workers do not tell each other of their load: the balancers, in a time of our own.

A fixed number of clients, evenly over the workers, each ask again as soon as they are answered. Every worker
has a balancer of its own, and the endpoints are those of `hack.bench.uneven_backend`: some requests at once,
the others wait. Service times are exponential. No clock and no socket takes part, so a seed gives the same
figures on every machine.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

from hack.bench.figures import quantile
from hack.bench.uneven_backend import AT_ONCE
from nodeagent.plan.model import Balance
from nodeagent.proxy.balance import Balancer, make_balancer

WARM_UP = 0.1
"""The part of the requests that is not counted."""


class _Endpoint:
    def __init__(self, mean: float) -> None:
        self.mean = mean
        self.busy = 0
        self.queue: deque[tuple[float, int]] = deque()


def latencies(
    policy: str, workers: int, means: Sequence[float], clients: int, requests: int, seed: int = 1
) -> list[float]:
    """Return what `requests` requests took, in seconds, in the order of their ends; `means` are those of the
    endpoints' service times.
    """
    random.seed(seed)  # the balancers draw lots, too
    endpoints = tuple(_Endpoint(mean) for mean in means)
    balancers: list[Balancer[Any]] = [make_balancer(Balance(policy), number) for number in range(workers)]
    for balancer in balancers:
        balancer.keep(endpoints)
    ends: list[tuple[float, int, int, float]] = []  # when, which client, which endpoint, asked when
    took: list[float] = []

    def serve(endpoint: _Endpoint, now: float) -> None:
        while endpoint.queue and endpoint.busy < AT_ONCE:
            asked, client = endpoint.queue.popleft()
            endpoint.busy += 1
            until = now + random.expovariate(1 / endpoint.mean)
            heapq.heappush(ends, (until, client, endpoints.index(endpoint), asked))

    def ask(client: int, now: float) -> None:
        balancer = balancers[client % workers]
        endpoint = balancer.pick(endpoints, (), b"", now)
        assert endpoint is not None
        balancer.begun(endpoint, now)
        endpoint.queue.append((now, client))
        serve(endpoint, now)

    for client in range(clients):
        ask(client, client * 1e-6)
    while len(took) < requests:
        now, client, number, asked = heapq.heappop(ends)
        endpoint, balancer = endpoints[number], balancers[client % workers]
        endpoint.busy -= 1
        took.append(now - asked)
        balancer.answered(endpoint, now - asked, now)
        balancer.ended(endpoint, 0.0, now)
        serve(endpoint, now)
        ask(client, now)
    return took


def p99_ms(policy: str, workers: int, means: Sequence[float], clients: int, requests: int = 20_000) -> float:
    """Return the 99th percentile after the warm-up, in milliseconds."""
    took = latencies(policy, workers, means, clients, requests)
    return quantile(took[int(WARM_UP * requests) :], 99) * 1e3
