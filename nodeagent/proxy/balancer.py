"""Which endpoint is next: round robin over the ready ones, those that just refused a connection last.

Pure: time is an argument, nothing here waits or connects.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from nodeagent.plan.model import Upstream

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0


class RoundRobin:
    """Takes endpoints in turn. `replace` keeps the place in the order when endpoints come and go.

    An endpoint that failed to accept a connection is passed over for a second, doubled with each further
    failure up to half a minute, unless there is no other: a guess about health never makes a Service
    unreachable.
    """

    __slots__ = ("_next", "_paused", "_upstreams")

    def __init__(self, upstreams: tuple[Upstream, ...], first: int = 0) -> None:
        self._upstreams = upstreams
        self._next = first
        self._paused: dict[Upstream, tuple[float, float]] = {}

    def replace(self, upstreams: tuple[Upstream, ...]) -> None:
        """Take another set of endpoints into use, what is known of those that stay is kept."""
        self._upstreams = upstreams
        if self._paused:
            self._paused = {u: p for u, p in self._paused.items() if u in upstreams}

    def pick(self, avoid: Collection[Upstream], now: float) -> Upstream | None:
        """Return the next endpoint that is not in `avoid`; None if there is none."""
        upstreams = self._upstreams
        count = len(upstreams)
        if not count:
            return None
        start = self._next
        self._next = start + 1
        if not avoid and not self._paused:
            return upstreams[start % count]
        fallback = None
        for offset in range(count):
            upstream = upstreams[(start + offset) % count]
            if upstream in avoid:
                continue
            paused = self._paused.get(upstream)
            if paused is None or paused[0] <= now:
                self._next = start + offset + 1  # else the one behind a paused one gets the share of both
                return upstream
            fallback = fallback or upstream
        return fallback

    def connect_failed(self, upstream: Upstream, now: float) -> None:
        """Note that this endpoint accepted no connection."""
        if upstream in self._upstreams:
            _, pause = self._paused.get(upstream, (0.0, 0.0))
            pause = min(max(FIRST_PAUSE, 2 * pause), LONGEST_PAUSE)
            self._paused[upstream] = (now + pause, pause)

    def connected(self, upstream: Upstream) -> None:
        """Note that this endpoint accepts connections."""
        if self._paused:
            self._paused.pop(upstream, None)
