"""Which format of `/metrics` a scraper gets for its `Accept`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.admin.formats import LONGEST_ACCEPT, OPEN_METRICS, PLAIN, choose

OPEN = "application/openmetrics-text"
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    "accept",
    [
        PROMETHEUS_2_42,
        PROMETHEUS_3,
        NATIVE,
        OPEN,
        OPEN.upper(),
        f"{OPEN};version=1.0.0",
        f'{OPEN}; version="1.0.0" ; q=0.001',
        f"text/plain;q=0.9,{OPEN}",
        f"text/plain,{OPEN}",
        f"{OPEN},*/*",
        f"{OPEN};q=0.2, */*;q=0.1",
        f"text/*;q=0.1,,\t {OPEN};q=0.2 ,",
        "application/*",
        "*/*, text/plain;q=0",
    ],
)
def test_openmetrics_for_those_who_prefer_it(accept: str) -> None:
    assert choose(accept) is OPEN_METRICS


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/plain",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "application/json",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
        f"{OPEN};version=0.0.1",
        f"{OPEN};version=2.0.0",
        f"{OPEN};q=0",
        f"{OPEN};q=0,*/*",
        f"{OPEN};q=0.5,text/plain;q=0.6",
        f"{OPEN};q=0.5,*/*",
    ],
)
def test_the_plain_format_for_the_others(accept: str) -> None:
    assert choose(accept) is PLAIN


@pytest.mark.parametrize(
    "accept",
    [
        f"{OPEN};q=2",
        f"{OPEN};q=-1",
        f"{OPEN};q=0.1234",
        f"{OPEN};q=nan",
        f"{OPEN};q=",
        f"{OPEN};version",
        f"{OPEN};;",
        f"{OPEN} text/plain",
        f"{OPEN},text",
        f"{OPEN},text/plain;a=\x00",
        f"{OPEN}\n",
        f'{OPEN};version="1.0.0',
        f"{OPEN}" + " " * 900 + "/",
        f"{OPEN}," + "a/b," * LONGEST_ACCEPT,
    ],
)
def test_the_plain_format_for_what_is_malformed_or_enormous(accept: str) -> None:
    assert choose(accept) is PLAIN


@given(
    st.lists(
        st.sampled_from((OPEN, "text/plain", "*/*", ";", ",", "q=0.5", "version=1.0.0", '"', " ", "=")),
        max_size=30,
    )
)
def test_nothing_that_is_sent_is_an_error(parts: list[str]) -> None:
    chosen = choose("".join(parts))
    assert chosen in (PLAIN, OPEN_METRICS)
    if not any(OPEN in part or "*" in part for part in parts):
        assert chosen is PLAIN


@given(st.text(max_size=60))
def test_no_text_is_an_error(accept: str) -> None:
    assert choose(accept) in (PLAIN, OPEN_METRICS)
