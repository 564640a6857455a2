"""Which requests may be sent again, how many, and after which wait. Pure."""

from __future__ import annotations

from collections.abc import Container
from email.utils import mktime_tz, parsedate_tz
from typing import Final

from middleware.contract import ExchangeError, GatewayTimeout, Headers, NoEndpoint, Response, UpstreamReset
from middleware.grpc import GrpcStatus, of_reply
from middleware.values import WHOLE
from middleware.window import RollingWindow

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110 section 9.2.2: PUT, DELETE and the safe methods."""

BUDGET_WINDOW: Final = 10
"""Seconds."""
BUDGET_SHARE: Final = WHOLE // 5
"""One retry is allowed for five requests."""
BUDGET_FLOOR: Final = 10
"""Retries in a window that are allowed to any Service, however quiet."""
BACKOFF_BASE: Final = 0.025
BACKOFF_LIMIT: Final = 0.250

PUSHBACK: Final = "grpc-retry-pushback-ms"


class RetryBudget:
    """Keeps retries below a share of the live traffic, so that a Service in trouble is not pushed under.

    By default in any ten seconds at most one retry for five requests (a retry is not a request); the idea is
    Finagle's `RetryBudget`, the share Finagle's and Envoy's default. A share alone would never let a Service
    with one request a minute retry anything, so `floor` retries in ten seconds are always allowed. This floor
    is not added to the share as in Finagle: from five requests a second on the fifth is the limit, exactly,
    and below that the floor is one more request a second at worst. Each worker has its own budget.
    """

    def __init__(self, share: int = BUDGET_SHARE, floor: int = BUDGET_FLOOR) -> None:
        self._share = share
        self._floor = floor
        self._window = RollingWindow(_Second, count=BUDGET_WINDOW, width=1.0)

    def deposit(self, now: float) -> None:
        """Count a request."""
        self._window.current(now).requests += 1

    def withdraw(self, now: float) -> bool:
        """Ask for one retry; True grants it."""
        seconds = self._window.buckets(now)
        allowed = max(self._floor, sum(second.requests for second in seconds) * self._share // WHOLE)
        if sum(second.retries for second in seconds) >= allowed:
            return False
        self._window.current(now).retries += 1
        return True


class _Second:
    __slots__ = ("requests", "retries")

    def __init__(self) -> None:
        self.requests = 0
        self.retries = 0


def backoff(retry: int, fraction: float) -> float:
    """Return the seconds to wait before the `retry`-th retry (from 1); `fraction` is random, 0 to 1.

    The first retry goes to another endpoint and is sent at once. Later ones wait as Envoy's do: a random time
    up to a limit that doubles from 25 ms, and never above 250 ms.
    """
    if retry == 1:
        return 0.0
    return fraction * min(BACKOFF_LIMIT, BACKOFF_BASE * ((1 << (retry - 1)) - 1))


def full_jitter(retry: int, fraction: float, base: float, limit: float) -> float:
    """Return the seconds to wait before the `retry`-th retry (from 1) where the owner has set waits.

    A random time, `fraction` of it, up to a bound that doubles from `base` to `limit`. Being random from 0
    spreads the retries of many clients best ("full jitter" in Amazon's comparison, 2015).
    """
    return fraction * min(limit, base * (1 << (retry - 1)))


def asked_to_wait(headers: Headers, wall: float) -> float:
    """Return for how many seconds a response asks to wait (RFC 9110 section 10.2.3); 0 if it does not.

    A date is compared with the response's own `Date`, so that clocks need not agree, or else with `wall`.
    """
    text = headers.get("Retry-After")
    if text is None:
        return 0.0
    if text.isascii() and text.isdigit():
        return float(text[:18])
    until, sent = _seconds(text), _seconds(headers.get("Date") or "")
    return max(0.0, until - (wall if sent is None else sent)) if until is not None else 0.0


def asked_by_call(text: str) -> float | None:
    """Return for how many seconds `grpc-retry-pushback-ms` asks to wait (gRFC A6); None: the call must not be
    sent again, which a negative number says, and whatever is no number.
    """
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text[:18]) / 1000


def asked_pause(response: Response, call: bool, wall: float) -> float | None:
    """Return for how many seconds a response asks to wait; None: it asks not to be sent the request again."""
    if call:
        pushback = response.trailer(PUSHBACK)
        if pushback is not None:
            return asked_by_call(pushback)
    return asked_to_wait(response.headers, wall)


def _seconds(date: str) -> float | None:
    """Return a date of HTTP as seconds since 1970; None if it is none."""
    try:
        parsed = parsedate_tz(date[:64])
        return float(mktime_tz(parsed)) if parsed is not None else None
    except (ValueError, OverflowError):
        return None


def is_retriable_error(
    error: ExchangeError, method: str, statuses: frozenset[int], repeatable: Container[str] = IDEMPOTENT
) -> bool:
    """Return whether an exchange that brought no response may and should be tried again."""
    if error.final or error.fault != "upstream" or isinstance(error, NoEndpoint):
        return False
    if not error.processed:
        return True
    return method in repeatable and (
        isinstance(error, UpstreamReset | GatewayTimeout) or error.status in statuses
    )


def is_retriable_response(
    status: int, method: str, statuses: frozenset[int], repeatable: Container[str] = IDEMPOTENT
) -> bool:
    """Return whether a response should be thrown away and the request tried again."""
    return status in statuses and method in repeatable


def is_retriable_call(error: ExchangeError, statuses: frozenset[GrpcStatus]) -> bool:
    """Return whether a gRPC call without a response should nevertheless be tried again."""
    return (
        not error.final
        and error.fault == "upstream"
        and not isinstance(error, NoEndpoint)
        and of_reply(error.status) in statuses
    )
