"""Trace contexts: what is read, and what is passed on. OpenTelemetry's propagators are the judge."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from middleware.contract import ReplyHeaders
from middleware.trace_context import (
    FIELDS,
    MOST_MEMBERS,
    TraceContext,
    decision,
    passed_on,
    read,
    read_traceparent,
    valid_tracestate,
)

TRACE, SPAN, OURS = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 0x00F067AA0BA902B7
PARENT = f"00-{TRACE:032x}-{SPAN:016x}-01"
TRACE_IDS = st.integers(1, 2**128 - 1)
SPAN_IDS = st.integers(1, 2**64 - 1)

PROPAGATORS = {
    "w3c": TraceContextTextMapPropagator(),
    "b3": B3SingleFormat(),
    "b3-multi": B3MultiFormat(),
    "jaeger": JaegerPropagator(),
}


def headers(fields: Mapping[str, str]) -> ReplyHeaders:
    return ReplyHeaders(fields.items())


def written(form: str, trace_id: int, span_id: int, sampled: bool) -> dict[str, str]:
    """Return the fields that OpenTelemetry writes."""
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else 0)
    span = trace.NonRecordingSpan(trace.SpanContext(trace_id, span_id, is_remote=False, trace_flags=flags))
    fields: dict[str, str] = {}
    PROPAGATORS[form].inject(fields, trace.set_span_in_context(span, Context()))
    return fields


def judged(form: str, fields: Mapping[str, str]) -> tuple[int, int, bool] | None:
    """Return what OpenTelemetry reads."""
    lower = {name.lower(): value for name, value in fields.items()}
    found = trace.get_current_span(PROPAGATORS[form].extract(lower, Context())).get_span_context()
    return (found.trace_id, found.span_id, bool(found.trace_flags.sampled)) if found.is_valid else None


@pytest.mark.parametrize("form", PROPAGATORS)
@given(TRACE_IDS, SPAN_IDS, st.booleans())
def test_what_opentelemetry_writes_is_read(form: str, trace_id: int, span_id: int, sampled: bool) -> None:
    found = read(headers(written(form, trace_id, span_id, sampled)))
    assert found is not None
    assert (found.trace_id, found.span_id, found.sampled) == (trace_id, span_id, sampled)
    assert found.forms == (form,)


@pytest.mark.parametrize("form", PROPAGATORS)
@given(TRACE_IDS, SPAN_IDS, SPAN_IDS)
def test_opentelemetry_reads_what_is_passed_on(form: str, trace_id: int, span_id: int, ours: int) -> None:
    fields = headers(written(form, trace_id, span_id, True))
    parent = read(fields)
    assert parent is not None
    passed_on(fields, parent, ours, parent)
    assert judged(form, dict(fields)) == (trace_id, ours, True)


@given(
    st.from_regex(
        r"[0-9a-fA-FxX]{2}-[0-9a-f]{30,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}(-[a-z]{0,3})?", fullmatch=True
    )
    | st.from_regex(
        r"(00|01|fe|ff)-(0{32}|[0-9a-f]{32})-(0{16}|[0-9a-f]{16})-[0-9a-f]{2}(-.?)?", fullmatch=True
    )
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80)
)
def test_no_traceparent_is_read_that_opentelemetry_refuses(value: str) -> None:
    found = read_traceparent([value.strip()])
    if found is not None:
        assert judged("w3c", {"traceparent": value}) == (found.trace_id, found.span_id, found.sampled)


@pytest.mark.parametrize(
    "value",
    [
        "",
        PARENT + "-more",  # version 00 has nothing more
        "ff" + PARENT[2:],
        PARENT.upper(),
        f"00-{0:032x}-{SPAN:016x}-01",
        f"00-{TRACE:032x}-{0:016x}-01",
        f"00-{TRACE:031x}-{SPAN:016x}-01",
        PARENT[:-1],
        f"01{PARENT[2:]}." + "x",  # no dash before what a later version adds
        f"01{PARENT[2:]}-" + "x" * 10_000,
        "٠٠" + PARENT[2:],  # digits of another script
    ],
)
def test_a_traceparent_that_is_not_valid_counts_as_absent(value: str) -> None:
    assert read_traceparent([value]) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert read_traceparent([f"cc{PARENT[2:]}-what-else"]) == TraceContext(TRACE, SPAN, True, flags=1)


def test_two_traceparents_are_none() -> None:
    assert read_traceparent([PARENT, PARENT]) is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"b3": "0"}, False),
        ({"b3": "1"}, True),
        ({"b3": "d"}, True),
        ({"X-B3-Sampled": "0"}, False),
        ({"X-B3-Sampled": "true"}, True),
        ({"X-B3-Flags": "1"}, True),
        ({"b3": "yes"}, None),
        ({}, None),
    ],
)
def test_b3_decides_without_naming_a_trace(fields: Mapping[str, str], expected: bool | None) -> None:
    assert read(headers(fields)) is None
    assert decision(headers(fields)) is expected


@pytest.mark.parametrize(
    "fields",
    [
        {"b3": f"{TRACE:032x}-{SPAN:016x}-2"},
        {"b3": f"{TRACE:032x}-{SPAN:016x}-1-xyz"},
        {"b3": f"{TRACE:020x}"},
        {"X-B3-TraceId": f"{TRACE:032x}"},
        {"X-B3-TraceId": "1", "X-B3-SpanId": f"{SPAN:016x}"},
        {"uber-trace-id": f"{TRACE:x}:{SPAN:x}:0"},
        {"uber-trace-id": f"{TRACE:x}:0:0:1"},
        {"uber-trace-id": f"{TRACE:x}{TRACE:x}:1:0:1"},
        {"uber-trace-id": "1:1:0:1" + "0" * 5000},
        {"b3": f"{TRACE:032x}-{SPAN:016x}-1" + "0" * 10_000},
        {"b3": "1" * 10_000},
        {"X-B3-TraceId": "1" * 10_000, "X-B3-SpanId": f"{SPAN:016x}", "X-B3-Sampled": "1"},
        {"X-B3-TraceId": f"{TRACE:032x}", "X-B3-SpanId": "<script>"},
        {"uber-trace-id": "٠:١:0:1"},
    ],
)
def test_others_that_are_not_valid_count_as_absent(fields: Mapping[str, str]) -> None:
    assert read(headers(fields)) is None


def test_a_b3_that_leaves_the_decision_open() -> None:
    found = read(headers({"b3": f"{TRACE:032x}-{SPAN:016x}"}))
    assert found is not None
    assert found.sampled is None


def test_a_short_trace_id_of_b3_is_written_long() -> None:
    fields = headers({"b3": f"{SPAN:016x}-{SPAN:016x}-1"})
    parent = read(fields)
    assert parent is not None
    passed_on(fields, parent, OURS, parent)
    assert fields.get("b3") == f"{SPAN:032x}-{OURS:016x}-1-{SPAN:016x}"


def test_a_debugged_trace_stays_one() -> None:
    fields = headers({"b3": f"{TRACE:032x}-{SPAN:016x}-d"})
    parent = read(fields)
    assert parent is not None
    passed_on(fields, parent, OURS, parent)
    assert (fields.get("b3") or "").split("-")[2] == "d"


def test_several_forms_of_one_trace_are_passed_on_and_another_trace_is_left_alone() -> None:
    other = f"{TRACE + 1:x}:{SPAN:x}:0:1"
    fields = headers({"traceparent": PARENT, "b3": f"{TRACE:032x}-{SPAN:016x}-1", "uber-trace-id": other})
    parent = read(fields)
    assert parent is not None
    assert parent.forms == ("w3c", "b3")
    passed_on(fields, parent, OURS, parent)
    assert dict(fields) == {
        "traceparent": f"00-{TRACE:032x}-{OURS:016x}-01",
        "b3": f"{TRACE:032x}-{OURS:016x}-1-{SPAN:016x}",
        "uber-trace-id": other,
    }


@pytest.mark.parametrize(
    ("state", "stays"),
    [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", True),
        ("fw529a3039@dt=FfffffffFfff,,", True),
        ("a=1,a=2", False),
        ("A=1", False),
        ("a=b=c", False),
        ("a=", False),
        (",".join(f"k{index}=1" for index in range(MOST_MEMBERS)), True),
        (",".join(f"k{index}=1" for index in range(MOST_MEMBERS + 1)), False),
    ],
)
def test_a_tracestate_that_is_not_valid_is_taken_out(state: str, stays: bool) -> None:
    assert valid_tracestate([state]) is stays
    fields = headers({"traceparent": PARENT, "tracestate": state})
    parent = read(fields)
    assert parent is not None
    passed_on(fields, parent, OURS, parent)
    assert (fields.get("tracestate") == state) is stays
    assert fields.get("tracestate") in (state, None)


def test_a_tracestate_of_no_trace_is_taken_out() -> None:
    fields = headers({"traceparent": "nonsense", "tracestate": "rojo=1"})
    assert read(fields) is None
    passed_on(fields, TraceContext(TRACE, OURS, True, flags=1), OURS, None)
    assert dict(fields) == {"traceparent": f"00-{TRACE:032x}-{OURS:016x}-01"}


@given(
    st.dictionaries(
        st.sampled_from(sorted({*FIELDS, "tracestate"})),
        st.one_of(
            st.text(st.characters(max_codepoint=255), max_size=300), st.from_regex(r"[0-9a-f:;=-]{0,80}")
        ),
    )
)
def test_whatever_is_sent_is_a_trace_or_none_and_what_is_passed_on_is_valid(fields: dict[str, str]) -> None:
    sent = headers(fields)
    parent = read(sent)
    decision(sent)
    passed_on(sent, parent or TraceContext(TRACE, OURS, True, flags=1), OURS, parent)
    found = read(sent)
    assert found is not None
    assert (found.span_id, found.sampled) == (OURS, True)
    if parent is not None:
        assert 0 < parent.trace_id < 1 << 128
        assert found.trace_id == parent.trace_id
