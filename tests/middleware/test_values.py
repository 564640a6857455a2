from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.values import (
    InvalidValue,
    Rate,
    format_duration,
    nearest,
    parse_choice,
    parse_duration,
    parse_integer,
    parse_percentage,
    parse_rate,
    split_settings,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("+2s", 2.0),
        ("10µs", 10e-6),
        ("10μs", 10e-6),
        ("10us", 10e-6),
        ("7ns", 7e-9),
        ("1h1m1s1ms", 3661.001),
        ("0", 0.0),
        ("  3s\n", 3.0),
    ],
)
def test_durations_are_read_as_go_does(text: str, seconds: float) -> None:
    assert parse_duration(text, most=7200) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "s",
        ".s",
        "1 s",
        "1d",
        "-1s",
        "3h",
        "1_0s",
        "١s",
        "1e3s",
        "1s,",
        "--1s",
        "9" * 70 + "s",
        "inf",
    ],
)
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue) as error:
        parse_duration(text, most=7200)
    assert error.value.expected == "a duration from 0s to 2h, such as 250ms or 1m30s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (7e-9, "7ns"),
        (12e-6, "12µs"),
        (0.25, "250ms"),
        (0.0125, "12.5ms"),
        (1.0, "1s"),
        (1.5, "1.5s"),
        (59.9999, "59.9999s"),
        (60.0, "1m"),
        (90.0, "1m30s"),
        (3600.0, "1h"),
        (3605.0, "1h5s"),
        (86400.0, "24h"),
        (-90.0, "-1m30s"),
        (float("inf"), "for ever"),
    ],
)
def test_durations_are_written_as_people_write_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 10**15))
def test_what_is_written_is_read_as_the_same(nanoseconds: int) -> None:
    text = format_duration(nanoseconds / 1e9)
    assert round(parse_duration(text, most=1e9) * 1e9) == pytest.approx(nanoseconds, abs=1)


def test_a_duration_without_a_unit_says_so() -> None:
    with pytest.raises(InvalidValue, match="the unit is missing"):
        parse_duration("30", most=60)


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "us"]), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(first: int, unit: str, second: int) -> None:
    together = parse_duration(f"{first}{unit}{second}ns", most=1e9)
    parts = parse_duration(f"{first}{unit}", most=1e9) + parse_duration(f"{second}ns", most=1e9)
    assert together == pytest.approx(parts)


@given(st.text(max_size=80))
def test_any_text_is_a_value_or_invalid(text: str) -> None:
    for parse in (
        lambda: parse_duration(text, most=60),
        lambda: parse_integer(text, least=0, most=10),
        lambda: parse_rate(text, most=1000),
        lambda: parse_choice(text, ("service", "source")),
    ):
        with contextlib.suppress(InvalidValue):
            parse()


@pytest.mark.parametrize(("text", "number"), [("0", 0), (" 7 ", 7), ("+3", 3), ("010", 10)])
def test_integers(text: str, number: int) -> None:
    assert parse_integer(text, least=0, most=10) == number


@pytest.mark.parametrize("text", ["", "11", "-1", "1.0", "1_0", "٣", "two", "0x1", "9" * 5000])
def test_other_integers_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue) as error:
        parse_integer(text, least=0, most=10)
    assert error.value.expected == "a whole number from 0 to 10"
    assert len(error.value.reason) < 120


@pytest.mark.parametrize(
    ("text", "rate", "interval"),
    [
        ("100/s", Rate(100, "s"), 10_000_000),
        ("600/m", Rate(600, "m"), 100_000_000),
        ("1/h", Rate(1, "h"), 3_600_000_000_000),
        ("60000/m", Rate(60000, "m"), 1_000_000),
    ],
)
def test_rates(text: str, rate: Rate, interval: int) -> None:
    assert parse_rate(text, most=1000) == rate
    assert rate.interval == interval


@pytest.mark.parametrize("text", ["100", "0/s", "-1/s", "1001/s", "60001/m", "100/d", "100 / s", "1.5/s"])
def test_other_rates_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_rate(text, most=1000)


def test_a_misspelt_choice_names_the_nearest() -> None:
    with pytest.raises(InvalidValue) as error:
        parse_choice("sorce", ("service", "source"), also=" or a number")
    assert error.value.reason == '"sorce" is not known'
    assert error.value.expected == "one of service, source or a number; did you mean source?"


@pytest.mark.parametrize(
    ("text", "known", "close"),
    [
        ("fastest", ("round-robin", "least-request", "ewma"), ""),
        ("sometimes", ("5xx", "gateway-error", "reset", "unavailable"), ""),
        ("least-requests", ("round-robin", "least-request"), "least-request"),
        ("mim", ("min", "max"), "min"),
        ("", ("min", "max"), ""),
    ],
)
def test_only_what_is_close_is_taken_for_what_was_meant(
    text: str, known: tuple[str, ...], close: str
) -> None:
    assert nearest(text, known) == close


@pytest.mark.parametrize(
    ("text", "share"), [("0%", 0), ("100%", 10_000), (" 12.5%\n", 1250), ("0.01%", 1), ("007%", 700)]
)
def test_percentages(text: str, share: int) -> None:
    assert parse_percentage(text, least=0) == share


@pytest.mark.parametrize("text", ["", "%", "5", "100.01%", "1.234%", "-1%", "٣%", "1e1%", "1000%"])
def test_what_is_no_percentage(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_percentage(text, least=0)
    with pytest.raises(InvalidValue, match=r"a percentage from 0\.01% to 100%"):
        parse_percentage("0%")


def test_a_value_and_its_settings() -> None:
    assert split_settings(" 10%  min=5/s\nmax=1=2 ", ("min", "max")) == ("10%", {"min": "5/s", "max": "1=2"})
    assert split_settings("", ()) == ("", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10% 5/s", '"5/s" is not name=value; expected min=, max= after the value'),
        ("10% mim=1", '"mim" is not known; expected one of min, max; did you mean min?'),
        ("10% min=1 min=1", "min is given twice; expected min once"),
        ("10% =1", '"" is not known; expected one of min, max'),
    ],
)
def test_what_is_no_setting(text: str, message: str) -> None:
    with pytest.raises(InvalidValue) as error:
        split_settings(text, ("min", "max"))
    assert str(error.value) == message
