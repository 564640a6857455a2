"""What a layer gets when it is built: a clock, metrics, and what workers share, of a node or of the cluster.

Part of `middleware.contract`, where authors import it from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, Protocol

import msgspec

from middleware.traces import TraceSink


class Metric(msgspec.Struct, frozen=True):
    """A number a middleware keeps for each service and port; workers' numbers are merged by `kind`.

    Counters are summed over the workers; of gauges the greatest is shown.
    """

    name: str
    """As exposed, without the `_total` of counters: `svcmesh_retries`."""
    help: str
    kind: Literal["counter", "gauge"] = "counter"


class SharedTable(Protocol):
    """Numbers that all workers of the node share: a bounded table of int64 by key."""

    def update(self, key: bytes, change: Callable[[int], int | None]) -> None:
        """Call `change` with the number stored under `key` (0 if none) and store what it returns.

        No other worker runs a change on the same number meanwhile; `None` leaves it as it is. When the
        table is full, an entry that has not been written for long makes room.
        """
        ...


class Grant(msgspec.Struct, frozen=True):
    """What a `TokenStore` gives: some tokens, or none and the seconds until there is one."""

    count: int
    wait: float


class TokenStore(Protocol):
    """Limits that all nodes of the cluster share, kept outside of them."""

    def take(
        self, key: str, interval: float, burst: int, most: int, answered: Callable[[Grant | None], None]
    ) -> None:
        """Take up to `most` tokens of a limit of one token each `interval` seconds, `burst` after a pause.

        `answered` is called once, maybe at once, with None if the store cannot be reached.
        """
        ...


WINDOW_SECONDS: Final = 10
"""How far back a `NodeWindow` reaches."""
MOST_COUNTERS: Final = 31
"""Of one `NodeWindow`."""


class NodeWindow(Protocol):
    """Counters over the last `WINDOW_SECONDS`, summed over all workers of the node, and a moment they share.

    The moment is when something began for the whole node, such as a breaker's opening. It is in nanoseconds
    of `Context.now`, 0 if there was none yet; any worker may set it, and the others see it at once. What
    was counted up to it is forgotten.

    Counting costs an addition for each counter, no lock and no system call. Seconds are forgotten as a whole,
    so the window reaches back between `WINDOW_SECONDS - 1` and `WINDOW_SECONDS`. A window that no worker has
    used for a minute may be forgotten, its moment included.
    """

    def moment(self) -> int:
        """Return the moment."""
        ...

    def begin(self, now: float, seen: int) -> bool:
        """Make `now` the moment if that is still `seen`; return whether it was, for one worker of several.

        What is counted within the same second is forgotten, too.
        """
        ...

    def reach(self, moment: int, stage: int) -> bool:
        """Return True to the first worker that says that this stage (1, 2, ...) after the moment is reached.

        False if another has said so of this stage or a later one, or if the moment is another by now.
        """
        ...

    def add(self, now: float, indices: Iterable[int], moment: int) -> bool:
        """Add 1 to the counters of these numbers (from 0), unless the moment is another than `moment` by now.

        `moment` is as it was when what is counted began, so that what began before is not counted after.
        Returns whether it was counted.
        """
        ...

    def sums(self, now: float) -> Sequence[int]:
        """Return every counter's sum over the window."""
        ...


class Context(Protocol):
    """What the data plane gives to a layer when it is built for one port of one Service."""

    @property
    def service(self) -> str:
        """`namespace/name`."""
        ...

    @property
    def port(self) -> int:
        """The Service's port."""
        ...

    @property
    def shared(self) -> SharedTable:
        """Numbers shared by the node's workers; start keys with the middleware's name, service and port."""
        ...

    @property
    def tokens(self) -> TokenStore | None:
        """Limits that all nodes share; None: the agent has no store for them."""
        ...

    @property
    def traces(self) -> TraceSink | None:
        """Who takes what is recorded of requests; None: the agent has nowhere to send it."""
        ...

    def window(self, name: str, counters: int) -> NodeWindow:
        """Return a window with this number of counters, at most `MOST_COUNTERS`, that the node's workers
        share.

        Start its name with the middleware's, and say in it all that makes the counts comparable, such as the
        options: windows of equal name, counters, service, port and rule are one and the same.

        Raises:
            ValueError: a window has not that many counters.
        """
        ...

    def now(self) -> float:
        """The monotonic clock, in seconds; the same for all workers of the node."""
        ...

    def counter(self, metric: Metric) -> Callable[[int], None]:
        """Return a function that adds to this metric."""
        ...

    def gauge(self, metric: Metric) -> Callable[[int], None]:
        """Return a function that sets this metric."""
        ...
