"""Sends live requests to the agent while somebody watches them, and who is told of what ends here.

At most `MOST_LINES` in `PERIOD`, and none while the agent does not take what it was sent: the rest is counted
and told. A line has no query, no header value and no body.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from middleware.contract import Ended
from nodeagent.control.messages import Tap, Tapped
from nodeagent.control.tap import TappedLine, Watch
from nodeagent.log.configure import utc
from nodeagent.proxy.observer import FAILURES, Circulation, Closed, Refused
from nodeagent.worker.access_log import AccessLogger
from nodeagent.worker.line_fields import failure_of, request_fields
from nodeagent.worker.recent import RecentFailures
from nodeagent.worker.sources import SourcePods

PERIOD: Final = 0.1
"""Seconds between two messages to the agent."""
MOST_LINES: Final = 50
"""In one message of one worker."""
MOST_PENDING: Final = 256 * 1024
"""Bytes that the agent has not taken yet, above which no lines are sent."""


class Tapper:
    """Collects lines for the watches of this worker. `pending` tells how many bytes the agent has to take."""

    def __init__(
        self,
        sources: SourcePods,
        worker: int,
        send: Callable[[Tapped], None],
        pending: Callable[[], int],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._sources = sources
        self._worker = worker
        self._send = send
        self._pending = pending
        self._wall = wall
        self._watches: dict[str, tuple[Watch, ...]] = {}
        self._lines: list[TappedLine] = []
        self._dropped: Counter[int] = Counter()

    @property
    def services(self) -> frozenset[str]:
        """The Services that somebody watches."""
        return frozenset(self._watches)

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
        if not self._watches:
            self._lines.clear()
            self._dropped.clear()

    def ended(self, ended: Ended) -> None:
        """Keep a line for an exchange that somebody watches."""
        watches = self._watches.get(ended.service)
        if watches is None:
            return
        path = ended.target.partition("?")[0]
        workload = self._sources.workload(ended.source)
        status, method = ended.status, ended.method
        numbers = tuple([one.number for one in watches if one.filter.takes(workload, status, path, method)])
        if not numbers:
            return
        if len(self._lines) >= MOST_LINES:
            self._dropped.update(numbers)
            return
        failure = failure_of(ended)
        fields = {"time": utc(self._wall()), **request_fields(ended, failure), "source": ended.source}
        pod = self._sources.find(ended.source)
        if pod is not None:
            fields["source_pod"] = f"{pod.namespace}/{pod.name}"
            fields["source_workload"] = workload
        fields["worker"] = self._worker
        self._lines.append(TappedLine(numbers, msgspec.json.encode(fields)))

    def flush(self) -> None:
        """Send what there is."""
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
