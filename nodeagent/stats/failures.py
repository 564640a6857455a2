"""The latest requests and connections that failed or were refused on this node: a bounded memory of them.

Workers send each as a line of JSON, and count what they leave out. The latest of each Service are remembered
besides the latest of all, so that one in trouble does not hide another.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

MOST: Final = 500
"""Lines that are remembered of all Services together."""
MOST_OF_SERVICE: Final = 50
MOST_SERVICES: Final = 100
"""Services of which lines are remembered: those that had one last."""
USUAL: Final = 100
"""Lines that are shown by default."""


class FailureLine(msgspec.Struct, frozen=True, array_like=True):
    """A line of JSON, and the Service that it is about: `namespace/name`; empty: it was for none."""

    service: str
    line: bytes


class ServiceFailures(msgspec.Struct, frozen=True):
    """How many there were of one Service, since they are remembered."""

    service: str
    seen: int
    left_out: int


class Failures(msgspec.Struct, frozen=True):
    """What is known, newest first: the page `/failures`."""

    node: str
    since: float
    """When the agent began to count, as seconds since 1970."""
    seen: int
    """How many there were since then, without those that were left out."""
    left_out: int
    """How many more there were that nothing else is known of, because there were too many in one second."""
    kept: int
    """How many are remembered; there may be more than are shown."""
    failures: Sequence[Any]
    services: Sequence[ServiceFailures] = ()
    """If no Service is chosen: each one with something remembered, the latest first."""


class _OfService:
    """What is remembered of one Service."""

    __slots__ = ("left_out", "lines", "seen")

    def __init__(self) -> None:
        self.lines: deque[bytes] = deque(maxlen=MOST_OF_SERVICE)
        self.seen = 0
        self.left_out = 0


class FailureMemory:
    """Remembers the latest of the node. `since` is when it began."""

    def __init__(self, node: str, since: float) -> None:
        self.node = node
        self.since = since
        self._all = _OfService()
        self._all.lines = deque(maxlen=MOST)
        self._services: OrderedDict[str, _OfService] = OrderedDict()

    def heard(self, lines: Iterable[FailureLine], left_out: Iterable[tuple[str, int]]) -> None:
        """Take what a worker has sent."""
        for one in lines:
            for place in (self._all, self._of(one.service)):
                place.lines.append(one.line)
                place.seen += 1
        for service, count in left_out:
            self._all.left_out += count
            self._of(service).left_out += count

    def _of(self, service: str) -> _OfService:
        found = self._services.get(service)
        if found is None:
            found = self._services[service] = _OfService()
            if len(self._services) > MOST_SERVICES:
                self._services.popitem(last=False)
        else:
            self._services.move_to_end(service)
        return found

    def show(self, service: str = "", limit: int = USUAL) -> Failures:
        """Return the latest, of one Service or (empty) of all."""
        place = (self._services.get(service) or _OfService()) if service else self._all
        lines = list(place.lines)[: -limit - 1 : -1]
        services = [
            ServiceFailures(name, one.seen, one.left_out) for name, one in reversed(self._services.items())
        ]
        return Failures(
            self.node,
            self.since,
            place.seen,
            place.left_out,
            len(place.lines),
            [msgspec.Raw(line) for line in lines],
            [] if service else services,
        )


def merge_failures(pages: Sequence[Failures], limit: int = USUAL) -> Failures:
    """Return what several agents know, together; each failure must be a mapping with `time`."""
    failures = [one for page in pages for one in page.failures]
    failures.sort(key=lambda one: str(one.get("time", "")).rstrip("Z"), reverse=True)
    services: dict[str, ServiceFailures] = {}
    for one in (service for page in pages for service in page.services):
        known = services.get(one.service, ServiceFailures(one.service, 0, 0))
        seen, left_out = known.seen + one.seen, known.left_out + one.left_out
        services[one.service] = ServiceFailures(one.service, seen, left_out)
    return Failures(
        pages[0].node if len(pages) == 1 else "",
        min((page.since for page in pages), default=0.0),
        sum(page.seen for page in pages),
        sum(page.left_out for page in pages),
        sum(page.kept for page in pages),
        failures[:limit],
        list(services.values()),
    )
