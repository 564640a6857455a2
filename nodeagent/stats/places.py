"""Which ports and edges have time series of their own: the busiest, within a ceiling on series. Pure.

What wants series is told with how much it has done (`wants`). As long as there is room it gets a place at
once; after that, what is told is counted with others by the caller, and its activity is remembered. The rules
of a place:

- It is kept until it was idle for `IDLE` seconds, or loses it to something that has become `FACTOR` times as
  active (`settle`). Activity halves every `HALF_LIFE` seconds, so a short burst does not take a place for
  long. All activities are exact: nothing is sampled or estimated.
- What has a place counts there and nowhere else; what has none counts with the others and nowhere else. So
  everything is counted in exactly one series, and no series ever decreases while it is shown.
- A series whose place is lost leaves the page with what it has counted; that is not added to the others,
  where `rate()` would take it for traffic. If it gets a place again, it begins at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

IDLE: Final = 3600.0
"""Seconds."""
HALF_LIFE: Final = 300.0
FACTOR: Final = 2.0
_FORGOTTEN: Final = 0.5
"""Below this activity, what has no place is not remembered."""

K = TypeVar("K", bound=Hashable)


class _Place:
    __slots__ = ("active", "at", "cost", "score")

    def __init__(self, cost: int, now: float) -> None:
        self.cost = cost
        self.score = 0.0
        self.at = now
        """When the score was made up."""
        self.active = now

    def score_at(self, now: float) -> float:
        """Return how active it is."""
        if now == self.at:
            return self.score
        return float(self.score * 0.5 ** ((now - self.at) / HALF_LIFE))

    def add(self, amount: int, now: float) -> None:
        """It has done something."""
        self.score = self.score_at(now) + amount
        self.at = self.active = now


class Places(Generic[K]):
    """The places within `room` series. `parent` returns what has to have a place first; None: nothing."""

    def __init__(self, room: int, parent: Callable[[K], K | None] = lambda _key: None) -> None:
        self.room = room
        self._parent = parent
        self._placed: dict[K, _Place] = {}
        self._waiting: dict[K, _Place] = {}
        self.used = 0
        """Series of all places."""

    def __contains__(self, key: K) -> bool:
        return key in self._placed

    @property
    def waiting(self) -> int:
        """How many have no place and would have one if there were room."""
        return len(self._waiting)

    def wants(self, key: K, amount: int, cost: int, now: float) -> bool:
        """Tell that something has done so much; return whether it has a place of its own.

        `cost` is the number of series that it would begin with.
        """
        place = self._placed.get(key)
        if place is not None:
            place.add(amount, now)
            return True
        place = self._waiting.get(key)
        if place is None:
            place = _Place(cost, now)
        place.add(amount, now)
        parent = self._parent(key)
        if self.used + cost <= self.room and (parent is None or parent in self._placed):
            self._waiting.pop(key, None)
            self._put(key, place, cost)
            return True
        self._waiting[key] = place
        return False

    def charge(self, key: K, cost: int) -> None:
        """Say how many series it has really."""
        place = self._placed.get(key)
        if place is not None:
            self.used += cost - place.cost
            place.cost = cost

    def remove(self, key: K) -> list[K]:
        """Take it out, and what it is the parent of; return which places are free now."""
        self._waiting.pop(key, None)
        if key not in self._placed:
            return []
        gone = [key, *(one for one in self._placed if self._parent(one) == key)]
        for one in gone:
            self.used -= self._placed.pop(one).cost
        return gone

    def settle(self, now: float) -> list[K]:
        """After a look: end what is idle, give the busiest of the waiting the places of those that do least,
        and go back below the ceiling; return what has lost its place.
        """
        lost: list[K] = []
        for key, place in list(self._placed.items()):
            if now - place.active >= IDLE and key in self._placed:
                lost += self.remove(key)
        least = sorted(self._placed, key=lambda key: self._placed[key].score_at(now), reverse=True)
        for key in self._wanting(self._placed[least[-1]].score_at(now) if least else 0.0, now):
            parent = self._parent(key)
            if parent is not None and parent not in self._placed:
                continue
            place = self._waiting[key]
            while self.used + place.cost > self.room and least:
                weakest = least[-1]
                if weakest in self._placed:
                    if weakest == parent:
                        break
                    if place.score_at(now) < FACTOR * self._placed[weakest].score_at(now):
                        break
                    lost += self.remove(weakest)
                least.pop()
            if self.used + place.cost > self.room:
                break
            del self._waiting[key]
            self._put(key, place, place.cost)
        lost += self.shed(now)
        return lost

    def _wanting(self, weakest: float, now: float) -> list[K]:
        """Return who may get a place now, the busiest first, and a parent before what needs it; forget those
        that have done nothing for long.
        """
        scores: dict[K, float] = {}
        forgotten: list[K] = []
        enough, left = FACTOR * weakest, self.room - self.used
        for key, place in self._waiting.items():
            score = place.score_at(now)
            if score < _FORGOTTEN:
                forgotten.append(key)
            elif score >= enough or place.cost <= left:
                scores[key] = score
        for key in forgotten:
            del self._waiting[key]
        return sorted(scores, key=lambda key: (-scores[key], self._parent(key) is not None))

    def shed(self, now: float) -> list[K]:
        """Take places from those that do least until all series are below the ceiling."""
        lost: list[K] = []
        if self.used > self.room:
            for key in sorted(self._placed, key=lambda key: self._placed[key].score_at(now)):
                if self.used <= self.room:
                    break
                lost += self.remove(key)
        return lost

    def _put(self, key: K, place: _Place, cost: int) -> None:
        place.cost = cost
        self._placed[key] = place
        self.used += cost
