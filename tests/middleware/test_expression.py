from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.expression import (
    OPERATORS,
    Comparison,
    Every,
    Expression,
    ExpressionError,
    LatencyAtQuantile,
    NetworkErrorRatio,
    Not,
    ResponseCodeRatio,
    Some,
    parse_expression,
)

A = Comparison(NetworkErrorRatio(), ">", 0.5)
B = Comparison(LatencyAtQuantile(50.0), ">=", 100.0)
C = Comparison(ResponseCodeRatio(500, 600, 0, 600), "<", 0.25)
A_TEXT = "NetworkErrorRatio() > 0.5"
B_TEXT = "LatencyAtQuantileMS(50.0) >= 100"
C_TEXT = "ResponseCodeRatio(500, 600, 0, 600) < .25"


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        (A_TEXT, A),
        ("NetworkErrorRatio()>0.50", A),
        (f"  ( (\t{A_TEXT}) )\n", A),
        (f"!({A_TEXT})", Not(A)),
        (f"!!{A_TEXT}", Not(Not(A))),
        (f"{A_TEXT} && {B_TEXT} && {C_TEXT}", Every((A, B, C))),
        (f"{A_TEXT} || {B_TEXT} && {C_TEXT}", Some((A, Every((B, C))))),
        (f"({A_TEXT} || {B_TEXT}) && {C_TEXT}", Every((Some((A, B)), C))),
        (f"!{A_TEXT} && {B_TEXT}", Every((Not(A), B))),
    ],
)
def test_expressions_are_trees(text: str, expression: Expression) -> None:
    assert parse_expression(text) == expression
    assert msgspec.json.decode(msgspec.json.encode(expression), type=Expression) == expression


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("", 1, "the expression ends too early"),
        ("NetworkErrorRatio", 18, "the expression ends too early"),
        ("NetworkErrorRatio > 0.5", 19, '">" means nothing here'),
        ("NetworkErrorRatio() > 50", 23, "50 is out of range"),
        ("NetworkErrorRatio() > -1", 23, '"-" means nothing here'),
        ("NetworkErrorRatio() > 0.5 and x", 27, '"and" means nothing here'),
        ("NetworkErrorRatio() > 0.5)", 26, '")" means nothing here'),
        ("(NetworkErrorRatio() > 0.5", 27, "the expression ends too early"),
        ("networkErrorRatio() > 0.5", 1, '"networkErrorRatio" is not known'),
        ("0.5 < NetworkErrorRatio()", 1, '"0.5" means nothing here'),
        ("NetworkErrorRatio() > NetworkErrorRatio()", 23, '"NetworkErrorRatio" means nothing here'),
        ("NetworkErrorRatio() & 1", 21, '"&" means nothing here'),
        ("NetworkErrorRatio() = 1", 21, '"=" means nothing here'),
        ("LatencyAtQuantileMS() > 1", 21, '")" means nothing here'),
        ("LatencyAtQuantileMS(101) > 1", 21, "101 is out of range"),
        ("LatencyAtQuantileMS(50ms) > 1", 21, '"50ms" means nothing here'),
        ("ResponseCodeRatio(500, 600) > 1", 27, '")" means nothing here'),
        ("ResponseCodeRatio(600, 500, 0, 600) > 1", 24, "the range from 600 to 500 is empty"),
        ("ResponseCodeRatio(1.5, 500, 0, 600) > 1", 19, "1.5 is not a status code"),
        ("ResponseCodeRatio(0, 9999999999, 0, 600) > 1", 22, "9999999999 is not a status code"),
        ("(" * 17 + A_TEXT + ")" * 17, 18, "the expression is too deep"),
        ("!" * 400 + A_TEXT, 18, "the expression is too deep"),
        (" || ".join([A_TEXT] * 40), 513, "the expression is too long"),
    ],
)
def test_a_bad_expression_says_where(text: str, column: int, reason: str) -> None:
    with pytest.raises(ExpressionError) as error:
        parse_expression(text)
    assert (error.value.column, error.value.reason) == (column, reason)
    assert error.value.expected


comparisons = st.builds(
    Comparison,
    st.one_of(
        st.just(NetworkErrorRatio()),
        st.builds(LatencyAtQuantile, st.integers(0, 100_000).map(lambda n: n / 1000)),
        st.builds(
            lambda a, b, c, d: ResponseCodeRatio(a, a + b, c, c + d),
            *[st.integers(0, 500), st.integers(1, 500)] * 2,
        ),
    ),
    st.sampled_from(sorted(OPERATORS)),
    st.integers(0, 1000).map(lambda n: n / 1000),
)
trees = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: Every(tuple(terms))),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: Some(tuple(terms))),
    ),
    max_leaves=4,
)


def render(expression: Expression) -> str:
    match expression:
        case Comparison(figure=figure, operator=sign, bound=bound):
            quantile = (
                f"LatencyAtQuantileMS({figure.quantile:.3f})" if isinstance(figure, LatencyAtQuantile) else ""
            )
            return f"{quantile or figure} {sign} {bound:.3f}"
        case Not(term=term):
            return f"!({render(term)})"
        case Every(terms=terms):
            return " && ".join(f"({render(term)})" for term in terms)
        case Some(terms=terms):
            return " || ".join(f"({render(term)})" for term in terms)


@given(trees)
def test_what_is_written_is_read(expression: Expression) -> None:
    text = render(expression)
    if len(text) <= 512:
        assert parse_expression(text) == expression


@given(st.text(alphabet="()!&|<>=., 0159NetworkErrorRatioLatencyAtQuantileMS", max_size=60))
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    column = 1
    try:
        parse_expression(text)
    except ExpressionError as error:
        column = error.column
    assert 1 <= column <= len(text) + 1
