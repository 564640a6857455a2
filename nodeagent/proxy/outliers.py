"""Which endpoints do worse than the others and are ejected for a while (`svc.mesh/outlier-detection`). Pure:
time is an argument.

An endpoint is ejected after some failures in a row, or if too few of its requests succeeded in an interval
while those of the others did. Each ejection of the same endpoint is longer than the one before; an interval
without one makes the next one shorter again. Never is more than a share of the endpoints ejected.

What counts as a failure is up to the options. Each worker judges by the requests that it has sent itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Generic, NamedTuple, TypeVar

from nodeagent.plan.model import OutlierDetection

T = TypeVar("T")

CONNECT_FAILURE: Final = "connect-failure"
RESET: Final = "reset"
TIMEOUT: Final = "timeout"
STATUSES: Final[dict[str, frozenset[int]]] = {
    "5xx": frozenset(range(500, 600)),
    "gateway-error": frozenset((502, 503, 504)),
}
"""The kinds of failures that are answers; a gRPC call has the status of `middleware.grpc.http_code`."""


class Change(NamedTuple, Generic[T]):
    """An endpoint is ejected, or used again."""

    endpoint: T
    ejected: bool
    reason: str
    """Of an ejection, why; of its end, why it is over."""
    seconds: float
    """Of an ejection, how long it will last; of its end, how long it was to last."""
    times: int
    """How often the endpoint was ejected lately, this time included."""


class Ejected(NamedTuple):
    """The ejection of one endpoint."""

    reason: str
    until: float
    seconds: float


class _Record:
    """What is known of one endpoint."""

    __slots__ = ("failed", "passed", "streak", "times")

    def __init__(self) -> None:
        self.streak = 0
        """Failures since the last success."""
        self.passed = 0
        """In this interval."""
        self.failed = 0
        self.times = 0
        """Ejections lately: one is forgotten in each interval in which the endpoint is used."""


class Outliers(Generic[T]):
    """The outliers among the endpoints `T` of one backend. `now` never goes back.

    `ejected` are those that are not to be used.
    """

    __slots__ = ("_counted", "_options", "_records", "_round_ends", "ejected")

    def __init__(self, options: OutlierDetection, endpoints: Iterable[T], now: float) -> None:
        self._records: dict[T, _Record] = {endpoint: _Record() for endpoint in endpoints}
        self.ejected: dict[T, Ejected] = {}
        self._round_ends = now + options.interval
        self._take(options)

    def _take(self, options: OutlierDetection) -> None:
        self._options = options
        self._counted = frozenset().union(*(STATUSES.get(kind, ()) for kind in options.failures))

    @property
    def allowed(self) -> int:
        """How many may be ejected at once."""
        return self._options.share * len(self._records) // 100

    def update(self, options: OutlierDetection, endpoints: Collection[T]) -> list[Change[T]]:
        """Take other options and endpoints into use; return what is used again because too many are
        ejected.
        """
        self._take(options)
        self._records = {endpoint: self._records.get(endpoint) or _Record() for endpoint in endpoints}
        self.ejected = {one: known for one, known in self.ejected.items() if one in self._records}
        over = len(self.ejected) - self.allowed
        first = sorted(self.ejected, key=lambda one: self.ejected[one].until)
        reason = "there are fewer endpoints, or fewer may be ejected"
        return [self._end(one, reason) for one in first[: max(0, over)]]

    def counts(self, status: int) -> bool:
        """Whether an answer with this status is a failure."""
        return status in self._counted

    def passed(self, endpoint: T) -> None:
        """Take note of an answer that is none of the failures that count."""
        record = self._records.get(endpoint)
        if record is not None:
            record.passed += 1
            record.streak = 0

    def failed(self, endpoint: T, kind: str, now: float) -> Change[T] | None:
        """Take note of a failure of this kind, or of a status that counts; return what comes of it."""
        record = self._records.get(endpoint)
        if record is None or endpoint in self.ejected:  # it was sent before that
            return None
        if kind in (CONNECT_FAILURE, RESET, TIMEOUT) and kind not in self._options.failures:
            return None
        record.failed += 1
        record.streak += 1
        if record.streak < self._options.consecutive or len(self.ejected) >= self.allowed:
            return None
        return self._eject(endpoint, f"{record.streak} failures in a row, the last one {kind}", now)

    def advance(self, now: float) -> list[Change[T]]:
        """Let time pass: end ejections, and compare the endpoints if an interval is over."""
        changes = []
        if self.ejected:
            over = [one for one, known in self.ejected.items() if known.until <= now]
            changes += [self._end(one, "its time is over") for one in over]
        if now >= self._round_ends:
            changes += self._compare(now)
            self._round_ends = now + self._options.interval
        return changes

    def _compare(self, now: float) -> list[Change[T]]:
        """Eject those whose requests fail while those of the others succeed, the worst first."""
        options = self._options
        used = {one: known for one, known in self._records.items() if one not in self.ejected}
        passed = sum(known.passed for known in used.values())
        total = passed + sum(known.failed for known in used.values())
        rates: list[tuple[float, int, T]] = []
        for one, known in used.items():
            count = known.passed + known.failed
            if count >= options.requests and 100 * known.passed < options.success_rate * count:
                rates.append((known.passed / count, len(rates), one))
        changes = []
        for _, _, one in sorted(rates):
            known = used[one]
            count = known.passed + known.failed
            others_passed, others = passed - known.passed, total - count
            as_bad = 100 * others_passed < options.success_rate * others
            if others < options.requests or as_bad or len(self.ejected) >= self.allowed:
                continue
            reason = (
                f"{known.passed} of {count} requests succeeded; of the others' {others_passed} of {others}"
            )
            passed, total = others_passed, others
            changes.append(self._eject(one, reason, now))
        for one, known in self._records.items():
            if known.times and one not in self.ejected:
                known.times -= 1
            known.passed = known.failed = 0
        return changes

    def _eject(self, endpoint: T, reason: str, now: float) -> Change[T]:
        record, options = self._records[endpoint], self._options
        record.times += 1
        seconds = min(options.ejection * record.times, max(options.ejection, options.longest))
        self.ejected[endpoint] = Ejected(reason, now + seconds, seconds)
        return Change(endpoint, True, reason, seconds, record.times)

    def _end(self, endpoint: T, reason: str) -> Change[T]:
        known = self.ejected.pop(endpoint)
        record = self._records[endpoint]
        record.streak = record.passed = record.failed = 0
        return Change(endpoint, False, reason, known.seconds, record.times)
