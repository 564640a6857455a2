"""Sends live requests to the agent while somebody watches them, and who is told of what ends here.

In each `PERIOD` it looks at `MOST_LOOKED` requests at most and sends `MOST_LINES`. Once it has enough, the
data plane tells it of no more until the period is over, so that watching a busy Service slows it by next to
nothing. What ended meanwhile is counted and told, and so are lines that the agent does not take. A line has
no query, no header value and no body. It has the keys of the access log, and the stages of the journey.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec
from msgspec import UNSET

from middleware.contract import Ended
from nodeagent.control.messages import Tap, Tapped
from nodeagent.control.tap import TappedLine, Watch
from nodeagent.log.stamps import Stamps
from nodeagent.proxy.observer import FAILURES, Circulation, Closed, Refused
from nodeagent.worker.access_log import AccessLogger
from nodeagent.worker.failure_fields import journey_fields
from nodeagent.worker.line_fields import failure_of, path_of, request_line
from nodeagent.worker.recent import RecentFailures
from nodeagent.worker.request_line import RequestLine
from nodeagent.worker.sources import SourcePods

PERIOD: Final = 0.1
"""Seconds between two messages to the agent."""
MOST_LINES: Final = 50
"""In one message of one worker."""
MOST_LOOKED: Final = 500
"""Requests that filters are asked about, in one period of one worker."""
MOST_PENDING: Final = 256 * 1024
"""Bytes that the agent has not taken yet, above which no lines are sent."""


class Exchanges(Protocol):
    """What tells of requests, and counts them: `nodeagent.proxy.data_plane.DataPlane`."""

    def tap(self, services: Mapping[str, int]) -> None:
        """Tell of the exchanges of these Services that end with such a status or a higher one, or an error,
        and no more of others than usual.
        """
        ...

    def requests(self, services: frozenset[str]) -> dict[str, int]:
        """Return how many exchanges of each have ended here."""
        ...


class Tapper:
    """Collects lines for the watches of this worker. `pending` tells how many bytes the agent has to take;
    `exchanges` is asked for once somebody watches.
    """

    def __init__(
        self,
        sources: SourcePods,
        worker: int,
        send: Callable[[Tapped], None],
        pending: Callable[[], int],
        exchanges: Callable[[], Exchanges],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._sources = sources
        self._worker = worker
        self._send = send
        self._pending = pending
        self._exchanges = exchanges
        self._wall = wall
        self._stamp = Stamps()
        self._watches: dict[str, tuple[Watch, ...]] = {}
        self._lines: list[TappedLine] = []
        self._dropped: Counter[int] = Counter()
        self._looked = 0
        self._missing: dict[str, int] | None = None
        """By Service, how many requests there had been when enough were looked at; None: it still looks."""

    @property
    def watched(self) -> bool:
        """Whether anybody watches anything."""
        return bool(self._watches)

    def follow(self, tap: Tap) -> None:
        """Take over which watches there are."""
        by_service: dict[str, list[Watch]] = {}
        for watch in tap.watches:
            by_service.setdefault(watch.filter.service, []).append(watch)
        self._watches = {service: tuple(watches) for service, watches in by_service.items()}
        self._count_missing()
        self._look()
        if not self._watches:
            self._lines.clear()
            self._dropped.clear()

    def ended(self, ended: Ended) -> None:
        """Keep a line for an exchange that somebody watches."""
        watches = self._watches.get(ended.service)
        if watches is None or self._missing is not None:
            return
        self._looked += 1
        if self._looked >= MOST_LOOKED:
            self._pause()
        path = path_of(ended.target)
        workload = self._sources.workload(ended.source)
        status, method = ended.status, ended.method
        numbers = tuple([one.number for one in watches if one.filter.takes(workload, status, path, method)])
        if not numbers:
            return
        if len(self._lines) >= MOST_LINES:
            self._dropped.update(numbers)
            self._pause()
            return
        names = self._sources.names(ended.source)
        stamp = self._stamp.at(self._wall())
        line = request_line(UNSET, UNSET, ended, failure_of(ended), names, self._worker, stamp)
        self._lines.append(TappedLine(numbers, _written(line, ended)))

    def flush(self) -> None:
        """Send what there is: a period is over, and the next one begins."""
        if self._missing is not None:
            self._count_missing()
            self._look()
        self._looked = 0
        if not self._lines and not self._dropped:
            return
        lines, self._lines = self._lines, []
        if self._pending() > MOST_PENDING:
            for line in lines:
                self._dropped.update(line.watches)
            return
        dropped = tuple(self._dropped.items())
        self._dropped.clear()
        self._send(Tapped(tuple(lines), dropped))

    def _look(self) -> None:
        self._missing = None
        lowest = {
            service: min(watch.filter.lowest for watch in watches)
            for service, watches in self._watches.items()
        }
        self._exchanges().tap(lowest)

    def _pause(self) -> None:
        if self._missing is None:
            self._missing = self._exchanges().requests(frozenset(self._watches))
            self._exchanges().tap({})

    def _count_missing(self) -> None:
        """Count as dropped, for each watch, what has ended since the pause began: it may have been for it."""
        if self._missing is None:
            return
        counted = self._exchanges().requests(frozenset(self._missing))
        for service, before in self._missing.items():
            for watch in self._watches.get(service, ()):
                self._dropped[watch.number] += max(0, counted.get(service, 0) - before)


def _written(line: RequestLine, ended: Ended) -> bytes:
    """Return a line as JSON. The stages are put behind its keys as they are written, so that the access log's
    lines need no key for them.
    """
    written = msgspec.json.encode(line)
    if ended.journey is None:  # it began before somebody watched
        return written
    return written[:-1] + b"," + msgspec.json.encode(journey_fields(ended.journey))[1:]


class Tellers:
    """Tells the access log, those who watch, and the agent of what fails. Implements
    `nodeagent.proxy.observer.Observer`.
    """

    def __init__(self, access_log: AccessLogger, tapper: Tapper, recent: RecentFailures) -> None:
        self._access_log = access_log
        self._tapper = tapper
        self._recent = recent
        self.wants_all = access_log.wants_all
        self.from_status = min(access_log.from_status, FAILURES)

    def ended(self, ended: Ended) -> None:
        """Tell of an exchange that ended."""
        self._access_log.ended(ended)
        self._recent.ended(ended)
        if self._tapper.watched:
            self._tapper.ended(ended)

    def takes_reply(self, service: str, port: int, reason: str) -> bool:
        """Return whether the agent is told of what a middleware refuses."""
        return self._recent.takes_reply(service, port, reason)

    def closed(self, closed: Closed) -> None:
        """Tell of a connection to a tcp port that ended."""
        self._access_log.closed(closed)
        self._recent.closed(closed)

    def refused(self, refused: Refused) -> None:
        """Tell of a request or connection that was refused."""
        self._access_log.refused(refused)
        self._recent.refused(refused)

    def layer_failed(self, service: str, port: int, error: Exception) -> None:
        """Tell of a middleware's bug."""
        self._access_log.layer_failed(service, port, error)

    def circulated(self, circulation: Circulation) -> None:
        """Tell that an endpoint is not used any more, or again."""
        self._access_log.circulated(circulation)
