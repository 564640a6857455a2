"""The condition of a circuit breaker's expression, compiled to a few counters of outcomes.

The definitions of the figures are those of vulcand/oxy (`memmetrics`), which Traefik uses, so that they mean
the same: a network error is a 502 or a 504 (here also every error that brought no response from the
endpoint), ratios of nothing are 0, and so is a latency of nothing. Two things differ: latencies are those of
the same ten seconds as all other figures (oxy: of a minute), and are measured from the request's last byte to
the response's head (oxy: from the request's head to the response's last byte).

The value of a figure is not needed, only whether a comparison of it is true, and for that it is enough to
count:

- a ratio is one counter divided by another;
- by nearest rank, the latency that q per cent of n outcomes do not exceed is the smallest one of rank
  `max(1, ceil(q / 100 * n))`. It is more than a bound if and only if fewer outcomes than that rank took at
  most the bound. So a latency needs one counter for each bound, and no histogram: it is exact, its memory
  constant, and an outcome costs the same whatever the expression asks.

Pure: an outcome becomes the numbers of the counters to which it adds 1, and the sums of the counters decide.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from math import ceil, inf, nextafter
from typing import Final

import msgspec

from middleware.contract import MOST_COUNTERS
from middleware.expression import (
    OPERATORS,
    Comparison,
    Every,
    Expression,
    LatencyAtQuantile,
    NetworkErrorRatio,
    Not,
    RequestThreshold,
    ResponseCodeRatio,
    Some,
)

NETWORK_ERRORS: Final = frozenset({502, 504})
TOTAL: Final = 0
"""The counter of all outcomes, which every condition has."""


class TooManyCounters(ValueError):
    """An expression needs more counters than a window has."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"the expression needs {needed} counters of {MOST_COUNTERS}")
        self.needed = needed


class _Errors(msgspec.Struct, frozen=True):
    """Counts outcomes that are network errors."""


class _Codes(msgspec.Struct, frozen=True):
    """Counts outcomes with `start <= status < to`."""

    start: int
    to: int


class _AtMost(msgspec.Struct, frozen=True):
    """Counts the outcomes that took at most this many milliseconds."""

    milliseconds: float


_Counter = _Errors | _Codes | _AtMost
Sums = Sequence[int]

_NEGATIONS: Final = {"<=": ">", "<": ">=", "!=": "=="}
_OPPOSITES: Final = _NEGATIONS | {right: left for left, right in _NEGATIONS.items()}


class Condition:
    """An expression, compiled. `counters` is how many it needs, `timed` whether latencies matter to it.

    Raises:
        TooManyCounters: a window has not as many as it needs.
    """

    def __init__(self, expression: Expression) -> None:
        self._counters: dict[_Counter, int] = {}
        self._holds = self._compile(expression)
        shown = {_shown(one): one for one in comparisons(expression)}
        self._shown = [self._show(one) for one in shown.values()]
        self.counters = len(self._counters) + 1
        if self.counters > MOST_COUNTERS:
            raise TooManyCounters(self.counters)
        times = sorted(counter.milliseconds for counter in self._counters if isinstance(counter, _AtMost))
        self.timed = bool(times)
        self._times = times
        self._from_time = [
            tuple(self._counters[_AtMost(one)] for one in times[index:]) for index in range(len(times) + 1)
        ]
        """The counters of latencies, by how many of the bounds an outcome exceeds."""
        self._from_status: dict[int, tuple[int, ...]] = {}
        """The other counters, by status code; those of network errors by its negative."""

    def indices(self, status: int, latency: float, network_error: bool) -> tuple[int, ...]:
        """Return the counters that an outcome adds to.

        Latency in seconds; `network_error` says that no response came, whatever the status.
        """
        key = -status if network_error else status
        found = self._from_status.get(key)
        if found is None:
            found = self._from_status[key] = tuple(self._of_status(status, network_error))
        if self._times:
            return found + self._from_time[bisect_left(self._times, latency * 1000)]
        return found

    def holds(self, sums: Sums) -> bool:
        """Return whether the expression is true of what was counted."""
        return self._holds(sums)

    def figures(self, sums: Sums) -> str:
        """Return the figures for people.

        A ratio as it is, `NetworkErrorRatio()=0.62`; of a latency on which side of its bound it is, which is
        all that is known: `LatencyAtQuantileMS(50.0)>500`.
        """
        return ", ".join(show(sums) for show in self._shown)

    def _of_status(self, status: int, network_error: bool) -> Iterator[int]:
        yield TOTAL
        for counter, index in self._counters.items():
            match counter:
                case _Errors():
                    counts = network_error or status in NETWORK_ERRORS
                case _Codes(start=start, to=to):
                    counts = start <= status < to
                case _AtMost():
                    counts = False
            if counts:
                yield index

    def _counter(self, counter: _Counter) -> int:
        return self._counters.setdefault(counter, len(self._counters) + 1)

    def _compile(self, expression: Expression) -> Callable[[Sums], bool]:
        match expression:
            case Comparison():
                return self._comparison(expression)
            case Not(term=term):
                inner = self._compile(term)
                return lambda sums: not inner(sums)
            case Every(terms=terms):
                every = [self._compile(term) for term in terms]
                return lambda sums: all(holds(sums) for holds in every)
            case Some(terms=terms):
                some = [self._compile(term) for term in terms]
                return lambda sums: any(holds(sums) for holds in some)

    def _comparison(self, comparison: Comparison) -> Callable[[Sums], bool]:
        figure, bound, sign = comparison.figure, comparison.bound, comparison.operator
        if not isinstance(figure, LatencyAtQuantile):
            ratio, compare = self._ratio(figure), OPERATORS[sign]
            return lambda sums: compare(ratio(sums), bound)
        if sign in _NEGATIONS:
            holds = self._comparison(Comparison(figure, _NEGATIONS[sign], bound))
            return lambda sums: not holds(sums)
        if sign == ">":
            return self._exceeds(figure, bound)
        at_least = self._exceeds(figure, nextafter(bound, -inf))
        if sign == ">=":
            return at_least
        above = self._exceeds(figure, bound)
        return lambda sums: at_least(sums) and not above(sums)

    def _ratio(
        self, figure: NetworkErrorRatio | ResponseCodeRatio | RequestThreshold
    ) -> Callable[[Sums], float]:
        if isinstance(figure, RequestThreshold):
            return lambda sums: sums[TOTAL]
        if isinstance(figure, NetworkErrorRatio):
            part, whole = self._counter(_Errors()), TOTAL
        else:
            part = self._counter(_Codes(figure.start, figure.to))
            whole = self._counter(_Codes(figure.divided_from, figure.divided_to))
        return lambda sums: sums[part] / sums[whole] if sums[whole] else 0.0

    def _exceeds(self, figure: LatencyAtQuantile, milliseconds: float) -> Callable[[Sums], bool]:
        """Return what says whether the latency at the quantile is more than this; it is 0 of nothing."""
        at_most, share = self._counter(_AtMost(milliseconds)), figure.quantile / 100
        of_nothing = milliseconds < 0

        def exceeds(sums: Sums) -> bool:
            total = sums[TOTAL]
            return sums[at_most] < max(1, ceil(share * total)) if total else of_nothing

        return exceeds

    def _show(self, comparison: Comparison) -> Callable[[Sums], str]:
        figure = comparison.figure
        if not isinstance(figure, LatencyAtQuantile):
            ratio = self._ratio(figure)
            shape = "d" if isinstance(figure, RequestThreshold) else ".3g"
            return lambda sums: f"{figure}={ratio(sums):{shape}}"
        holds, sign, bound = self._comparison(comparison), comparison.operator, comparison.bound
        opposite = _OPPOSITES[sign]
        return lambda sums: f"{figure}{sign if holds(sums) else opposite}{bound:g}"


def _shown(comparison: Comparison) -> object:
    """Return what is shown but once: a ratio whatever it is compared with, a latency against a bound."""
    figure = comparison.figure
    return comparison if isinstance(figure, LatencyAtQuantile) else figure


def comparisons(expression: Expression) -> Iterator[Comparison]:
    """Yield the comparisons of an expression, in its order."""
    match expression:
        case Comparison():
            yield expression
        case Not(term=term):
            yield from comparisons(term)
        case Every(terms=terms) | Some(terms=terms):
            for one in terms:
                yield from comparisons(one)
