"""A limit of what is in progress at once, and a queue before it that is fair between sources. Pure.

The source with the fewest requests in progress is next. So a source that asks for less than an equal share
of the limit waits for the next request to end, never for the queue of another source: shares are max-min
fair (Bertsekas and Gallager, Data Networks, section 6.5.2), counted in requests in progress, which is what a
server's threads are taken up by. Within a source it is first come, first served, and so it is between
sources that have equally much: who came down to that number first is next. No place stays empty while
anybody waits.

A full queue does not shut out those who have little: the newest request of the source that has most gives way
to theirs (longest queue drop: Suter, Lakshman, Stiliadis and Choudhury, INFOCOM 1998).

All operations take the same time whatever the length of the queue; finding the next source looks at the
different numbers of requests in progress that waiting sources have, which are few.
"""

from __future__ import annotations

from collections.abc import Callable


class Waiter:
    """A request in the queue. `tell(True)` is called when its turn comes, `tell(False)` if it gives way."""

    __slots__ = ("_source", "admitted", "tell")

    def __init__(self, source: _Source, tell: Callable[[bool], None]) -> None:
        self._source = source
        self.tell = tell
        self.admitted = False


class _Source:
    __slots__ = ("in_progress", "name", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.in_progress = 0
        self.waiting: dict[Waiter, None] = {}
        """In the order in which they came."""

    @property
    def demand(self) -> int:
        """What it has of the limit and of the queue."""
        return self.in_progress + len(self.waiting)


class _Ranks:
    """Sources by a number: those with equal numbers in the order in which they got them."""

    __slots__ = ("_ranks",)

    def __init__(self) -> None:
        self._ranks: dict[int, dict[_Source, None]] = {}

    def add(self, source: _Source, rank: int) -> None:
        self._ranks.setdefault(rank, {})[source] = None

    def remove(self, source: _Source, rank: int) -> None:
        sources = self._ranks[rank]
        del sources[source]
        if not sources:
            del self._ranks[rank]

    def lowest(self) -> _Source:
        return next(iter(self._ranks[min(self._ranks)]))

    def highest(self) -> _Source:
        return next(iter(self._ranks[max(self._ranks)]))


class FairQueue:
    """At most `limit` requests in progress, and `places` more that wait."""

    __slots__ = ("_by_demand", "_by_progress", "_sources", "in_progress", "limit", "places", "waiting")

    def __init__(self, limit: int, places: int) -> None:
        self.limit = limit
        self.places = places
        self.in_progress = 0
        self.waiting = 0
        self._sources: dict[str, _Source] = {}
        """Those that have anything in progress or waiting; the two below have only those that wait."""
        self._by_progress = _Ranks()
        self._by_demand = _Ranks()

    def take(self, source: str) -> bool:
        """Begin a request of this source at once; False if it has to wait."""
        if self.in_progress >= self.limit:
            return False
        self.in_progress += 1
        known = self._sources.get(source)
        if known is None:
            known = self._sources[source] = _Source(source)
        known.in_progress += 1  # nobody waits while there is room, so there are no ranks to change
        return True

    def wait(self, source: str, tell: Callable[[bool], None]) -> Waiter | None:
        """Queue a request that could not begin at once; None if there is no place for it."""
        own = self._sources.get(source)
        if self.waiting >= self.places:
            if not self.waiting:
                return None
            greatest = self._by_demand.highest()
            if greatest.demand <= (own.demand if own is not None else 0) + 1:
                return None
            last = next(reversed(greatest.waiting))
            self._withdraw(last)
            last.tell(False)
        if own is None:
            own = self._sources[source] = _Source(source)
        waiter = Waiter(own, tell)
        if own.waiting:
            self._by_demand.remove(own, own.demand)
        else:
            self._by_progress.add(own, own.in_progress)
        own.waiting[waiter] = None
        self._by_demand.add(own, own.demand)
        self.waiting += 1
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Take a request back that waited: out of the queue, or out of what is in progress if it has been
        told that its turn had come.
        """
        if waiter.admitted:
            self.end(waiter._source.name)
        elif waiter in waiter._source.waiting:
            self._withdraw(waiter)

    def end(self, source: str) -> None:
        """A request of this source is over: the next one may begin."""
        own = self._sources[source]
        if own.waiting:
            self._by_progress.remove(own, own.in_progress)
            self._by_demand.remove(own, own.demand)
        own.in_progress -= 1
        self.in_progress -= 1
        if own.waiting:
            self._by_progress.add(own, own.in_progress)
            self._by_demand.add(own, own.demand)
        else:
            self._forget(own)
        self._admit()

    def set_limit(self, limit: int) -> None:
        """Allow more or less from now on; what is in progress goes on."""
        self.limit = limit
        self._admit()

    def _admit(self) -> None:
        while self.waiting and self.in_progress < self.limit:
            source = self._by_progress.lowest()
            waiter = next(iter(source.waiting))
            self._by_progress.remove(source, source.in_progress)
            del source.waiting[waiter]
            self.waiting -= 1
            source.in_progress += 1
            self.in_progress += 1
            if source.waiting:
                self._by_progress.add(source, source.in_progress)
            else:
                self._by_demand.remove(source, source.demand)
            waiter.admitted = True
            waiter.tell(True)

    def _withdraw(self, waiter: Waiter) -> None:
        source = waiter._source
        self._by_demand.remove(source, source.demand)
        del source.waiting[waiter]
        self.waiting -= 1
        if source.waiting:
            self._by_demand.add(source, source.demand)
        else:
            self._by_progress.remove(source, source.in_progress)
            self._forget(source)

    def _forget(self, source: _Source) -> None:
        if not source.in_progress and not source.waiting:
            del self._sources[source.name]
