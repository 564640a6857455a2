"""Circuit breaker expressions as values: the language of Traefik's users (vulcand/oxy and its predicates).

`middleware.expression_parser` reads them from text; the result is a frozen tree of values, which
`middleware.condition` compiles.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Final

import msgspec

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

    def __str__(self) -> str:
        return "NetworkErrorRatio()"


class ResponseCodeRatio(msgspec.Struct, frozen=True, tag=True):
    """Responses with one range of status codes by those with another; `to` is not within the range."""

    start: int
    to: int
    divided_from: int
    divided_to: int

    def __str__(self) -> str:
        return f"ResponseCodeRatio({self.start}, {self.to}, {self.divided_from}, {self.divided_to})"


class LatencyAtQuantile(msgspec.Struct, frozen=True, tag=True):
    """The latency that this percentage of the requests does not exceed."""

    quantile: float

    def __str__(self) -> str:
        return f"LatencyAtQuantileMS({self.quantile})"


class RequestThreshold(msgspec.Struct, frozen=True, tag=True):
    """The number of requests."""

    def __str__(self) -> str:
        return "RequestThreshold()"


Figure = NetworkErrorRatio | ResponseCodeRatio | LatencyAtQuantile | RequestThreshold


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
