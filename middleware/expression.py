"""Circuit breaker expressions as values: the language of Traefik's users (vulcand/oxy and its predicates).

`middleware.expression_parser` reads them from text. The result is a frozen tree of values; `holds` evaluates
it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from middleware.outcomes import Outcomes

OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


class NetworkErrorRatio(msgspec.Struct, frozen=True, tag=True):
    """The share of requests that the network failed."""

    def value(self, outcomes: Outcomes, now: float) -> float:
        """Return the figure, 0 to 1."""
        return outcomes.network_error_ratio(now)

    def __str__(self) -> str:
        return "NetworkErrorRatio()"


class ResponseCodeRatio(msgspec.Struct, frozen=True, tag=True):
    """Responses with one range of status codes by those with another; `to` is not within the range."""

    start: int
    to: int
    divided_from: int
    divided_to: int

    def value(self, outcomes: Outcomes, now: float) -> float:
        """Return the figure, 0 or more."""
        part, whole = range(self.start, self.to), range(self.divided_from, self.divided_to)
        return outcomes.response_code_ratio(now, part, whole)

    def __str__(self) -> str:
        return f"ResponseCodeRatio({self.start}, {self.to}, {self.divided_from}, {self.divided_to})"


class LatencyAtQuantile(msgspec.Struct, frozen=True, tag=True):
    """The latency that so many per cent of the requests do not exceed."""

    quantile: float

    def value(self, outcomes: Outcomes, now: float) -> float:
        """Return the figure, in milliseconds."""
        return outcomes.latency_at_quantile(now, self.quantile) * 1000

    def __str__(self) -> str:
        return f"LatencyAtQuantileMS({self.quantile})"


Figure = NetworkErrorRatio | ResponseCodeRatio | LatencyAtQuantile


class Comparison(msgspec.Struct, frozen=True, tag=True):
    """A figure against a constant."""

    figure: Figure
    operator: str
    bound: float


class Not(msgspec.Struct, frozen=True, tag=True):
    """True where `term` is not."""

    term: Expression


class Every(msgspec.Struct, frozen=True, tag=True):
    """`&&`: true where all terms are."""

    terms: tuple[Expression, ...]


class Some(msgspec.Struct, frozen=True, tag=True):
    """`||`: true where at least one term is."""

    terms: tuple[Expression, ...]


Expression = Comparison | Not | Every | Some


def holds(expression: Expression, outcomes: Outcomes, now: float) -> bool:
    """Return whether the expression is true of the outcomes in the window that ends at `now`."""
    match expression:
        case Comparison(figure=figure, operator=sign, bound=bound):
            return OPERATORS[sign](figure.value(outcomes, now), bound)
        case Not(term=term):
            return not holds(term, outcomes, now)
        case Every(terms=terms):
            return all(holds(term, outcomes, now) for term in terms)
        case Some(terms=terms):
            return any(holds(term, outcomes, now) for term in terms)


def figures(expression: Expression) -> Iterator[Figure]:
    """Yield the figures that the expression asks for, in its order."""
    match expression:
        case Comparison(figure=figure):
            yield figure
        case Not(term=term):
            yield from figures(term)
        case Every(terms=terms) | Some(terms=terms):
            for term in terms:
                yield from figures(term)
