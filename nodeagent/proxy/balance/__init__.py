"""Balancers: which of the endpoints that are worth a try is next. One file each, and one list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from nodeagent.proxy.balance.contract import Balancer
from nodeagent.proxy.balance.round_robin import RoundRobin

BALANCERS: Final[Mapping[str, Callable[[int], Balancer]]] = {
    "round-robin": RoundRobin,
}
"""By name. Each is called with the worker's number, so that workers do not all begin at the same place."""

__all__ = ["BALANCERS", "Balancer"]
