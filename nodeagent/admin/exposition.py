"""The part of `/metrics` that shows ports and who asks them, in pieces, below a ceiling on series.

A scrape looks at the workers' memory (`nodeagent.stats.tallies`), adds what is new to the series
(`nodeagent.stats.ledger`), and writes those that have a place. Between two pieces the caller can let the loop
do other work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from discovery.model import ServiceKey
from nodeagent.admin.family import Family
from nodeagent.admin.formats import PLAIN, TextFormat
from nodeagent.admin.lines import Lines, LineWriter, port_labels, series_of, source_labels
from nodeagent.admin.methods import MethodCounts, method_lines, read_methods
from nodeagent.admin.objectives import OBJECTIVE_FAMILIES, OBJECTIVE_SHARE, ObjectivePage
from nodeagent.admin.port_facts import (
    ABOUT_SERIES,
    ENDPOINT_EJECTIONS,
    ENDPOINTS,
    ENDPOINTS_EJECTED,
    ENDPOINTS_IN_USE,
    ENDPOINTS_UNHEALTHY,
    SERIES,
    SERIES_EXPIRED,
    SERIES_FOLDED,
    SERIES_LIMIT,
)
from nodeagent.plan.model import BackendKey, NodePlan
from nodeagent.stats.columns import EDGE_COLUMNS, OVERFLOW_SLOT, Layout
from nodeagent.stats.exemplars import NO_EXEMPLARS, Exemplar, Exemplars
from nodeagent.stats.identity import OTHER_NAME, workload_of
from nodeagent.stats.ledger import Ledger, PortNumbers, SeriesKey
from nodeagent.stats.region import SlotAllocator, SlotKey, StatsRegion
from nodeagent.stats.tallies import Tallies

PIECE_PORTS: Final = 16
"""Ports whose lines are made in one go: some milliseconds at most."""
PIECE_LINES: Final = 512
OTHER: Final[SlotKey] = (ServiceKey("", OTHER_NAME), 0)
"""Stands for all ports without series of their own."""
OTHER_LABELS: Final = port_labels(OTHER_NAME, "", "")
OTHER_SOURCE: Final = source_labels("", OTHER_NAME)


class Facts(msgspec.Struct, frozen=True):
    """What the agent knows of the endpoints of ports; a port that is missing has none such."""

    unhealthy: Mapping[BackendKey, int] = {}
    """Endpoints that fail their health checks; of a port that ever had one."""
    ejected: Mapping[BackendKey, int] = {}
    """Endpoints that outlier detection has ejected."""
    unusable: Mapping[BackendKey, int] = {}
    """Endpoints that are one or both of these."""
    ejections: Mapping[BackendKey, int] = {}
    """How often endpoints have become unhealthy."""


NO_FACTS: Final = Facts()

_Exemplars = Mapping[SeriesKey, Mapping[int, Exemplar]]
"""By series and bucket."""


class PlanPorts:
    """The ports of a plan as the page needs them."""

    def __init__(self) -> None:
        self.slots: dict[SlotKey, int] = {}
        self.layers: dict[SlotKey, frozenset[str]] = {}
        self.endpoints: dict[BackendKey, int] = {}
        self.all_endpoints = 0


class PortExposition:
    """Renders the families of all ports of the plan, the numbers of all workers merged."""

    def __init__(
        self,
        layout: Layout,
        allocator: SlotAllocator,
        tallies: Tallies,
        most_series: int,
        now: Callable[[], float] = time.monotonic,
        exemplars: Exemplars | None = None,
    ) -> None:
        self._exemplars = exemplars or Exemplars()
        self._allocator = allocator
        self._tallies = tallies
        self._writer = LineWriter(layout)
        self._most = most_series
        self._plan: NodePlan | None = None
        self._version = -1  # of the slots
        self._ports = PlanPorts()
        self.ledger = Ledger(layout.slot_columns, most_series, now)
        self._objectives = ObjectivePage()
        tallies.takers += (self.ledger, self._objectives.counts)

    def render(
        self,
        plan: NodePlan,
        regions: Sequence[StatsRegion],
        facts: Facts = NO_FACTS,
        already: int = 0,
        form: TextFormat = PLAIN,
    ) -> Iterator[bytes]:
        """Yield the text in pieces, some of them empty; each is made when it is asked for.

        `already` is the number of series that the rest of the page has.
        """
        yield from self._learn(plan)
        ledger, ports = self.ledger, self._ports
        ledger.begin(ports.slots.keys())
        self._objectives.begin()
        looked_at = [(None, OVERFLOW_SLOT), *((key, slot) for key, slot in ports.slots.items() if slot > 1)]
        for _ in self._tallies.look(looked_at, regions):
            yield b""
        ledger.take_ejections(
            [(key, number) for key, number in facts.ejections.items() if key in ports.slots],
            [key for key in (*facts.unhealthy, *facts.ejected) if key in ports.slots],
        )
        ledger.settle()
        methods = MethodCounts()
        for _ in read_methods(methods, {(str(key[0]), key[1]): key for key in ledger.ports}, regions):
            yield b""
        exemplars = self._exemplars.by_series(self._series) if form.exemplars else {}
        blocks: dict[SeriesKey, Lines] = {}
        for count, (key, numbers) in enumerate(list(ledger.ports.items())):
            self._write_port(blocks, key, numbers, methods, facts, exemplars)
            if count % PIECE_PORTS == 0:
                yield b""
        yield b""
        objectives, left_out = self._objectives.lines(int(self._most * OBJECTIVE_SHARE))
        others = self._charge(blocks, already + series_of(objectives), facts, exemplars)
        shown = [*(blocks[key] for key in sorted(blocks)), others, objectives]
        yield from self._text(shown, already, left_out, form)

    def _series(self, key: SlotKey, source: str) -> SeriesKey:
        """Return which series count what a source asks of a port now."""
        numbers = self.ledger.ports.get(key)
        if numbers is None:
            return OTHER, ""
        return key, source if source in numbers.edges else ""

    def _learn(self, plan: NodePlan) -> Iterator[bytes]:
        """Take note of a new plan, with a pause now and then."""
        if plan is self._plan and self._version == self._allocator.version:
            return
        slots, version = self._allocator.slots, self._allocator.version
        ports = PlanPorts()
        for count, service in enumerate(plan.services.values()):
            for listener in service.listeners:
                key = (listener.service, listener.port)
                ports.slots[key] = slots.get(key, OVERFLOW_SLOT)
                if listener.all_layers:
                    ports.layers[key] = frozenset(layer.name for layer in listener.all_layers)
            for backend in service.backends:
                ports.endpoints[backend.key] = len(backend.endpoints)
                ports.all_endpoints += len(backend.endpoints)
            if count % 256 == 0:
                yield b""
        self._objectives.learn(plan)
        self._plan, self._version, self._ports = plan, version, ports

    def _write_port(
        self,
        blocks: dict[SeriesKey, Lines],
        key: SlotKey,
        numbers: PortNumbers,
        methods: MethodCounts,
        facts: Facts,
        exemplars: _Exemplars,
    ) -> None:
        """Write the lines of a port and of its edges."""
        service, port = key
        backend = BackendKey(service, port)
        labels = port_labels(service.name, service.namespace, str(port))
        used = self._ports.layers.get(key, frozenset())
        lines = self._writer.of_port(labels, numbers.counted, numbers.gauges, used)
        lines |= self._writer.of_edge(
            f"{labels},{OTHER_SOURCE}", numbers.counted[:EDGE_COLUMNS], exemplars.get((key, ""), NO_EXEMPLARS)
        )
        lines |= method_lines(labels, methods.of(key))
        endpoints = self._ports.endpoints.get(backend, 0)
        self._write_facts(
            lines,
            labels,
            {
                ENDPOINTS: endpoints,
                ENDPOINTS_IN_USE: endpoints - facts.unusable.get(backend, 0),
                ENDPOINTS_UNHEALTHY: facts.unhealthy.get(backend),
                ENDPOINTS_EJECTED: facts.ejected.get(backend),
                ENDPOINT_EJECTIONS: numbers.ejections or None,
            },
        )
        blocks[key, ""] = lines
        self.ledger.places.charge((key, ""), series_of(lines))
        for source, counted in numbers.edges.items():
            mine = f"{labels},{source_labels(*workload_of(source))}"
            edge = blocks[key, source] = self._writer.of_edge(
                mine, counted, exemplars.get((key, source), NO_EXEMPLARS)
            )
            self.ledger.places.charge((key, source), series_of(edge))

    def _write_others(self, facts: Facts, gauges: Mapping[int, int], exemplars: _Exemplars) -> Lines:
        """Write the lines of all ports that have no series of their own."""
        ledger, others, ports = self.ledger, self.ledger.others, self._ports
        lines = self._writer.of_port(OTHER_LABELS, others.counted, gauges, ())
        lines |= self._writer.of_edge(
            f"{OTHER_LABELS},{OTHER_SOURCE}",
            others.counted[:EDGE_COLUMNS],
            exemplars.get((OTHER, ""), NO_EXEMPLARS),
        )

        def elsewhere(numbers: Mapping[BackendKey, int]) -> int:
            return sum(number for key, number in numbers.items() if key not in ledger.ports)

        if others.ejections or len(ledger.ports) < len(ports.slots):
            here = sum(ports.endpoints.get(BackendKey(*key), 0) for key in ledger.ports)
            endpoints = ports.all_endpoints - here
            self._write_facts(
                lines,
                OTHER_LABELS,
                {
                    ENDPOINTS: endpoints,
                    ENDPOINTS_IN_USE: endpoints - elsewhere(facts.unusable),
                    ENDPOINTS_UNHEALTHY: elsewhere(facts.unhealthy) or None,
                    ENDPOINTS_EJECTED: elsewhere(facts.ejected) or None,
                    ENDPOINT_EJECTIONS: others.ejections or None,
                },
            )
        return lines

    def _write_facts(self, lines: Lines, labels: str, facts: Mapping[Family, int | None]) -> None:
        for family, number in facts.items():
            if number is not None:
                lines[family.name] = [f"{family.name}{{{labels}}} {number}\n"]

    def _charge(
        self, blocks: dict[SeriesKey, Lines], already: int, facts: Facts, exemplars: _Exemplars
    ) -> Lines:
        """Take places until what is shown is below the ceiling, and drop the lines of those that have none;
        return the lines of the others.
        """
        ledger = self.ledger
        while True:
            others = self._write_others(facts, ledger.gauges_elsewhere(), exemplars)
            ledger.places.room = max(0, self._most - already - series_of(others) - len(ABOUT_SERIES))
            if not ledger.shed():
                break
        for key in [key for key in blocks if key not in ledger.places]:
            del blocks[key]
        return others

    def _text(
        self, blocks: Sequence[Lines], already: int, left_out: int, form: TextFormat
    ) -> Iterator[bytes]:
        lines: list[str] = []
        for family in (*self._writer.families, *OBJECTIVE_FAMILIES):
            lines.append(form.header(family))
            for block in blocks:
                lines += block.get(family.name, ())
            if len(lines) >= PIECE_LINES:
                yield _encoded(lines)
                lines = []
        shown = already + sum(map(series_of, blocks)) + len(ABOUT_SERIES)
        about = {
            SERIES: shown,
            SERIES_LIMIT: self._most,
            SERIES_FOLDED: self.ledger.places.waiting + left_out,
            SERIES_EXPIRED: self.ledger.expired,
        }
        lines += [f"{form.header(family)}{family.name} {number}\n" for family, number in about.items()]
        yield _encoded(lines)


def _encoded(lines: Sequence[str]) -> bytes:
    """Return lines as UTF-8; half of a surrogate pair becomes `?`, for one name must not cost the page."""
    return "".join(lines).encode("utf-8", "replace")
