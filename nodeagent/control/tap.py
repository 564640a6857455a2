"""Who watches live requests of this agent's workers, which requests, and how the lines get to them.

A worker is told of every watch (`messages.Tap`) and sends lines only while there is one. What finds no room
here, because a watcher does not read, is counted and told to that watcher.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from middleware.values import InvalidValue, quote

MOST_WATCHES: Final = 10
"""At once, on one node."""
MOST_WAITING: Final = 1000
"""Lines that wait for one watcher."""
LONGEST_FILTER: Final = 253
"""Characters of one value of a filter."""

_STATUS = re.compile(r"[1-5](xx|[0-9]{2})|0")
_METHOD = re.compile(r"[A-Z]{1,32}")


class TapFilter(msgspec.Struct, frozen=True):
    """Which requests somebody watches; an empty field holds for all."""

    service: str
    """`namespace/name`."""
    workload: str = ""
    """Of the client: `shop/deployment/web`, `deployment/web` or `web`."""
    status: str = ""
    """`503`, or `5xx`."""
    path: str = ""
    """What the path begins with."""
    method: str = ""

    @property
    def lowest(self) -> int:
        """The lowest status of the requests that are wanted."""
        return int(self.status.replace("x", "0") or 0)

    def takes(self, workload: str, status: int, path: str, method: str) -> bool:
        """Return whether a request is one of them."""
        return (
            (not self.method or method == self.method)
            and path.startswith(self.path)
            and (not self.status or str(status) == self.status or f"{status // 100}xx" == self.status)
            and (not self.workload or workload == self.workload or workload.endswith(f"/{self.workload}"))
        )


class Watch(msgspec.Struct, frozen=True, array_like=True):
    """A filter, and the number by which lines for it are known."""

    number: int
    filter: TapFilter


class TappedLine(msgspec.Struct, frozen=True, array_like=True):
    """A request as a line of JSON, and the numbers of the watches that take it."""

    watches: tuple[int, ...]
    line: bytes


def read_filter(values: Mapping[str, str]) -> TapFilter:
    """Read a filter from the parameters of a query.

    Raises:
        InvalidValue: one is not as it should be.
    """
    for name, value in values.items():
        if len(value) > LONGEST_FILTER:
            raise InvalidValue(f"{name} is too long", f"at most {LONGEST_FILTER} characters")
    service, status, method = (values.get(name, "") for name in ("service", "status", "method"))
    if service.count("/") != 1:
        raise InvalidValue(f"service {quote(service)} names no Service", "namespace/name")
    if status and not _STATUS.fullmatch(status):
        raise InvalidValue(f"status {quote(status)} is none", "a status such as 503, or a class such as 5xx")
    if method and not _METHOD.fullmatch(method):
        raise InvalidValue(f"method {quote(method)} is none", "a method in capital letters, such as GET")
    return TapFilter(service, values.get("from", ""), status, values.get("path", ""), method)


class TooManyWatches(Exception):
    """Nobody else can watch on this node now; the message says so."""


class Watching:
    """One who watches: takes lines as they come. `dropped` counts those that found no room."""

    def __init__(self, number: int, wanted: TapFilter, closed: Callable[[int], None]) -> None:
        self.watch = Watch(number, wanted)
        self._closed = closed
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._come = asyncio.Event()

    def add(self, line: bytes) -> None:
        """Keep a line until it is taken."""
        if len(self._lines) < MOST_WAITING:
            self._lines.append(line)
        else:
            self._dropped += 1
        self._come.set()

    def miss(self, count: int) -> None:
        """Count lines that a worker had no room for."""
        self._dropped += count
        self._come.set()

    async def next(self, seconds: float) -> tuple[list[bytes], int]:
        """Wait until there is a line, so long at most; return the lines and how many are missing."""
        try:
            async with asyncio.timeout(seconds):
                await self._come.wait()
        except TimeoutError:
            return [], 0
        self._come.clear()
        lines, dropped = list(self._lines), self._dropped
        self._lines.clear()
        self._dropped = 0
        return lines, dropped

    def close(self) -> None:
        """Watch no longer."""
        self._closed(self.watch.number)


class Watchers:
    """All who watch. `changed` is called with all watches when one begins or ends."""

    def __init__(self, changed: Callable[[tuple[Watch, ...]], None]) -> None:
        self._changed = changed
        self._watching: dict[int, Watching] = {}
        self._next = 1

    @property
    def watches(self) -> tuple[Watch, ...]:
        """The watches there are now."""
        return tuple(one.watch for one in self._watching.values())

    def open(self, wanted: TapFilter) -> Watching:
        """Begin to watch.

        Raises:
            TooManyWatches: there are `MOST_WATCHES` already.
        """
        if len(self._watching) >= MOST_WATCHES:
            raise TooManyWatches(f"{MOST_WATCHES} others watch requests on this node; try again later")
        watching = Watching(self._next, wanted, self._close)
        self._next += 1
        self._watching[watching.watch.number] = watching
        self._changed(self.watches)
        return watching

    def _close(self, number: int) -> None:
        if self._watching.pop(number, None) is not None:
            self._changed(self.watches)

    def heard(self, lines: Iterable[TappedLine], dropped: Iterable[tuple[int, int]]) -> None:
        """Give lines of a worker to whom they are for; lines for one who has left are gone."""
        for one in lines:
            for number in one.watches:
                if (watching := self._watching.get(number)) is not None:
                    watching.add(one.line)
        for number, count in dropped:
            if (watching := self._watching.get(number)) is not None:
                watching.miss(count)
