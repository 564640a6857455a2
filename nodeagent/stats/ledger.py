"""The numbers behind the time series: what is new at each look is added to exactly one series of each family.

A port with a place (`nodeagent.stats.places`) has numbers of its own, as has each of its edges with a place;
what its other sources have counted is its `rest`. Ports without a place are counted together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from operator import add, sub
from typing import Final

from nodeagent.stats.columns import CONNECTIONS, CONNECTIONS_ACTIVE, EDGE_COLUMNS, GRPC_CALLS, REQUESTS_5XX
from nodeagent.stats.places import Places
from nodeagent.stats.region import SlotKey
from nodeagent.stats.tallies import News

PORT_COST: Final = 10
EDGE_COST: Final = 25
"""Series that a port, and an edge, usually begin with."""

SeriesKey = tuple[SlotKey, str]
"""A port (with an empty source) or one of its edges."""


class PortNumbers:
    """What has been counted of a port, by column; of several ports for those without a place."""

    __slots__ = ("counted", "edges", "ejections", "gauges")

    def __init__(self, columns: int) -> None:
        self.counted = [0] * columns
        """The first `EDGE_COLUMNS` are those of the sources without a place."""
        self.gauges: Mapping[int, int] = {}
        self.edges: dict[str, list[int]] = {}
        """By source, of those with a place."""
        self.ejections = 0
        """Times that an endpoint has failed its health checks."""


class Ledger:
    """The series of an agent. Implements `nodeagent.stats.tallies.Taker`."""

    def __init__(self, columns: int, room: int, now: Callable[[], float]) -> None:
        self._columns = columns
        self.places: Places[SeriesKey] = Places(room, _parent)
        self.ports: dict[SlotKey, PortNumbers] = {}
        self.others = PortNumbers(columns)
        self.expired = 0
        """Places that were lost."""
        self._now = now
        self._elsewhere: dict[SlotKey, Mapping[int, int]] = {}
        """The gauges of ports without a place, if they are not 0."""
        self._ejections: dict[SlotKey, int] = {}

    def begin(self, ports: Collection[SlotKey]) -> None:
        """A look begins: these are the ports of the plan."""
        for key in [key for key in self.ports if key not in ports]:
            self._lose(self.places.remove((key, "")))
        for key in [key for key in self._elsewhere if key not in ports]:
            del self._elsewhere[key]
        for key in [key for key in self._ejections if key not in ports]:
            del self._ejections[key]

    def take(self, news: News) -> None:
        """Count what is new of a port."""
        key, counted = news.key, news.counted
        port = self._port(key, activity(counted)) if key is not None else None
        if port is None:
            if key is not None:
                self._tell_elsewhere(key, news.gauges)
            _add(self.others.counted, counted)
            return
        assert key is not None
        port.gauges = news.gauges
        for source, numbers in news.edges.items():
            if self.places.wants((key, source), activity(numbers), EDGE_COST, self._now()):
                known = port.edges.get(source)
                if known is None:
                    known = port.edges[source] = [0] * EDGE_COLUMNS
                _add(known, numbers)
                rest = [max(0, each) for each in map(sub, counted, numbers)]
                counted = rest + counted[EDGE_COLUMNS:]
        _add(port.counted, counted)

    def take_ejections(self, ejections: Iterable[tuple[SlotKey, int]], troubled: Iterable[SlotKey]) -> None:
        """Count what health checks have found; ports in trouble want series though nobody asks them.

        Both are ports of the plan.
        """
        for key in troubled:
            self._port(key, 0)
        for key, number in ejections:
            before, self._ejections[key] = self._ejections.get(key, 0), number
            if number > before:
                numbers = self._port(key, 1) or self.others
                numbers.ejections += number - before

    def settle(self) -> None:
        """A look is over: let places follow what was seen."""
        self._lose(self.places.settle(self._now()))
        for key in [key for key in self._elsewhere if (key, "") in self.places]:
            self._port(key, 0)

    def shed(self) -> bool:
        """Take places until the series are fewer than there may be; return whether any was taken."""
        lost = self.places.shed(self._now())
        self._lose(lost)
        return bool(lost)

    def gauges_elsewhere(self) -> Mapping[int, int]:
        """Return the gauges of ports without a place: connections added up, of others the greatest."""
        found: dict[int, int] = {}
        for gauges in self._elsewhere.values():
            for column, number in gauges.items():
                if column == CONNECTIONS_ACTIVE:
                    found[column] = found.get(column, 0) + number
                else:
                    found[column] = max(found.get(column, number), number)
        return found

    def _port(self, key: SlotKey, amount: int) -> PortNumbers | None:
        if not self.places.wants((key, ""), amount, PORT_COST, self._now()):
            return None
        port = self.ports.get(key)
        if port is None:
            port = self.ports[key] = PortNumbers(self._columns)
            port.gauges = self._elsewhere.pop(key, {})
        return port

    def _tell_elsewhere(self, key: SlotKey, gauges: Mapping[int, int]) -> None:
        if gauges:
            self._elsewhere[key] = gauges
        else:
            self._elsewhere.pop(key, None)

    def _lose(self, lost: Collection[SeriesKey]) -> None:
        self.expired += len(lost)
        for key, source in lost:
            if not source:
                port = self.ports.pop(key, None)
                if port is not None:
                    self._tell_elsewhere(key, port.gauges)
            elif key in self.ports:
                self.ports[key].edges.pop(source, None)


def activity(counted: list[int]) -> int:
    """Return how much was done: requests and connections, or anything at all."""
    return sum(counted[: REQUESTS_5XX + 1]) + counted[CONNECTIONS] + any(counted[GRPC_CALLS:])


def _parent(key: SeriesKey) -> SeriesKey | None:
    port, source = key
    return (port, "") if source else None


def _add(numbers: list[int], more: list[int]) -> None:
    numbers[: len(more)] = map(add, numbers, more)
