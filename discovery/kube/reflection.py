"""What a reflector does next: the list-and-watch protocol as decisions, without a loop, clock or socket.

The protocol (Kubernetes documentation, "Kubernetes API Concepts", sections on efficient detection of changes,
bookmarks and chunked lists):

    list, page by page ──last page──> watch from the list's version ──end──> watch from the last version
       ^   │ expired: once more, unpaged      │ expired, malformed           │ any other failure
       │   │                                  │                              v
       └───┴──────────────────────────────────┴──────version went back──── check ──> watch from there

Each input returns the `Step` to take, or None to go on reading. A failure costs a pause that grows; after
every other failure of a watch, there is a watch from the last version, and nothing is lost.

Before that the server's present version is checked. A watch from a version that the server has not reached,
as after a restore from a backup, is not refused: it stays silent, without even a bookmark, until the server
reaches that version (kube-apiserver 1.34; tests/kube/test_weather.py).

How long the pause may become depends on the cost of a try: a try that reaches nobody costs a packet, a check
or a refusal hardly anything, but a list reads everything.
"""

from __future__ import annotations

import msgspec

from discovery.kube.backoff import Backoff
from discovery.kube.failure import Failure, FailureKind
from discovery.kube.timing import Timing


class ListPage(msgspec.Struct, frozen=True):
    """Ask for a page of the list; an empty `continue_token` begins it again. `limit` 0 is everything."""

    continue_token: str = ""
    limit: int = 0


class Check(msgspec.Struct, frozen=True):
    """Ask for the server's present version, with no more objects than it takes."""


class Watch(msgspec.Struct, frozen=True):
    """Ask for the changes after `version`."""

    version: str


Request = ListPage | Check | Watch

UNREACHED: frozenset[FailureKind] = frozenset({"connect", "cut", "timeout"})
REFUSED: frozenset[FailureKind] = frozenset({"credentials", "unauthorized", "forbidden"})


class Step(msgspec.Struct, frozen=True):
    """Pause for `delay` seconds, then send `request`, with new credentials if they were not accepted."""

    request: Request
    delay: float = 0.0
    failure: Failure | None = None
    renew_credentials: bool = False


class Reflection:
    """The state of one list-and-watch: where in the protocol it is, and the version it knows."""

    def __init__(self, backoff: Backoff, timing: Timing, page_size: int) -> None:
        self._backoff = backoff
        self._timing = timing
        self._page_size = page_size
        self._request: Request = ListPage(limit=page_size)
        self._version = ""
        self._listed_version = ""
        self._events = 0

    @property
    def version(self) -> str:
        """The resource version up to which everything has been seen; empty before the first list."""
        return self._version

    def start(self) -> Step:
        """Return the first step."""
        return Step(self._request)

    def page_received(self, version: str, continue_token: str) -> Step:
        """A page of the list is here; `continue_token` is empty on the last one."""
        assert isinstance(self._request, ListPage)
        # All pages belong to the version of the first one.
        self._listed_version = self._listed_version or version
        if continue_token:
            return self._go(ListPage(continue_token, self._page_size))
        self._version, self._listed_version = self._listed_version, ""
        return self._go(Watch(self._version))

    def version_checked(self, version: str) -> Step:
        """The server's present version is here."""
        if _went_back(self._version, version):
            return self._fail(self._relist(), self._gone_back(version))
        return self._go(Watch(self._version))

    def event_received(self, version: str) -> Step | None:
        """A change or a bookmark of this version was read.

        Versions only grow. One that is lower comes from a store that was restored from a backup: what we
        know may never have happened, so everything is listed again.
        """
        self._events += 1
        if _went_back(self._version, version):
            return self._fail(self._relist(), self._gone_back(version))
        self._version = version or self._version
        return None

    def watch_ended(self, lasted: float) -> Step:
        """The server ended the watch in order, `lasted` seconds after it began."""
        watch = Watch(self._version)
        if self._events == 0 and lasted < self._timing.short_watch:
            return self._fail(Check(), Failure("cut", f"the watch ended after {lasted:.3f}s with nothing"))
        self._backoff.reset()
        if self._events == 0 and lasted >= self._timing.silent_watch:
            return self._go(self._relist())
        return self._go(watch)

    def failed(self, failure: Failure, lasted: float = 0.0) -> Step:
        """The request failed; a watch had lasted `lasted` seconds."""
        watching = isinstance(self._request, Watch)
        progress = self._events > 0 and failure.kind not in ("expired", "malformed")
        if watching and (progress or lasted >= self._timing.good_watch):
            self._backoff.reset()
        return self._fail(self._after(failure), failure)

    def error_event(self, failure: Failure, lasted: float = 0.0) -> Step:
        """The watch brought an ERROR event; the same watch would bring it again, so list."""
        if lasted >= self._timing.good_watch:
            self._backoff.reset()
        return self._fail(self._relist(), failure)

    def _after(self, failure: Failure) -> Request:
        if not isinstance(self._request, ListPage):
            return self._relist() if failure.kind in ("expired", "refused", "malformed") else Check()
        if failure.kind == "expired" and self._request.continue_token:
            # The pages took longer than the server keeps their snapshot; all at once cannot expire.
            return self._relist(limit=0)
        if failure.kind == "refused":
            return self._relist()
        return self._request

    def _relist(self, limit: int | None = None) -> ListPage:
        self._listed_version = ""
        return ListPage(limit=self._page_size if limit is None else limit)

    def _gone_back(self, version: str) -> Failure:
        return Failure("expired", f"the resource version went back from {self._version} to {version}")

    def _go(self, request: Request) -> Step:
        self._request = request
        self._events = 0
        return Step(request)

    def _fail(self, request: Request, failure: Failure) -> Step:
        self._request = request
        self._events = 0
        # On top of what the server asks for, or all nodes would come back in the same moment.
        delay = failure.retry_after + self._backoff.failed(failure.kind, self._limit(failure))
        return Step(request, delay, failure, renew_credentials=failure.kind == "unauthorized")

    def _limit(self, failure: Failure) -> float:
        """Return the longest pause before the request that is next."""
        if failure.kind in UNREACHED:
            return self._timing.unreached_limit
        light = failure.kind in REFUSED or isinstance(self._request, Check)
        return self._timing.light_limit if light else self._timing.backoff_limit


def _went_back(known: str, seen: str) -> bool:
    """Compare versions where they are numbers, as they are in every server that stores in etcd."""
    if not (known.isdecimal() and seen.isdecimal()):
        return False
    return (len(seen), seen) < (len(known), known)
