"""Balancers: which of the endpoints that are worth a try is next. One file each, and one list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from nodeagent.plan.model import Balance
from nodeagent.proxy.balance.consistent_hash import ConsistentHash
from nodeagent.proxy.balance.contract import Balancer
from nodeagent.proxy.balance.ewma import Ewma
from nodeagent.proxy.balance.least_request import LeastRequest
from nodeagent.proxy.balance.random_choice import Random
from nodeagent.proxy.balance.round_robin import RoundRobin
from nodeagent.proxy.balance.slow_start import SlowStart

BALANCERS: Final[Mapping[str, Callable[[Balance, int], Balancer[Any]]]] = {
    "round-robin": lambda _, worker: RoundRobin(worker),
    "least-request": lambda _, __: LeastRequest(),
    "ewma": lambda balance, _: Ewma(balance.decay),
    "random": lambda _, __: Random(),
    "consistent-hash": lambda balance, worker: ConsistentHash(worker, balance.factor),
}
"""By name. Each is called with its options and the worker's number, so that not all workers begin at the same
place."""


def make_balancer(balance: Balance, worker: int = 0) -> Balancer[Any]:
    """Return the balancer that a plan asks for.

    Raises:
        KeyError: there is none of this name.
    """
    balancer = BALANCERS[balance.policy](balance, worker)
    if not balance.slow_start:
        return balancer
    return SlowStart(balancer, balance.slow_start, recovered=balance.slow_start_recovered)


__all__ = ["BALANCERS", "Balancer", "make_balancer"]
