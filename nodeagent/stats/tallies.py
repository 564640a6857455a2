"""What was counted since the last look, by port and by source: read from all workers' memory by the agent.

A look goes over the ports of the plan and tells each of `takers` what is new. The numbers of a port are those
of its slot and of all its rows of edges, read together: a worker that moves a row into the slot meanwhile
says so (`edges.FOLDS`), and the port is read again. What a row has counted between the last look and its end
is part of the port's numbers, though not of its source's.

A number that is lower than at the last look (there is a bug, or memory was damaged) counts as nothing new,
so that nothing that is added up from here ever decreases. Gauges are told as they are.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import add, sub
from typing import Final, NamedTuple, Protocol

from nodeagent.stats import edges
from nodeagent.stats.columns import CONNECTIONS_ACTIVE, EDGE_COLUMNS, Layout
from nodeagent.stats.region import SlotAllocator, SlotKey, StatsRegion
from nodeagent.stats.rows import Tag, read_counters, read_marks, read_tags

PIECE: Final = 64
"""Ports between two pauses: a few milliseconds at most."""
_TRIES: Final = 4


class News(NamedTuple):
    """What is new of a port. `counted` and `gauges` are by column; an edge has the first `EDGE_COLUMNS`."""

    key: SlotKey | None
    """None: the slot that ports without a slot of their own share."""
    counted: list[int]
    """What was added since the last look, 0 for gauges; without the columns behind `EDGE_COLUMNS` if nothing
    of them is new."""
    gauges: Mapping[int, int]
    """As they are now, by column; those that are 0 are left out."""
    edges: Mapping[str, list[int]]
    """By source (`Identity.source`); what was counted for no source is in `counted` alone."""


class Taker(Protocol):
    """Who is told at each look."""

    def take(self, news: News) -> None:
        """Learn what is new of a port; one without news is not told of."""
        ...


class _Seen:
    """A slot as it was at the last look."""

    __slots__ = ("gauges", "generation", "head", "raw", "rows", "tail", "tails")

    def __init__(self, generation: int, columns: int) -> None:
        self.generation = generation
        self.raw: list[bytes] = []
        self.head = array("q", bytes(8 * EDGE_COLUMNS))
        """The columns of edges, all workers together, rows included; `tail` are the columns behind them."""
        self.tail = array("q", bytes(8 * (columns - EDGE_COLUMNS)))
        self.tails: list[bytes] = []
        self.gauges: Mapping[int, int] = {}
        self.rows: dict[tuple[int, int, int], bytes] = {}
        """By worker, row and epoch."""


class Tallies:
    """The looks of an agent. Two looks at once do no harm: what is new is told once."""

    def __init__(self, layout: Layout, allocator: SlotAllocator) -> None:
        self._allocator = allocator
        self._columns = layout.slot_columns
        self._gauges = layout.gauges
        """Of connections, the sum of all workers counts; of the others, those of middleware, the greatest."""
        self._seen: dict[int, _Seen] = {}
        self._nothing: list[bytes] = []
        """A slot that nobody has written to, once for each worker."""
        self._marks: list[tuple[list[int], list[int]]] = []
        self._rows: dict[str, list[tuple[int, Tag]]] = {}
        """By owner: worker and row; as long as the marks of rows are the same."""
        self.takers: list[Taker] = []

    def look(
        self, ports: Sequence[tuple[SlotKey | None, int]], regions: Sequence[StatsRegion]
    ) -> Iterator[None]:
        """Look at these ports, each with its slot; pauses between pieces of work."""
        yield from self._read_tags(regions)
        rows = self._rows
        generations = self._allocator.generations
        views = [(region.cells, region.edges_at) for region in regions]
        self._nothing = [bytes(8 * self._columns)] * len(views)
        for count, (key, slot) in enumerate(ports):
            if count % PIECE == 0:
                yield
            mine = rows.get(f"{key[0]} {key[1]}", ()) if key is not None and rows else ()
            self._look_at(key, slot, generations.get(slot, 0), mine, views)

    def _read_tags(self, regions: Sequence[StatsRegion]) -> Iterator[None]:
        """Find out which rows are whose; that changes rarely."""
        marks = [
            read_marks(region.cells[region.edges_at + edges.ROWS_AT :], edges.SHAPE) for region in regions
        ]
        if marks == self._marks:
            return
        rows: dict[str, list[tuple[int, Tag]]] = {}
        for worker, region in enumerate(regions):
            cells = region.cells[region.edges_at + edges.ROWS_AT :]
            for count, tag in enumerate(read_tags(cells, edges.SHAPE)):
                if tag is not None:
                    rows.setdefault(tag.owner, []).append((worker, tag))
                if count % (4 * PIECE) == 0:
                    yield
        self._marks, self._rows = marks, rows

    def _look_at(
        self,
        key: SlotKey | None,
        slot: int,
        generation: int,
        rows: Sequence[tuple[int, Tag]],
        views: Sequence[tuple[memoryview, int]],
    ) -> None:
        """Look at a port; `views` are the workers' memory, each with the first cell of its edges."""
        seen = self._seen.get(slot)
        if seen is not None and seen.generation != generation:
            del self._seen[slot]
            seen = None
        width = self._columns
        base = slot * width
        for _ in range(_TRIES):
            folds = [cells[at] for cells, at in views]
            raw = [cells[base : base + width].tobytes() for cells, _ in views]
            unchanged = (seen.raw if seen is not None else self._nothing) == raw
            if unchanged and not rows:
                return
            read: dict[tuple[int, int, int], bytes] = {}
            names: list[str] = []
            for worker, tag in rows:
                cells, at = views[worker]
                numbers = read_counters(cells, at + edges.ROWS_AT + tag.at, tag.epoch, edges.SHAPE)
                if numbers is not None:
                    read[worker, tag.at, tag.epoch] = numbers
                    names.append(tag.name)
            if unchanged and seen is not None and seen.rows == read:
                return
            if not rows or (folds == [cells[at] for cells, at in views] and not any(map(_is_odd, folds))):
                break
        else:
            return  # a worker stopped while it moved a row: at the next look
        if seen is None:
            seen = self._seen[slot] = _Seen(generation, self._columns)
        self._tell(key, seen, raw, read, names)

    def _tell(
        self,
        key: SlotKey | None,
        seen: _Seen,
        raw: list[bytes],
        read: dict[tuple[int, int, int], bytes],
        names: Sequence[str],
    ) -> None:
        slots = [memoryview(one).cast("q") for one in raw]
        head = _sum([slot[:EDGE_COLUMNS].tolist() for slot in slots])
        news: dict[str, list[int]] = {}
        for source, (place, row) in zip(names, read.items(), strict=True):
            numbers = memoryview(row).cast("q").tolist()
            head = list(map(add, head, numbers))
            before = seen.rows.get(place)
            fresh = numbers if before is None else _growth(numbers, memoryview(before).cast("q"))
            if any(fresh):
                known = news.get(source)
                news[source] = fresh if known is None else list(map(add, known, fresh))
        counted = _growth(head, seen.head)
        gauges = seen.gauges
        tails = [one[8 * EDGE_COLUMNS :] for one in raw]
        if tails != seen.tails:
            tail = _sum([slot[EDGE_COLUMNS:].tolist() for slot in slots])
            more = _growth(tail, seen.tail)
            gauges = {}
            for column in self._gauges:
                together = sum if column == CONNECTIONS_ACTIVE else max
                if number := together(each[column] for each in slots):
                    gauges[column] = number
                more[column - EDGE_COLUMNS] = 0
            seen.tails, seen.tail = tails, array("q", tail)
            if any(more):
                counted += more
        moved = any(counted) or gauges != seen.gauges
        seen.raw, seen.rows = raw, read
        seen.head, seen.gauges = array("q", head), gauges
        if moved:
            told = News(key, counted, gauges, news)
            for taker in self.takers:
                taker.take(told)


def _is_odd(number: int) -> bool:
    return number % 2 == 1


def _sum(several: list[list[int]]) -> list[int]:
    total = several[0]
    for more in several[1:]:
        total = list(map(add, total, more))
    return total


def _growth(now: list[int], before: Iterable[int]) -> list[int]:
    grown = list(map(sub, now, before))
    return grown if min(grown) >= 0 else [max(0, each) for each in grown]
