"""Which circuit breaker expressions are taken, beside those that Traefik takes.

Each list was held against vulcand/oxy 1.4.1 with vulcand/predicate 1.2.0, which are in Traefik 2.8, the proxy
of Traefik Mesh: the first is taken by both, the second by Traefik alone, the third here alone, the last by
nobody.
"""

from __future__ import annotations

import pytest

from middleware.expression import Comparison, Every, Expression, LatencyAtQuantile, Not, Some
from middleware.expression_parser import ExpressionError, parse_expression

N = "NetworkErrorRatio()"
L = "LatencyAtQuantileMS(50.0)"
R = "ResponseCodeRatio(500, 600, 0, 600)"


def show(expression: Expression) -> str:
    """Write a tree with all its parentheses."""
    match expression:
        case Comparison(figure=figure, operator=sign, bound=bound):
            quantile = isinstance(figure, LatencyAtQuantile) and f"Latency({figure.quantile:g})"
            name = str(figure).replace("NetworkErrorRatio()", "Errors").replace("ResponseCodeRatio", "Codes")
            return f"{quantile or name} {sign} {bound:.17g}"
        case Not(term=term):
            return f"!({show(term)})"
        case Every(terms=terms):
            return " && ".join(f"({show(term)})" for term in terms)
        case Some(terms=terms):
            return " || ".join(f"({show(term)})" for term in terms)


TAKEN_BY_BOTH = [
    # figures and operators
    (f"{N} > 0.5", "Errors > 0.5"),
    (f"{N} >= 0.5", "Errors >= 0.5"),
    (f"{N} < 0.5", "Errors < 0.5"),
    (f"{N} <= 0.5", "Errors <= 0.5"),
    (f"{N} == 0.5", "Errors == 0.5"),
    (f"{N} != 0.5", "Errors != 0.5"),
    (f"{L} > 100", "Latency(50) > 100"),
    (f"{R} > 0.25", "Codes(500, 600, 0, 600) > 0.25"),
    ("ResponseCodeRatio(500, 600, 200, 300) > 3.5", "Codes(500, 600, 200, 300) > 3.5"),
    # white space and comments
    (f"{N}>0.5", "Errors > 0.5"),
    (f"\t {N}  >  0.5 \n", "Errors > 0.5"),
    ("NetworkErrorRatio ( ) > 0.5", "Errors > 0.5"),
    (f"{N} >\n0.5", "Errors > 0.5"),
    (f"{N} > 0.5 &&\r\n{L} > 9", "(Errors > 0.5) && (Latency(50) > 9)"),
    ("ResponseCodeRatio(500, 600,\n0, 600) > 0.5", "Codes(500, 600, 0, 600) > 0.5"),
    (f"{N} > 0.5 // half of them", "Errors > 0.5"),
    (f"// half of them\n{N} > 0.5", "Errors > 0.5"),
    (f"{N} /* not {L} */ > 0.5", "Errors > 0.5"),
    (f"{N} > /* two\nlines * / */ 0.5", "Errors > 0.5"),
    ("NetworkErrorRatio(/**/) > 0.5", "Errors > 0.5"),
    # decimal numbers with a fraction or an exponent
    (f"{N} > .5", "Errors > 0.5"),
    (f"{N} < 1.", "Errors < 1"),
    (f"{N} > 00.5", "Errors > 0.5"),
    (f"{N} > 5e-1", "Errors > 0.5"),
    (f"{N} > 5E-1", "Errors > 0.5"),
    (f"{N} > 0.05e+1", "Errors > 0.5"),
    (f"{N} > .5e0", "Errors > 0.5"),
    (f"{N} < 1.e-1", "Errors < 0.10000000000000001"),
    (f"{N} > 05e-1", "Errors > 0.5"),
    (f"{N} > 0.2_5", "Errors > 0.25"),
    (f"{N} > 0_0.5", "Errors > 0.5"),
    (f"{N} > 2_5e-0_2", "Errors > 0.25"),
    (f"{N} > 1e-400", "Errors > 0"),
    # hexadecimal numbers with an exponent
    (f"{N} > 0x1p-1", "Errors > 0.5"),
    (f"{N} > 0X1P-1", "Errors > 0.5"),
    (f"{N} > 0x.8p0", "Errors > 0.5"),
    (f"{N} > 0x0.8p0", "Errors > 0.5"),
    (f"{N} > 0x8.p-4", "Errors > 0.5"),
    (f"{N} > 0x_8p-0_4", "Errors > 0.5"),
    # whole numbers are decimal whatever they begin with
    (f"{L} > 0100", "Latency(50) > 100"),
    (f"{L} > 00", "Latency(50) > 0"),
    (f"{L} > 9223372036854775807", "Latency(50) > 9.2233720368547758e+18"),
    ("ResponseCodeRatio(0500, 0600, 00, 0600) > 0.5", "Codes(500, 600, 0, 600) > 0.5"),
    # quantiles
    ("LatencyAtQuantileMS(5e1) > 100", "Latency(50) > 100"),
    ("LatencyAtQuantileMS(0x32p0) > 100", "Latency(50) > 100"),
    ("LatencyAtQuantileMS(99.9) > 100", "Latency(99.9) > 100"),
    ("LatencyAtQuantileMS(0.0) > 100", "Latency(0) > 100"),
    ("LatencyAtQuantileMS(100.0) > 100", "Latency(100) > 100"),
    ("LatencyAtQuantileMS(250.0) > 100", "Latency(100) > 100"),
    # status codes: there is none above 999
    ("ResponseCodeRatio(500, 600, 0, 1000) > 0.5", "Codes(500, 600, 0, 1000) > 0.5"),
    ("ResponseCodeRatio(500, 99999, 0, 5000) > 0.5", "Codes(500, 1000, 0, 1000) > 0.5"),
    # a comma at the end
    ("LatencyAtQuantileMS(50.0,) > 100", "Latency(50) > 100"),
    ("ResponseCodeRatio(500, 600, 0, 600,) > 0.5", "Codes(500, 600, 0, 600) > 0.5"),
    ("ResponseCodeRatio(\n500,\n600,\n0,\n600,\n) > 0.5", "Codes(500, 600, 0, 600) > 0.5"),
    # parentheses
    (f"({N}) > 0.5", "Errors > 0.5"),
    (f"{N} > (0.5)", "Errors > 0.5"),
    (f"({N}) > (0.5)", "Errors > 0.5"),
    (f"(({N})) > (((0.5)))", "Errors > 0.5"),
    (f"(({N} > 0.5))", "Errors > 0.5"),
    (f"(({N}) > 0.5) && ({L} > (9))", "(Errors > 0.5) && (Latency(50) > 9)"),
    # which binds closer
    (
        f"{N} > 0.5 && {L} > 9 && {N} < 0.9",
        "(Errors > 0.5) && (Latency(50) > 9) && (Errors < 0.90000000000000002)",
    ),
    (f"{N} > 0.5 || {L} > 9", "(Errors > 0.5) || (Latency(50) > 9)"),
    (f"{N} > 0.5 || {L} > 9 && {L} < 99", "(Errors > 0.5) || ((Latency(50) > 9) && (Latency(50) < 99))"),
    (f"{L} > 9 && {L} < 99 || {N} > 0.5", "((Latency(50) > 9) && (Latency(50) < 99)) || (Errors > 0.5)"),
    (f"({N} > 0.5 || {L} > 9) && {L} < 99", "((Errors > 0.5) || (Latency(50) > 9)) && (Latency(50) < 99)"),
    # what always holds
    (f"{N} < 2.0", "Errors < 2"),
    (f"{N} <= 1.0", "Errors <= 1"),
    (f"{N} >= 0.0", "Errors >= 0"),
    (f"{N} != 2.0", "Errors != 2"),
    (f"{L} >= 0", "Latency(50) >= 0"),
    (f"{R} < 2.0", "Codes(500, 600, 0, 600) < 2"),
    # what holds at one end
    (f"{N} >= 1.0", "Errors >= 1"),
    (f"{N} == 1.0", "Errors == 1"),
    (f"{N} <= 0.0", "Errors <= 0"),
    (f"{L} == 0", "Latency(50) == 0"),
]

NEVER = "can never hold"
TAKEN_BY_TRAEFIK_ALONE = [
    # a ratio of requests by all requests is never above 1, and nothing is ever below 0
    (f"{N} > 1.0", 23, NEVER),
    (f"{N} > 50.0", 23, NEVER),
    (f"{N} > 5e1", 23, NEVER),
    (f"{N} > (1.0)", 24, NEVER),
    (f"({N}) > 1.0", 25, NEVER),
    (f"{N} >= 1.5", 24, NEVER),
    (f"{N} == 2.0", 24, NEVER),
    (f"{N} < 0.0", 23, NEVER),
    (f"{N} > 0x1p0", 23, NEVER),
    (f"{R} > 1.0", 39, NEVER),
    (f"{R} >= 1.01", 40, NEVER),
    (f"{R} < 0.0", 39, NEVER),
    (f"{L} < 0", 29, NEVER),
    (f"{L} < 9 || {N} > 2.0", 56, NEVER),
    (f"{L} > 9 && {N} > 2.0", 56, NEVER),
    # no status code is in such a range, so the figure is always 0
    ("ResponseCodeRatio(600, 500, 0, 600) > 0.5", 24, "the range from 600 to 500 is empty"),
    ("ResponseCodeRatio(500, 600, 200, 200) > 0.5", 34, "the range from 200 to 200 is empty"),
    ("ResponseCodeRatio(1000, 2000, 0, 600) > 0.5", 25, "no status code is from 1000 to 2000"),
    # bounds
    ("(" * 17 + f"{N} > 0.5" + ")" * 17, 18, "the expression is too deep"),
    ("(" * 17 + N + ")" * 17 + " > 0.5", 18, "the expression is too deep"),
    (f"{N} > " + "(" * 17 + "0.5" + ")" * 17, 40, "the expression is too deep"),
    (" || ".join([f"{N} > 0.5"] * 40), 513, "the expression is too long"),
    (f"{N} > 0.5 //" + "x" * 500, 513, "the expression is too long"),
]

TAKEN_BY_LATER_TRAEFIK = [
    # oxy 2.2
    ("RequestThreshold() >= 20", "RequestThreshold() >= 20"),
    (
        f"{R} > 0.3 && RequestThreshold() >= 20",
        "(Codes(500, 600, 0, 600) > 0.29999999999999999) && (RequestThreshold() >= 20)",
    ),
    ("(RequestThreshold()) == (7)", "RequestThreshold() == 7"),
]

TAKEN_HERE_ALONE = [
    # negation
    (f"!({N} > 0.5)", "!(Errors > 0.5)"),
    (f"!{N} > 0.5", "!(Errors > 0.5)"),
    (f"!!{N} > 0.5", "!(!(Errors > 0.5))"),
    (f"!({N}) > (0.5)", "!(Errors > 0.5)"),
    (f"!{N} > 0.5 && {L} > 9", "(!(Errors > 0.5)) && (Latency(50) > 9)"),
    # whole numbers for ratios and quantiles, fractions for milliseconds
    (f"{N} >= 1", "Errors >= 1"),
    (f"{N} > 0", "Errors > 0"),
    (f"{N} < 2", "Errors < 2"),
    (f"{L} > 0.5", "Latency(50) > 0.5"),
    ("LatencyAtQuantileMS(50) > 100", "Latency(50) > 100"),
    # parentheses around arguments
    ("ResponseCodeRatio((500), 600, 0, 600) > 0.5", "Codes(500, 600, 0, 600) > 0.5"),
    ("LatencyAtQuantileMS((50.0)) > 9", "Latency(50) > 9"),
    # a line may end anywhere
    (f"{N}\n> 0.5", "Errors > 0.5"),
    (f"(\n{N} > 0.5\n)\n&& {L} > 9", "(Errors > 0.5) && (Latency(50) > 9)"),
    (f"{L} > 08", "Latency(50) > 8"),
]

TAKEN_BY_NOBODY = [
    ("RequestThreshold(5) > 1", 18, '"5" means nothing here'),
    ("RequestThreshold > 1", 18, '">" means nothing here'),
    ("RequestThreshold()", 19, "the expression ends too early"),
    ("RequestThreshold() < 0", 22, "RequestThreshold() < 0 can never hold"),
    ("", 1, "the expression ends too early"),
    (" ", 2, "the expression ends too early"),
    ("()", 2, '")" means nothing here'),
    ("// nothing", 11, "the expression ends too early"),
    (f"{N} > 0.5 /* open", 27, '"/" means nothing here'),
    (f"{N} > 0.5;", 26, '";" means nothing here'),
    # half a comparison
    (N, 20, "the expression ends too early"),
    (f"({N})", 22, "the expression ends too early"),
    (f"{N} >", 22, "the expression ends too early"),
    (f"{N} && {L} > 9", 21, '"&&" means nothing here'),
    (f"{L} > 9 && {N}", 53, "the expression ends too early"),
    (f"{N} > 0.5 &&", 29, "the expression ends too early"),
    (f"|| {N} > 0.5", 1, '"||" means nothing here'),
    ("0.5", 1, '"0.5" means nothing here'),
    ("(0.5)", 2, '"0.5" means nothing here'),
    (f"{N} > 0.5 && 1", 30, '"1" means nothing here'),
    # the wrong way round, or against another
    (f"0.5 < {N}", 1, '"0.5" means nothing here'),
    ("0.5 < 0.7", 1, '"0.5" means nothing here'),
    (f"{N} > {N}", 23, '"NetworkErrorRatio" means nothing here'),
    (f"{N} > ({N})", 24, '"NetworkErrorRatio" means nothing here'),
    (f"{N} > ({N} > 0.5)", 24, '"NetworkErrorRatio" means nothing here'),
    (f"{N} > 0.5 > 0.4", 27, '">" means nothing here'),
    (f"({N} > 0.5) > 0.4", 29, '">" means nothing here'),
    (f"({N} > 0.5) == ({L} > 9)", 29, '"==" means nothing here'),
    (f"{N} > 0.5 == {L} > 9", 27, '"==" means nothing here'),
    # too many negations
    ("!" * 400 + f"{N} > 0.5", 18, "the expression is too deep"),
    # names and calls
    ("networkErrorRatio() > 0.5", 1, '"networkErrorRatio" is not known'),
    ("ErrorRatio() > 0.5", 1, '"ErrorRatio" is not known'),
    ("NetworkErrorRatio > 0.5", 19, '">" means nothing here'),
    ("(NetworkErrorRatio)() > 0.5", 19, '")" means nothing here'),
    ("NetworkErrorRatio(1) > 0.5", 19, '"1" means nothing here'),
    ("NetworkErrorRatio(,) > 0.5", 19, '"," means nothing here'),
    (f"{N}() > 0.5", 20, '"(" means nothing here'),
    ("LatencyAtQuantileMS() > 9", 21, '")" means nothing here'),
    ("LatencyAtQuantileMS(,) > 9", 21, '"," means nothing here'),
    ("LatencyAtQuantileMS(50.0,,) > 9", 26, '"," means nothing here'),
    ("LatencyAtQuantileMS(50.0, 60.0) > 9", 27, '"60.0" means nothing here'),
    ('LatencyAtQuantileMS("50") > 9', 21, '""" means nothing here'),
    (f"LatencyAtQuantileMS({N}) > 9", 21, '"NetworkErrorRatio" means nothing here'),
    ("ResponseCodeRatio(500, 600) > 0.5", 27, '")" means nothing here'),
    ("ResponseCodeRatio(500, 600, 0) > 0.5", 30, '")" means nothing here'),
    ("ResponseCodeRatio(500, 600, 0, 600, 1) > 0.5", 37, '"1" means nothing here'),
    ("ResponseCodeRatio(500.0, 600, 0, 600) > 0.5", 19, "500.0 is not a status code"),
    ("ResponseCodeRatio(5e2, 600, 0, 600) > 0.5", 19, "5e2 is not a status code"),
    # operators
    (f"{N} = 0.5", 21, '"=" means nothing here'),
    (f"{N} =< 0.5", 21, '"=" means nothing here'),
    (f"{N} <> 0.5", 22, '">" means nothing here'),
    (f"{N} & 0.5", 21, '"&" means nothing here'),
    (f"{N} > 0.5 and {L} > 9", 27, '"and" means nothing here'),
    (f"{N} > 0.5 {L} > 9", 27, '"LatencyAtQuantileMS" means nothing here'),
    (f"{N} > 0.5 + 0.1", 27, '"+" means nothing here'),
    (f"!{N}", 21, "the expression ends too early"),
    # parentheses
    (f"{N} > 0.5)", 26, '")" means nothing here'),
    (f"({N} > 0.5", 27, "the expression ends too early"),
    (f"({N} > (0.5)", 29, "the expression ends too early"),
    (f"{N} > 0.5 ()", 27, '"(" means nothing here'),
    # numbers
    (f"{N} > -1", 23, '"-" means nothing here'),
    (f"{N} > +0.5", 23, '"+" means nothing here'),
    (f"{N} > 50%", 25, '"%" means nothing here'),
    (f"{N} > 0,5", 24, '"," means nothing here'),
    (f"{N} > 0.5.1", 23, '"0.5.1" means nothing here'),
    (f"{N} > .", 23, '"." means nothing here'),
    (f"{N} > 5e", 23, '"5e" means nothing here'),
    (f"{N} > 5e-", 23, '"5e" means nothing here'),
    (f"{N} > .e1", 23, '".e1" means nothing here'),
    (f"{N} > 0.5i", 23, '"0.5i" means nothing here'),
    (f"{N} > 0._5", 23, '"0._5" means nothing here'),
    (f"{N} > 0.5_", 23, '"0.5_" means nothing here'),
    (f"{N} > 1__0.5", 23, '"1__0.5" means nothing here'),
    (f"{N} > 1e400", 23, "1e400 is out of range"),
    (f"{N} > 0x1p9999", 23, "0x1p9999 is out of range"),
    (f"{N} > 0x1p" + "9" * 40, 23, "0x1p" + "9" * 40 + " is out of range"),
    (f"{N} > 0x0.8", 23, '"0x0.8" means nothing here'),
    (f"{N} > 0xp1", 23, '"0xp1" means nothing here'),
    (f"{L} > 0x10", 29, '"0x10" means nothing here'),
    (f"{L} > 0o10", 29, '"0o10" means nothing here'),
    (f"{L} > 0b10", 29, '"0b10" means nothing here'),
    (f"{L} > 1_000", 29, '"1_000" means nothing here'),
    (f"{L} > 100ms", 29, '"100ms" means nothing here'),
    (f'{L} > "100"', 29, '""" means nothing here'),
    (f"{N} > NaN", 23, '"NaN" means nothing here'),
    (f"{N} > Inf", 23, '"Inf" means nothing here'),
    (f"{L} > true", 29, '"true" means nothing here'),
    (f"{L} > ٣", 29, '"٣" means nothing here'),
]


@pytest.mark.parametrize(("text", "meaning"), [*TAKEN_BY_BOTH, *TAKEN_BY_LATER_TRAEFIK, *TAKEN_HERE_ALONE])
def test_what_is_taken_has_its_meaning(text: str, meaning: str) -> None:
    assert show(parse_expression(text)) == meaning


@pytest.mark.parametrize(("text", "column", "reason"), [*TAKEN_BY_TRAEFIK_ALONE, *TAKEN_BY_NOBODY])
def test_what_is_refused_says_where_and_why(text: str, column: int, reason: str) -> None:
    with pytest.raises(ExpressionError) as error:
        parse_expression(text)
    assert reason in error.value.reason
    assert error.value.column == column
    assert error.value.expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{N} > 50", "NetworkErrorRatio() > 50 can never hold"),
        (f"({N}) >= (1.5)", "NetworkErrorRatio() >= 1.5 can never hold"),
        (f"!({N} >= 0)", "the expression can never hold"),
        (f"{L} > 9 && !({N} < 2.0 || {R} > 0.5)", "the expression can never hold"),
    ],
)
def test_what_can_never_hold_protects_nobody(text: str, reason: str) -> None:
    with pytest.raises(ExpressionError) as error:
        parse_expression(text)
    assert error.value.reason == reason


def test_a_number_that_is_no_decimal_is_told_how_to_be_written() -> None:
    with pytest.raises(ExpressionError) as error:
        parse_expression(f"{L} > 0x10")
    assert error.value.expected == "a number such as 100, 0.5 or 5e-1"
