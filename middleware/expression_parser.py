"""The expression language of circuit breakers, as users of Traefik have it (vulcand/oxy and its predicates).

    expression = conjunction { "||" conjunction }
    conjunction = term { "&&" term }
    term = "!" term | comparison | "(" expression ")"
    comparison = figure operator number
    figure = "NetworkErrorRatio" "(" ")" | "RequestThreshold" "(" ")"
           | "ResponseCodeRatio" "(" from "," to "," dividedFrom "," dividedTo [","] ")"
           | "LatencyAtQuantileMS" "(" quantile [","] ")"
    operator = "<" | "<=" | ">" | ">=" | "==" | "!="

Figures and numbers may have parentheses around them too. Numbers, comments and white space are those of Go,
because oxy uses Go's own parser for expressions: whole numbers are decimal, others may have an exponent, `_`
between digits, or be hexadecimal with an exponent. The figure stands on the left and a number on the right.

In addition to oxy's language, `!` is allowed, `> 1` and `> 1.0` mean the same for every figure, and a line
may end anywhere. An expression that oxy accepts but that can never be true is refused here: such a breaker
would never open. Length and depth are bounded. The result is a tree of `middleware.expression`.
"""

from __future__ import annotations

import re
from math import inf, isinf
from typing import Final, NamedTuple

import msgspec

from middleware.expression import (
    OPERATORS,
    Comparison,
    Every,
    Expression,
    Figure,
    LatencyAtQuantile,
    NetworkErrorRatio,
    Not,
    RequestThreshold,
    ResponseCodeRatio,
    Some,
)
from middleware.values import quote

LONGEST: Final = 512
"""Characters of an expression."""
DEEPEST: Final = 16
"""Parentheses and negations within one another."""
CODES: Final = 1000
"""Status codes are below."""
FIGURES: Final = (
    "NetworkErrorRatio(), ResponseCodeRatio(from, to, dividedFrom, dividedTo), LatencyAtQuantileMS(q) or "
    "RequestThreshold()"
)
_FIGURES: Final = (NetworkErrorRatio, ResponseCodeRatio, LatencyAtQuantile, RequestThreshold)
_WITHOUT_ARGUMENTS: Final[dict[str, type[NetworkErrorRatio | RequestThreshold]]] = {
    "NetworkErrorRatio": NetworkErrorRatio,
    "RequestThreshold": RequestThreshold,
}
_NAMES: Final = (*_WITHOUT_ARGUMENTS, "ResponseCodeRatio", "LatencyAtQuantileMS")


class ExpressionError(ValueError):
    """An expression that cannot be used: what is wrong, at which column (from 1), and what would be right."""

    def __init__(self, column: int, reason: str, expected: str) -> None:
        super().__init__(f"at column {column}: {reason}; expected {expected}")
        self.column = column
        self.reason = reason
        self.expected = expected


def parse_expression(text: str) -> Expression:
    """Read an expression.

    Raises:
        ExpressionError: it is not one, too long, too deep, or can never hold.
    """
    if len(text) > LONGEST:
        raise ExpressionError(LONGEST + 1, "the expression is too long", f"at most {LONGEST} characters")
    expression = _Parser(text).whole()
    if not _may(expression, True):
        raise ExpressionError(1, "the expression can never hold", "a condition that can become true")
    return expression


def _may(expression: Expression, truth: bool) -> bool:
    """Return whether an expression may become `truth`, each of its comparisons judged by itself."""
    match expression:
        case Comparison():
            return truth or _may_fail(expression)
        case Not(term=term):
            return _may(term, not truth)
        case Every(terms=terms):
            return (all if truth else any)(_may(term, truth) for term in terms)
        case Some(terms=terms):
            return (any if truth else all)(_may(term, truth) for term in terms)


def _may_fail(comparison: Comparison) -> bool:
    opposite = _OPPOSITES[comparison.operator]
    return _may_hold(msgspec.structs.replace(comparison, operator=opposite))


_OPPOSITES: Final = {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "==": "!=", "!=": "=="}


def _may_hold(comparison: Comparison) -> bool:
    """Return whether any value of the figure satisfies the comparison."""
    least, most, bound = 0.0, _greatest(comparison.figure), comparison.bound
    match comparison.operator:
        case "<":
            return least < bound
        case "<=":
            return least <= bound
        case ">":
            return most > bound
        case ">=":
            return most >= bound
        case "==":
            return least <= bound <= most
        case _:
            return True


def _greatest(figure: Figure) -> float:
    match figure:
        case NetworkErrorRatio():
            return 1.0
        case ResponseCodeRatio(start=start, to=to, divided_from=divided_from, divided_to=divided_to):
            return 1.0 if divided_from <= start and to <= divided_to else inf
        case _:
            return inf


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


_DIGITS: Final = r"[0-9](?:_?[0-9])*"
_HEX: Final = r"[0-9a-fA-F](?:_?[0-9a-fA-F])*"
_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+|//[^\n]*|/\*(?s:.*?)\*/)"
    rf"|(?P<float>(?:(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?|{_DIGITS}[eE][+-]?{_DIGITS}"
    rf"|0[xX](?:_?{_HEX}(?:\.(?:{_HEX})?)?|\.{_HEX})[pP][+-]?{_DIGITS})(?![\w.]))"
    r"|(?P<integer>[0-9]+(?![\w.]))"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<operator><=|>=|==|!=|<|>)|(?P<and>&&)|(?P<or>\|\|)|(?P<not>!)"
    r"|(?P<open>\()|(?P<close>\))|(?P<comma>,)",
    re.ASCII,
)
_MEANINGLESS = re.compile(r"[\w.]+|.", re.DOTALL)
_TERM: Final = f"{FIGURES}, or ! or ("
_OPERATOR: Final = f"one of {' '.join(OPERATORS)}"
_NUMBER: Final = "a number such as 100, 0.5 or 5e-1"


def _tokens(text: str) -> list[_Token]:
    tokens = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            wrong = _MEANINGLESS.findall(text, position)[0]
            expected = _NUMBER if wrong[0] in ".0123456789" else f"{FIGURES}, an operator or a number"
            raise ExpressionError(position + 1, f"{quote(wrong)} means nothing here", expected)
        kind = match.lastgroup or ""
        if kind != "space":
            tokens.append(_Token(kind, match[0], position + 1))
        position = match.end()
    tokens.append(_Token("end", "", len(text) + 1))
    return tokens


class _Number(NamedTuple):
    value: float
    token: _Token


_Operand = Expression | Figure | _Number
"""What stands in parentheses, or on one side of an operator."""


class _Parser:
    """Recursive descent over the grammar above.

    Whether parentheses hold a condition, a figure or a number is known only after them, so each method
    returns any of these, and who needs one of them says so.
    """

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0

    def whole(self) -> Expression:
        expression = self._condition(self._operand(depth=0))
        self._expect("end", "&&, || or the end")
        return expression

    def _operand(self, depth: int) -> _Operand:
        first = self._conjunction(depth)
        if self._peek().kind != "or":
            return first
        terms = [self._condition(first)]
        while self._accept("or"):
            terms.append(self._condition(self._conjunction(depth)))
        return Some(tuple(terms))

    def _conjunction(self, depth: int) -> _Operand:
        first = self._term(depth)
        if self._peek().kind != "and":
            return first
        terms = [self._condition(first)]
        while self._accept("and"):
            terms.append(self._condition(self._term(depth)))
        return Every(tuple(terms))

    def _condition(self, operand: _Operand) -> Expression:
        """Return the operand that was just read if it is a condition."""
        if isinstance(operand, _Number):
            raise self._meaningless(operand.token, _TERM)
        if isinstance(operand, _FIGURES):
            raise self._meaningless(self._peek(), _OPERATOR)
        return operand

    def _term(self, depth: int) -> _Operand:
        token = self._peek()
        if token.kind == "not":
            self._check(depth, token)
            self._next += 1
            return Not(self._condition(self._term(depth + 1)))
        left = self._primary(depth)
        sign = self._peek()
        if sign.kind != "operator":
            return left
        if isinstance(left, _Number):
            raise self._meaningless(left.token, f"{FIGURES} on the left, a number on the right")
        if not isinstance(left, _FIGURES):
            raise self._meaningless(sign, "&&, || or the end")
        self._next += 1
        return self._comparison(left, sign, self._number(depth, _NUMBER))

    def _comparison(self, figure: Figure, sign: _Token, number: _Number) -> Comparison:
        comparison = Comparison(figure, sign.text, number.value)
        if not _may_hold(comparison):
            most = "from 0 to 1" if _greatest(figure) == 1.0 else "0 or more"
            reason = f"{figure} {sign.text} {number.token.text} can never hold"
            raise ExpressionError(
                number.token.column, reason, f"a bound that can be crossed: {figure} is {most}"
            )
        return comparison

    def _primary(self, depth: int) -> _Operand:
        token = self._peek()
        self._check(depth, token)
        if self._accept("open"):
            inner = self._operand(depth + 1)
            self._expect("close", "&&, || or )")
            return inner
        if token.kind in ("integer", "float"):
            return self._number(depth, _NUMBER)
        return self._figure()

    def _figure(self) -> Figure:
        name = self._expect("name", _TERM)
        if name.text not in _NAMES:
            raise ExpressionError(name.column, f"{quote(name.text)} is not known", FIGURES)
        self._expect("open", f"( after {name.text}")
        figure: Figure
        if name.text in _WITHOUT_ARGUMENTS:
            figure = _WITHOUT_ARGUMENTS[name.text]()
        elif name.text == "ResponseCodeRatio":
            start, to = self._codes("from", "to")
            self._expect("comma", ", and dividedFrom, dividedTo")
            figure = ResponseCodeRatio(start, to, *self._codes("dividedFrom", "dividedTo"))
            self._accept("comma")
        else:
            quantile = self._number(0, "a quantile in per cent, such as 50.0")
            # oxy's histogram takes what is above as 100 too.
            figure = LatencyAtQuantile(min(quantile.value, 100.0))
            self._accept("comma")
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
        if start >= CODES:
            reason = f"no status code is from {start} to {to}"
            raise ExpressionError(column, reason, f"a range of codes below {CODES}")
        return start, min(to, CODES)

    def _code(self, name: str) -> int:
        number = self._number(0, f"{name}, a status code such as 500")
        token = number.token
        if token.kind != "integer":
            raise ExpressionError(
                token.column, f"{token.text} is not a status code", f"{name}, a whole number such as 500"
            )
        return int(token.text)

    def _number(self, depth: int, expected: str) -> _Number:
        token = self._peek()
        self._check(depth, token)
        if self._accept("open"):
            inner = self._number(depth + 1, expected)
            self._expect("close", ")")
            return inner
        if token.kind not in ("integer", "float"):
            raise self._meaningless(token, expected)
        self._next += 1
        return _Number(_value(token), token)

    def _check(self, depth: int, token: _Token) -> None:
        if depth > DEEPEST:
            raise ExpressionError(token.column, "the expression is too deep", f"at most {DEEPEST} levels")

    def _meaningless(self, token: _Token, expected: str) -> ExpressionError:
        ended = token.kind == "end"
        reason = "the expression ends too early" if ended else f"{quote(token.text)} means nothing here"
        return ExpressionError(token.column, reason, expected)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _accept(self, kind: str) -> bool:
        accepted = self._peek().kind == kind
        self._next += accepted
        return accepted

    def _expect(self, kind: str, expected: str) -> _Token:
        token = self._peek()
        if token.kind != kind:
            raise self._meaningless(token, expected)
        self._next += kind != "end"
        return token


def _value(token: _Token) -> float:
    text = token.text.replace("_", "")
    try:
        value = float.fromhex(text) if text[:2] in ("0x", "0X") else float(text)
    except (OverflowError, ValueError):  # Python's word for an exponent that is far too large, up or down
        value = inf
    if isinf(value):
        raise ExpressionError(token.column, f"{token.text} is out of range", _NUMBER)
    return value
