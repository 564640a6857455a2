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
    LatencyAtQuantile,
    NetworkErrorRatio,
    Not,
    RequestThreshold,
    ResponseCodeRatio,
    Some,
)
from middleware.expression_parser import ExpressionError, parse_expression

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


comparisons = st.builds(
    Comparison,
    st.one_of(
        st.just(NetworkErrorRatio()),
        st.just(RequestThreshold()),
        st.builds(LatencyAtQuantile, st.integers(0, 100_000).map(lambda n: n / 1000)),
        st.builds(
            lambda a, b, c, d: ResponseCodeRatio(a, a + b, c, c + d),
            *[st.integers(0, 500), st.integers(1, 500)] * 2,
        ),
    ),
    st.sampled_from(sorted(OPERATORS)),
    st.integers(1, 999).map(lambda n: n / 1000),  # at 0 and 1 some can never hold
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
