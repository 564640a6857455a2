"""What was counted since the last look, by port and by source: read from all workers' memory by the agent.

A look goes over the ports of the plan and tells each of `takers` what is new. The numbers of a port are those
of its slot and of all its rows of edges, read together: a worker that moves a row into the slot meanwhile
says so (`edges.FOLDS`), and the port is read again. What a row has counted between the last look and its end
is part of the port's numbers, though not of its source's.

A number that is lower than at the last look (there is a bug, or memory was damaged) counts as nothing new,
so that nothing that is added up from here ever decreases. Gauges are told as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import add
from typing import NamedTuple, Protocol

from nodeagent.stats import edges
from nodeagent.stats.columns import EDGE_COLUMNS, Layout
from nodeagent.stats.region import SlotAllocator, SlotKey, StatsRegion
from nodeagent.stats.rows import Tag, read_counters, read_tags

PIECE = 256
"""Ports between two pauses: some milliseconds at most."""
_TRIES = 4


class News(NamedTuple):
    """What is new of a port. `counted` and `gauges` are by column; an edge has the first `EDGE_COLUMNS`."""

    key: SlotKey | None
    """None: the slot that ports without a slot of their own share."""
    counted: list[int]
    """What was added since the last look; 0 for gauges."""
    gauges: Mapping[int, int]
    """As they are now, by column."""
    edges: Mapping[str, list[int]]
    """By source (`Identity.source`); what was counted for no source is in `counted` alone."""


class Taker(Protocol):
    """Who is told at each look."""

    def take(self, news: News) -> None:
        """Learn what is new of a port; one without news is not told of."""
        ...


class _Seen:
    """A slot as it was at the last look."""

    __slots__ = ("gauges", "generation", "raw", "rows", "total")

    def __init__(self, generation: int, columns: int) -> None:
        self.generation = generation
        self.raw: list[bytes] = []
        self.total = [0] * columns
        self.gauges: Mapping[int, int] = {}
        self.rows: dict[tuple[int, int, int], list[int]] = {}
        """By worker, row and epoch."""


class Tallies:
    """The looks of an agent. Two looks at once do no harm: what is new is told once."""

    def __init__(self, layout: Layout, allocator: SlotAllocator) -> None:
        self._layout = layout
        self._allocator = allocator
        self._columns = layout.slot_columns
        self._gauges = layout.gauges
        self._greatest = frozenset(layout.gauges[1:])
        """Gauges of middleware: of several workers, the greatest counts."""
        self._seen: dict[int, _Seen] = {}
        self._nothing = bytes(8 * self._columns)
        self.takers: list[Taker] = []

    def look(
        self, ports: Sequence[tuple[SlotKey | None, int]], regions: Sequence[StatsRegion]
    ) -> Iterator[None]:
        """Look at these ports, each with its slot; pauses between pieces of work."""
        rows: dict[str, list[tuple[int, Tag]]] = {}
        for worker, region in enumerate(regions):
            cells = region.cells[region.edges_at + edges.ROWS_AT :]
            for count, tag in enumerate(read_tags(cells, edges.SHAPE)):
                if tag is not None:
                    rows.setdefault(tag.owner, []).append((worker, tag))
                if count % PIECE == 0:
                    yield
        generations = self._allocator.generations
        for count, (key, slot) in enumerate(ports):
            if count % PIECE == 0:
                yield
            mine = rows.get(f"{key[0]} {key[1]}", ()) if key is not None and rows else ()
            self._look_at(key, slot, generations.get(slot, 0), mine, regions)

    def _look_at(
        self,
        key: SlotKey | None,
        slot: int,
        generation: int,
        rows: Sequence[tuple[int, Tag]],
        regions: Sequence[StatsRegion],
    ) -> None:
        seen = self._seen.get(slot)
        if seen is not None and seen.generation != generation:
            del self._seen[slot]
            seen = None
        for _ in range(_TRIES):
            folds = [region.cells[region.edges_at] for region in regions]
            raw = [self._slot(region, slot) for region in regions]
            if not rows and (seen.raw if seen is not None else [self._nothing] * len(raw)) == raw:
                return
            read = {
                (worker, tag.at, tag.epoch): (tag.name, numbers)
                for worker, tag in rows
                if (numbers := self._row(regions[worker], tag)) is not None
            }
            if [region.cells[region.edges_at] for region in regions] == folds and not any(
                number % 2 for number in folds
            ):
                break
        else:
            return  # a worker stopped while it moved a row: at the next look
        if seen is None:
            seen = self._seen[slot] = _Seen(generation, self._columns)
        self._tell(key, seen, raw, read)

    def _slot(self, region: StatsRegion, slot: int) -> bytes:
        base = slot * self._columns
        return region.cells[base : base + self._columns].tobytes()

    def _row(self, region: StatsRegion, tag: Tag) -> list[int] | None:
        return read_counters(region.cells, region.edges_at + edges.ROWS_AT + tag.at, tag.epoch, edges.SHAPE)

    def _tell(
        self,
        key: SlotKey | None,
        seen: _Seen,
        raw: list[bytes],
        read: Mapping[tuple[int, int, int], tuple[str, list[int]]],
    ) -> None:
        slots = [memoryview(one).cast("q").tolist() for one in raw]
        total: list[int] = slots[0] if len(slots) == 1 else [sum(each) for each in zip(*slots, strict=True)]
        gauges = {
            column: max(slot[column] for slot in slots) if column in self._greatest else total[column]
            for column in self._gauges
        }
        news: dict[str, list[int]] = {}
        for place, (source, numbers) in read.items():
            total[:EDGE_COLUMNS] = map(add, total, numbers)
            before = seen.rows.get(place)
            fresh = numbers if before is None else list(map(_growth, numbers, before))
            if any(fresh):
                known = news.get(source)
                news[source] = fresh if known is None else list(map(add, known, fresh))
        counted = list(map(_growth, total, seen.total))
        for column in self._gauges:
            counted[column] = 0
        moved = any(counted) or gauges != seen.gauges
        seen.raw, seen.rows = raw, {place: numbers for place, (_, numbers) in read.items()}
        seen.total, seen.gauges = total, gauges
        if moved:
            told = News(key, counted, gauges, news)
            for taker in self.takers:
                taker.take(told)


def _growth(now: int, before: int) -> int:
    return now - before if now > before else 0
