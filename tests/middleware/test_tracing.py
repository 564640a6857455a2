"""`svc.mesh/tracing`: what is recorded, what endpoints get, and what is left alone."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from middleware.contract import GatewayTimeout, Problem, TracedRequest
from middleware.grpc import GrpcStatus
from middleware.testing import FakeContext, FakeRequest, sent_over
from middleware.trace_context import read
from middleware.tracing import MIDDLEWARE, TRACING, Options, Sampler, build, explain, parse

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


class Kept:
    """Remembers what is recorded."""

    def __init__(self) -> None:
        self.requests: list[TracedRequest] = []

    def keep(self, request: TracedRequest) -> None:
        self.requests.append(request)


def traceparent(sampled: bool) -> dict[str, str]:
    return {"traceparent": f"00-{TRACE:032x}-{SPAN:016x}-{int(sampled):02x}", "tracestate": "rojo=1"}


def serve(
    options: Options, fields: Mapping[str, str] | None = None, random: int = 0
) -> tuple[FakeRequest, Kept]:
    """Show it a request; `random` is what all ids are made of."""
    kept = Kept()
    request = FakeRequest(fields=fields, target="/cart?card=4711")
    build(options, FakeContext(traces=kept), random_bits=lambda bits: random % (1 << bits))(request)
    return request, kept


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("1%", Options(100)),
        ("0% slow=500ms errors=on", Options(0, slow=0.5, errors=True)),
        ("0.25% parent=off", Options(25, parent=False)),
    ],
)
def test_values(text: str, options: Options) -> None:
    found = parse({TRACING: text})
    assert found == options
    assert sent_over(options) == options


@pytest.mark.parametrize("text", ["", "often", "101%", "1", "1% slow=fast", "1% errors", "1% parent=maybe"])
def test_bad_values(text: str) -> None:
    assert isinstance(parse({TRACING: text}), Problem)


@given(st.integers(0, 2**128 - 1), st.integers(0, 10_000))
def test_the_trace_id_decides_as_in_opentelemetry(trace_id: int, share: int) -> None:
    theirs = TraceIdRatioBased(share / 10_000).should_sample(None, trace_id, "").decision
    assert Sampler(Options(share)).samples(trace_id, None) is (theirs is Decision.RECORD_AND_SAMPLE)


def test_a_sampled_trace_gets_a_span_of_the_mesh() -> None:
    request, kept = serve(Options(0), traceparent(True), random=7)
    assert dict(request.headers) == {
        "traceparent": f"00-{TRACE:032x}-{7:016x}-01",
        "tracestate": "rojo=1",
    }
    request.end(200, http_version="2")
    (one,) = kept.requests
    assert one.http_version == "2"
    assert (one.trace_id, one.span_id) == (TRACE.to_bytes(16), (7).to_bytes(8))
    assert one.parent_id == SPAN.to_bytes(8)
    assert (one.path, one.status, one.failure, one.sampled) == ("/cart", 200, "", True)


def test_a_trace_that_is_not_sampled_passes_unchanged() -> None:
    request, kept = serve(Options(10_000), traceparent(False))
    assert dict(request.headers) == traceparent(False)
    assert request.calls_at_end == []
    assert kept.requests == []


def test_without_parent_the_trace_id_alone_decides() -> None:
    request, _ = serve(Options(10_000, parent=False), traceparent(False), random=7)
    assert request.headers.get("traceparent") == f"00-{TRACE:032x}-{7:016x}-01"
    request, _ = serve(Options(0, parent=False), traceparent(True))
    assert dict(request.headers) == traceparent(True)


def test_a_request_without_a_trace_begins_one() -> None:
    request, kept = serve(Options(10_000), random=7)
    found = read(request.headers)
    assert found is not None
    assert (found.trace_id, found.span_id, found.sampled) == (7, 7, True)
    request.end(200)
    assert kept.requests[0].parent_id == b""


def test_an_id_is_never_zero() -> None:
    request, _ = serve(Options(10_000), random=0)
    assert read(request.headers) is not None


def test_b3_says_no() -> None:
    request, _ = serve(Options(10_000), {"b3": "0"})
    assert dict(request.headers) == {"b3": "0"}


def test_what_failed_is_recorded_after_all() -> None:
    for status, error, grpc_status, failure in (
        (503, None, None, "503"),
        (504, GatewayTimeout("late"), None, GatewayTimeout.reason),
        (200, None, GrpcStatus.UNAVAILABLE, "UNAVAILABLE"),
    ):
        request, kept = serve(Options(0, errors=True), traceparent(False), random=7)
        assert dict(request.headers) == traceparent(False)
        request.end(status, error=error, grpc_status=grpc_status)
        assert [(one.failure, one.sampled) for one in kept.requests] == [(failure, False)]
        assert kept.requests[0].trace_id == TRACE.to_bytes(16)


@pytest.mark.parametrize(("status", "took"), [(200, 0.1), (404, 0.1), (0, 0.1)])
def test_what_was_well_is_not(status: int, took: float) -> None:
    request, kept = serve(Options(0, slow=0.5, errors=True))
    request.end(status, took)
    assert kept.requests == []


def test_what_was_slow_is_recorded_after_all() -> None:
    request, kept = serve(Options(0, slow=0.5))
    request.end(200, 0.5)
    assert len(kept.requests) == 1
    assert kept.requests[0].end - kept.requests[0].start == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "sampled", "followed"),
    [
        (Options(0), True, True),
        (Options(0), False, False),
        (Options(0, slow=1.0), False, True),
        (Options(0, errors=True), False, True),
    ],
)
def test_only_what_may_be_recorded_pays_for_its_stages(
    options: Options, sampled: bool, followed: bool
) -> None:
    request, _ = serve(options, traceparent(sampled))
    assert request.followed is followed


def test_without_a_collector_nothing_is_done() -> None:
    request = FakeRequest(fields=traceparent(True))
    build(Options(10_000), FakeContext())(request)
    assert dict(request.headers) == traceparent(True)
    assert request.calls_at_end == []


def test_a_record_is_small_and_comes_back_whole() -> None:
    request, kept = serve(Options(10_000), traceparent(True), random=7)
    request.end(503, grpc_status=GrpcStatus.UNAVAILABLE)
    data = msgspec.msgpack.encode(kept.requests[0])
    assert len(data) < 250
    assert msgspec.msgpack.decode(data, type=TracedRequest) == kept.requests[0]


def test_a_record_is_small_whatever_the_client_has_sent() -> None:
    kept = Kept()
    request = FakeRequest(method="M" * 60_000, target="/" + "x" * 60_000, fields=traceparent(True))
    build(Options(0), FakeContext(traces=kept))(request)
    request.end(404, error=GatewayTimeout("y" * 60_000))
    assert len(msgspec.msgpack.encode(kept.requests[0])) < 4000


CHANCE = "1% of such requests are recorded for the collector of --traces, by chance"


@pytest.mark.parametrize(
    ("options", "fields", "says"),
    [
        (Options(10000), {}, "recorded for the collector of --traces: 100% of such requests are"),
        (Options(0), {}, "not recorded: 0% of such requests are"),
        (
            Options(100, slow=0.5, errors=True),
            {},
            f"{CHANCE}; in any case it is if it fails or it takes 500ms or more",
        ),
        (
            Options(0),
            traceparent(sampled=True),
            "recorded for the collector of --traces: its client has decided so",
        ),
        (
            Options(10000, errors=True),
            traceparent(sampled=False),
            "not recorded: its client has decided so; in any case it is if it fails",
        ),
        (Options(0), {"b3": "1"}, "recorded for the collector of --traces: its client has decided so"),
        (
            Options(25, parent=False),
            traceparent(sampled=True),
            "not recorded: its trace id is not among the 0.25% that are",
        ),
        (
            Options(5000, parent=False),
            {"traceparent": f"00-{1:032x}-{SPAN:016x}-00"},
            "recorded for the collector of --traces: its trace id is among the 50% that are",
        ),
        (Options(0), {"traceparent": "<script>" * 100}, "not recorded: 0% of such requests are"),
    ],
)
def test_explained(options: Options, fields: dict[str, str], says: str) -> None:
    said = explain(options, FakeRequest(fields=fields))
    assert (said.says, said.status, said.perhaps) == (says, 0, ())
    assert MIDDLEWARE.explain is explain


@given(
    st.integers(0, 10000),
    st.booleans(),
    st.sampled_from([{}, traceparent(sampled=True), traceparent(sampled=False), {"b3": "0"}, {"b3": "d"}]),
)
def test_what_is_explained_is_what_happens(share: int, parent: bool, fields: dict[str, str]) -> None:
    options = Options(share, parent)
    says = explain(options, FakeRequest(fields=fields)).says
    if not says.endswith("by chance"):
        request, kept = serve(options, fields, random=TRACE)
        request.end(200)
        assert says.startswith("recorded") == bool(kept.requests)
