"""A scrape of an agent with many Services, all or some of them busy: its CPU, longest piece and series.

The workers' memory is filled here, so that nothing but the scrape is measured: no worker runs.
"""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Final

from discovery.model import Endpoint, Service, ServiceKey, ServiceObject
from hack.bench.figures import AGENT, Sample
from middleware.registry import MIDDLEWARES
from nodeagent.admin.formats import OPEN_METRICS, PLAIN, TextFormat
from nodeagent.admin.freshness import Freshness
from nodeagent.admin.metrics import AgentState, MetricsPage
from nodeagent.plan.model import BackendKey, BackendSpec, LayerSpec, Listener, NodePlan, ServicePlan
from nodeagent.stats.columns import (
    CONNECTIONS,
    DURATION_BOUNDS,
    DURATION_BUCKETS,
    REQUESTS_2XX,
    REQUESTS_5XX,
    RESENDS,
    Layout,
)
from nodeagent.stats.edges import EdgeRows
from nodeagent.stats.exemplars import Exemplars
from nodeagent.stats.region import SlotAllocator, StatsRegion

SOME: Final = "scrape"
"""The case in which one in ten Services was asked since the last scrape; `ALL`: all of them; `OPEN`: all of
them, and the page is OpenMetrics with as many exemplars as there may be."""
ALL: Final = "scrape, all busy"
OPEN: Final = "scrape, all busy, OpenMetrics"
SERVICES: Final = 10_000
WORKERS: Final = 2
SOURCES: Final = 2
_EDGE: Final = re.compile(
    r'duration_seconds_count{service="service-(\d+)".*source_workload="deployment/client-(\d+)"}'
)
_LAYERS: Final = tuple(LayerSpec(middleware.name, None) for middleware in MIDDLEWARES)


class BusyNode:
    """An agent's memory with so many Services, each asked by some sources through every worker."""

    def __init__(self, services: int) -> None:
        self.layout = layout = Layout(MIDDLEWARES)
        self.keys = [(ServiceKey("bench", f"service-{number:05}"), 80) for number in range(services)]
        self.plan = NodePlan(1, {key[0]: _service_plan(key[0]) for key in self.keys})
        self.regions = [StatsRegion.create(layout) for _ in range(WORKERS)]
        self.allocator = SlotAllocator()
        self.allocator.assign(self.keys, (), self.regions, 0.0)
        self._counted: list[tuple[memoryview, int]] = []
        for region in self.regions:
            table = EdgeRows(region.cells, region.edges_at)
            for key in self.keys:
                base = layout.base(self.allocator.slots[key])
                port = table.of_port(str(key[0]), key[1], base, True)
                for number in range(SOURCES):
                    self._counted.append((region.cells, port.find(f"bench/deployment/client-{number}")))
                for column in range(RESENDS, layout.slot_columns):
                    region.cells[base + column] = 1
        self.exemplars = Exemplars()
        self.page = MetricsPage(
            layout, self.allocator, self._state, "bench", "node", exemplars=self.exemplars
        )

    def ask(self, every: int) -> None:
        """Let each source ask every so many-th Service once more."""
        for number, (cells, first) in enumerate(self._counted[::every]):
            for column in (REQUESTS_2XX, REQUESTS_5XX, CONNECTIONS, DURATION_BUCKETS + number % 14):
                cells[first + column] += 1 + number % 7

    def trace(self) -> None:
        """Let a request of each bucket of each edge be traced, those last whose series are shown."""
        edges = [(str(number), str(source)) for number in range(len(self.keys)) for source in range(SOURCES)]
        shown = _EDGE.findall(b"".join(self.page.render()).decode())
        for number, source in [*edges, *shown]:
            key, trace_id = self.keys[int(number)], int(number).to_bytes(16)
            for bound in DURATION_BOUNDS:
                self.exemplars.take(key, f"bench/deployment/client-{source}", trace_id, bound, time.time())

    def _state(self) -> AgentState:
        return AgentState(
            plan=self.plan,
            plan_changed=1.0,
            source=Freshness(),
            regions=self.regions,
            workers=WORKERS,
            worker_restarts=0,
            dns_queries={},
            dns_responses={},
        )


def _service_plan(key: ServiceKey) -> ServicePlan:
    listener = Listener(key, "http", "10.0.0.1", 80, 80, "http", (), _LAYERS)
    backend = BackendSpec(BackendKey(key, 80), (Endpoint("10.0.0.2", 80),))
    return ServicePlan(Service(ServiceObject(key, {}), {}), "10.0.0.1", (listener,), (backend,), {}, ())


def measure(
    rounds: int, progress: Callable[[str], None], core: int | None = None, services: int = SERVICES
) -> Iterator[Sample]:
    """Scrape so many times, on one core, with counters changed in between; yield a sample for each."""
    allowed = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield from _measure(rounds, progress, services)
    finally:
        os.sched_setaffinity(0, allowed)


def _measure(rounds: int, progress: Callable[[str], None], services: int) -> Iterator[Sample]:
    node = BusyNode(services)
    node.ask(1)
    list(node.page.render())
    gc.collect()
    gc.freeze()  # as an agent does with its plan
    for case, every, form in ((SOME, 10, PLAIN), (ALL, 1, PLAIN), (OPEN, 1, OPEN_METRICS)):
        if form is OPEN_METRICS:
            node.trace()
        for number in range(rounds):
            node.ask(every)
            sample = _scrape(node, case, number, form)
            shown = f"{sample.values['cpu_ms']:.0f} ms, {sample.values['series']:.0f} series"
            progress(f"round {number + 1} of {rounds}: {case}: {shown}")
            yield sample


def _scrape(node: BusyNode, case: str, number: int, form: TextFormat) -> Sample:
    pieces: list[float] = []
    text = b""
    started = before = time.process_time()
    for piece in node.page.render(form):
        now = time.process_time()
        pieces.append(now - before)
        before = now
        text += piece
    cpu = time.process_time() - started
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    values = {"cpu_ms": cpu * 1000, "piece_ms": max(pieces) * 1000, "series": float(series)}
    return Sample(case, AGENT, number, values)


def main() -> None:
    """Print the figures."""
    for sample in measure(5, lambda _: None):
        print(sample.case, {name: round(value, 1) for name, value in sample.values.items()})


if __name__ == "__main__":
    main()
