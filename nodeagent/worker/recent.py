"""Tells the agent of what failed or was refused, within a bound, and without waiting.

A line is made for at most `PER_PORT` failures a second at each port of a Service, and `PER_SECOND` of a
worker; the rest is counted. It is told of requests that succeed only if something else, such as the
access log, wants all of them; for those it only looks at two fields.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from middleware.contract import Ended
from nodeagent.control.messages import Failed
from nodeagent.log.stamps import utc
from nodeagent.proxy.observer import Closed, Refused
from nodeagent.stats.failures import FailureLine
from nodeagent.worker.failure_fields import (
    NOT_REFUSED,
    closed_fields,
    cut,
    ended_fields,
    fails,
    refused_fields,
)
from nodeagent.worker.sources import SourcePods

PER_PORT: Final = 10
"""Lines in a second about one port of a Service."""
PER_SECOND: Final = 50
PAUSE: Final = 0.5
"""Seconds that lines are collected."""
MOST_COUNTED: Final = 500
"""Services of which it is counted apart how many are left out."""
MOST_PENDING: Final = 256 * 1024
"""Bytes that the agent has not taken yet, above which no lines are sent."""

Port = tuple[str, int]


class FailureBudget:
    """So many in a second about one port, and so many about all."""

    def __init__(self) -> None:
        self._second = 0
        self._spent = 0
        self._of_port: dict[Port, int] = {}

    def left(self, port: Port, now: float) -> bool:
        """Return whether there is room for one about this port."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._spent = 0
            self._of_port.clear()
        return self._spent < PER_SECOND and self._of_port.get(port, 0) < PER_PORT

    def spend(self, port: Port) -> None:
        """Take the room that is left."""
        self._spent += 1
        self._of_port[port] = self._of_port.get(port, 0) + 1


class RecentFailures:
    """Collects lines of this worker. `later` calls a function after so many seconds, `pending` tells how many
    bytes the agent has to take.
    """

    def __init__(
        self,
        sources: SourcePods,
        worker: int,
        node: str,
        send: Callable[[Failed], None],
        pending: Callable[[], int],
        later: Callable[[float, Callable[[], None]], object],
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._sources = sources
        self._worker = worker
        self._node = node
        self._send = send
        self._pending = pending
        self._later = later
        self._now = now
        self._wall = wall
        self._budget = FailureBudget()
        self._lines: list[FailureLine] = []
        self._left_out: Counter[str] = Counter()
        self._waiting = False
        """Whether `flush` will be called."""

    def takes_reply(self, service: str, port: int, reason: str) -> bool:
        """Return whether a reply that refuses a request is to be told. If there is no room for it, it is
        counted.
        """
        return reason not in NOT_REFUSED and self._room(service, port)

    def ended(self, ended: Ended) -> None:
        """Keep a line for an exchange that failed or was refused."""
        if ended.error is None and ended.status < 400 and not ended.grpc_status:
            return
        if not fails(ended) or not self._room(ended.service, ended.port):
            return
        self._keep(ended_fields(ended), ended.service, ended.port, ended.source)

    def closed(self, closed: Closed) -> None:
        """Keep a line for a connection to a tcp port that failed."""
        if closed.failed and self._room(closed.service, closed.port):
            self._keep(closed_fields(closed), closed.service, closed.port, closed.source)

    def refused(self, refused: Refused) -> None:
        """Keep a line for what was refused before there was an exchange."""
        if self._room(refused.service, refused.port):
            self._keep(refused_fields(refused), refused.service, refused.port, refused.source)

    def flush(self) -> None:
        """Send what there is."""
        self._waiting = False
        if not self._lines and not self._left_out:
            return
        lines, self._lines = self._lines, []
        if self._pending() > MOST_PENDING:
            for line in lines:
                self._count(line.service)
            self._wait()
            return
        left_out = tuple(self._left_out.items())
        self._left_out.clear()
        self._send(Failed(tuple(lines), left_out))

    def _room(self, service: str, port: int) -> bool:
        """Return whether there is room for one more; count it if there is none."""
        if self._budget.left((service, port), self._now()):
            return True
        self._leave_out(service)
        return False

    def _leave_out(self, service: str) -> None:
        self._count(service)
        self._wait()

    def _count(self, service: str) -> None:
        known = service in self._left_out or len(self._left_out) < MOST_COUNTED
        self._left_out[service if known else ""] += 1

    def _keep(self, fields: dict[str, object], service: str, port: int, source: str) -> None:
        self._budget.spend((service, port))
        told: dict[str, object] = {"time": utc(self._wall()), "node": self._node, **fields, "source": source}
        names = self._sources.names(source)
        if names is not None:
            told["source_pod"], told["source_workload"] = names
        told["worker"] = self._worker
        self._lines.append(FailureLine(service, msgspec.json.encode(cut(told))))
        self._wait()

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._later(PAUSE, self.flush)
