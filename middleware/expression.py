"""The expression language of circuit breakers, as users of Traefik have it (vulcand/oxy and its predicates).

    expression = conjunction { "||" conjunction }
    conjunction = term { "&&" term }
    term = "!" term | "(" expression ")" | figure operator number
    figure = "NetworkErrorRatio()"
           | "ResponseCodeRatio(from, to, dividedFrom, dividedTo)"      from <= status < to
           | "LatencyAtQuantileMS(quantile)"                            0 to 100, in milliseconds
    operator = "<" | "<=" | ">" | ">=" | "==" | "!="

As in oxy the figure stands on the left and a constant on the right; unlike there `> 1` and `> 1.0` are the
same. Length and depth are bounded. The result is a frozen tree of values, which `middleware.condition`
compiles.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from middleware.values import quote

LONGEST: Final = 512
"""Characters of an expression."""
DEEPEST: Final = 16
"""Parentheses and negations within one another."""

OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
FIGURES: Final = (
    "NetworkErrorRatio(), ResponseCodeRatio(from, to, dividedFrom, dividedTo) or LatencyAtQuantileMS(q)"
)


class ExpressionError(ValueError):
    """An expression that cannot be used: what is wrong, at which column (from 1), and what would be right."""

    def __init__(self, column: int, reason: str, expected: str) -> None:
        super().__init__(f"at column {column}: {reason}; expected {expected}")
        self.column = column
        self.reason = reason
        self.expected = expected


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
    """The latency that so many per cent of the requests do not exceed."""

    quantile: float

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


def parse_expression(text: str) -> Expression:
    """Read an expression.

    Raises:
        ExpressionError: it is not one, too long, too deep, or compares what can never be.
    """
    if len(text) > LONGEST:
        raise ExpressionError(LONGEST + 1, "the expression is too long", f"at most {LONGEST} characters")
    parser = _Parser(text)
    expression = parser.expression(depth=0)
    parser.end()
    return expression


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?![A-Za-z0-9_.]))"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<operator><=|>=|==|!=|<|>)|(?P<and>&&)|(?P<or>\|\|)|(?P<not>!)"
    r"|(?P<open>\()|(?P<close>\))|(?P<comma>,)",
    re.ASCII,
)
_MEANINGLESS = re.compile(r"[\w.]+|.", re.DOTALL)
_TERM: Final = f"{FIGURES}, or ! or ("


def _tokens(text: str) -> list[_Token]:
    tokens = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            wrong = _MEANINGLESS.findall(text, position)[0]
            expected = f"{FIGURES}, an operator or a number"
            raise ExpressionError(position + 1, f"{quote(wrong)} means nothing here", expected)
        kind = match.lastgroup or ""
        if kind != "space":
            tokens.append(_Token(kind, match[0], position + 1))
        position = match.end()
    tokens.append(_Token("end", "", len(text) + 1))
    return tokens


class _Parser:
    """Recursive descent over the grammar above; each method reads one of its lines."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0

    def expression(self, depth: int) -> Expression:
        terms = [self._conjunction(depth)]
        while self._accept("or"):
            terms.append(self._conjunction(depth))
        return terms[0] if len(terms) == 1 else Some(tuple(terms))

    def end(self) -> None:
        self._expect("end", "&&, || or the end")

    def _conjunction(self, depth: int) -> Expression:
        terms = [self._term(depth)]
        while self._accept("and"):
            terms.append(self._term(depth))
        return terms[0] if len(terms) == 1 else Every(tuple(terms))

    def _term(self, depth: int) -> Expression:
        token = self._peek()
        if depth > DEEPEST:
            raise ExpressionError(token.column, "the expression is too deep", f"at most {DEEPEST} levels")
        if self._accept("not"):
            return Not(self._term(depth + 1))
        if self._accept("open"):
            inner = self.expression(depth + 1)
            self._expect("close", "&&, || or )")
            return inner
        return self._comparison()

    def _comparison(self) -> Comparison:
        figure = self._figure()
        sign = self._expect("operator", f"one of {' '.join(OPERATORS)}")
        token = self._peek()
        bound = self._number()
        if isinstance(figure, NetworkErrorRatio) and bound > 1:
            raise ExpressionError(
                token.column, f"{token.text} is out of range", "a ratio from 0 to 1, such as 0.5"
            )
        return Comparison(figure, sign.text, bound)

    def _figure(self) -> Figure:
        name = self._expect("name", _TERM)
        if name.text not in ("NetworkErrorRatio", "ResponseCodeRatio", "LatencyAtQuantileMS"):
            raise ExpressionError(name.column, f"{quote(name.text)} is not known", FIGURES)
        self._expect("open", f"( after {name.text}")
        figure: Figure
        if name.text == "NetworkErrorRatio":
            figure = NetworkErrorRatio()
        elif name.text == "ResponseCodeRatio":
            start, to = self._codes("from", "to")
            self._expect("comma", ", and dividedFrom, dividedTo")
            figure = ResponseCodeRatio(start, to, *self._codes("dividedFrom", "dividedTo"))
        else:
            figure = LatencyAtQuantile(self._quantile())
        self._expect("close", f") at the end of {figure}")
        return figure

    def _codes(self, first: str, second: str) -> tuple[int, int]:
        start = self._code(first)
        self._expect("comma", f", and {second}")
        column = self._peek().column
        to = self._code(second)
        if to <= start:
            raise ExpressionError(
                column, f"the range from {start} to {to} is empty", f"{second} above {first}"
            )
        return start, to

    def _code(self, name: str) -> int:
        expected = f"{name}, a status code from 0 to 1000"
        token = self._expect("number", expected)
        if not token.text.isdigit() or len(token.text) > 4 or int(token.text) > 1000:
            raise ExpressionError(token.column, f"{token.text} is not a status code", expected)
        return int(token.text)

    def _quantile(self) -> float:
        token = self._peek()
        quantile = self._number("a quantile in per cent, such as 50.0")
        if quantile > 100:
            raise ExpressionError(token.column, f"{token.text} is out of range", "a quantile from 0 to 100")
        return quantile

    def _number(self, expected: str = "a number") -> float:
        return float(self._expect("number", expected).text)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _accept(self, kind: str) -> bool:
        accepted = self._peek().kind == kind
        self._next += accepted
        return accepted

    def _expect(self, kind: str, expected: str) -> _Token:
        token = self._peek()
        if token.kind != kind:
            ended = token.kind == "end"
            reason = "the expression ends too early" if ended else f"{quote(token.text)} means nothing here"
            raise ExpressionError(token.column, reason, expected)
        self._next += kind != "end"
        return token
