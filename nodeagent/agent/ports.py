"""Which ports of the plan are not served on this machine: for the log, `/plan` and `/readyz?verbose`.

Readiness does not depend on it: all other ports are served, and an agent that calls itself unready would
serve none of them better.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

import structlog

from nodeagent.control.messages import PortFailure
from nodeagent.plan.model import Listener, ListenerKey, NodePlan
from nodeagent.plan.unserved import Unserved, listeners_at, with_problems

log = structlog.get_logger()

SHOWN = 10
"""Ports that `/readyz?verbose` names; `/plan` has all of them."""


class UnservedPorts:
    """Remembers what workers said of ports that they do not serve, and logs what comes and goes."""

    def __init__(self) -> None:
        self._failures: Mapping[ListenerKey, PortFailure] = {}
        self._unserved: dict[ListenerKey, Unserved] = {}

    def tell(self, failures: Mapping[ListenerKey, PortFailure]) -> None:
        """Take note of all ports that are not served now, by the workers' word."""
        self._failures = failures

    def shown_in(self, plan: NodePlan, keys: Container[ListenerKey]) -> NodePlan:
        """Return this plan with a problem for each port that is not served.

        `keys` are the addresses and ports that are to be served: those of the plan, and of the next one while
        it is being applied.
        """
        before = self._unserved
        self._unserved = {
            key: _unserved(listener, self._failures[key])
            for key, listener in listeners_at(plan, self._failures).items()
            if key in keys
        }
        for key, one in self._unserved.items():
            if key not in before or before[key].reason != one.reason:
                log.error("listen_failed", **_where(one), reason=one.reason, effect=one.effect)
        for key, one in before.items():
            if key not in self._unserved and key in keys:
                log.info("listen_recovered", **_where(one))
        return with_problems(plan, tuple(self._unserved.values()))

    def notes(self) -> Iterator[str]:
        """Yield the lines of `/readyz?verbose`."""
        for _, one in zip(range(SHOWN), self._unserved.values(), strict=False):
            yield f"problem: Service {one.listener.service}, port {one.listener.port}: {one.reason}"
        if (more := len(self._unserved) - SHOWN) > 0:
            yield f"problem: {more} more ports are not served, see /plan"


def _unserved(listener: Listener, failure: PortFailure) -> Unserved:
    return Unserved(listener, failure.reason, failure.expected, failure.effect)


def _where(one: Unserved) -> dict[str, str | int]:
    address, port = one.listener.key
    return {
        "service": str(one.listener.service),
        "port": one.listener.port,
        "address": f"{address}:{port}",
    }
