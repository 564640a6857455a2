"""The part of `/metrics` about objectives (`svc.mesh/objective`): what was promised, and what was kept.

Recording rules make error budgets of it (`manifests/monitoring/rules.yaml`). The agent itself counts which
requests were bad, so that rules need neither the buckets of the histogram nor the series of sources: of these
there are many, and they may be counted together as `other`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from nodeagent.admin.family import PORT_LABELS, Family
from nodeagent.admin.lines import Lines, port_labels, series_of
from nodeagent.plan.model import NodePlan, Objective
from nodeagent.plan.objective import PERCENT
from nodeagent.stats.objectives import Counted, ObjectiveCounts, first_slow_column
from nodeagent.stats.region import SlotKey
from nodeagent.stats.signals import Promise

SLI: Final = "sli"
_SHOWN: Final = "for a port with an objective that has had a request"

RATIO: Final = Family(
    "svcmesh_objective_ratio",
    "gauge",
    "The share of requests that shall be good; availability: did not fail, latency: was in time.",
    "objectives",
    (*PORT_LABELS, SLI),
    "Every agent says the same: take the `max`. What is left to 1 is the error budget "
    "([objectives](objectives.md)).",
    _SHOWN,
)
LATENCY: Final = Family(
    "svcmesh_objective_latency_seconds",
    "gauge",
    "The time within which a request counts as in time.",
    "objectives",
    PORT_LABELS,
    "Compare it with percentiles of `svcmesh_request_duration_seconds`.",
    "for a port with a time in its objective that has had a request",
)
REQUESTS: Final = Family(
    "svcmesh_objective_requests_total",
    "counter",
    "Requests to ports with an objective, of all sources together.",
    "objectives",
    PORT_LABELS,
    "What the bad ones are a share of.",
    _SHOWN,
)
BAD: Final = Family(
    "svcmesh_objective_bad_requests_total",
    "counter",
    "Those of them that failed (availability), or took longer than the objective says (latency).",
    "objectives",
    (*PORT_LABELS, SLI),
    "Its share of the requests, divided by the budget, is the burn rate: `svcmesh:objective_burn:rate1h`.",
    _SHOWN,
)
OBJECTIVE_FAMILIES: Final = (RATIO, LATENCY, REQUESTS, BAD)
OBJECTIVE_SHARE: Final = 0.5
"""The largest share of the page's series that these families may have. They come before those of ports."""


class ObjectivePage:
    """The objectives of a plan, and the lines about them."""

    def __init__(self) -> None:
        self.counts = ObjectiveCounts()
        self._objectives: dict[SlotKey, Objective] = {}
        self._slow_from: dict[SlotKey, int] = {}

    def learn(self, plan: NodePlan) -> None:
        """Take note of a new plan."""
        self._objectives = {
            (key, port): objective
            for key, service in plan.services.items()
            for port, objective in service.objectives.items()
        }
        self._slow_from = {key: first_slow_column(one.within) for key, one in self._objectives.items()}

    def begin(self) -> None:
        """Begin to count what is new since the last scrape."""
        self.counts.begin(self._slow_from)

    def lines(self, room: int) -> tuple[Lines, int]:
        """Return the lines of the ports for which there is room, and for how many ports there is none.

        Those that were asked first come first, so that a port that is shown stays.
        """
        shown: Lines = {}
        left_out = 0
        for key, counted in self.counts.ports.items():
            objective = self._objectives.get(key)
            if objective is None:
                continue  # a newer plan has come with another scrape
            lines = dict(_lines_of(key, objective, counted))
            room -= series_of(lines)
            if room < 0:
                left_out += 1
                continue
            for name, more in lines.items():
                shown.setdefault(name, []).extend(more)
        return shown, left_out


def promise_of(objective: Objective) -> Promise:
    """Return an objective as `/stats` tells it, with shares from 0 to 1."""
    whole = 100 * PERCENT
    return Promise(objective.available / whole, objective.within, objective.fast / whole)


def _lines_of(key: SlotKey, objective: Objective, counted: Counted) -> Iterator[tuple[str, list[str]]]:
    service, port = key
    labels = port_labels(service.name, service.namespace, str(port))
    promise = promise_of(objective)
    goals = {"availability": (promise.available, counted.failed)}
    if objective.within:
        goals["latency"] = (promise.fast, counted.slow)
        yield LATENCY.name, [f"{LATENCY.name}{{{labels}}} {objective.within!r}\n"]
    yield REQUESTS.name, [f"{REQUESTS.name}{{{labels}}} {counted.requests}\n"]
    yield RATIO.name, _by_sli(RATIO, labels, {sli: share for sli, (share, _) in goals.items()})
    yield BAD.name, _by_sli(BAD, labels, {sli: bad for sli, (_, bad) in goals.items()})


def _by_sli(family: Family, labels: str, numbers: Mapping[str, float]) -> list[str]:
    return [f'{family.name}{{{labels},{SLI}="{sli}"}} {number!r}\n' for sli, number in numbers.items()]
