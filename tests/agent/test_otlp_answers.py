"""What a collector's answers mean: which lots are sent again, and when."""

from __future__ import annotations

import base64
import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from middleware.grpc import GrpcStatus
from nodeagent.agent import otlp_answers
from nodeagent.agent.delivery import FIRST_PAUSE, LONGEST_PAUSE, MOST_ASKED, Pauses, Verdict
from nodeagent.agent.otlp_answers import of_call
from tests.agent.collectors import status_details


def details(seconds: float) -> str:
    """As they are on the wire: without padding."""
    return base64.b64encode(status_details(seconds)).decode().rstrip("=")


@pytest.mark.parametrize("status", [one for one in GrpcStatus if one is not GrpcStatus.OK])
def test_the_table_of_the_specification(status: GrpcStatus) -> None:
    """https://opentelemetry.io/docs/specs/otlp/#failures."""
    again = status.name in (
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNAVAILABLE",
        "DATA_LOSS",
    )
    verdict = of_call(str(int(status)), "why", "", b"")
    assert verdict == Verdict("later" if again else "refused", f"it answered {status.name}: why")


def test_resource_exhausted_is_for_later_only_if_the_collector_says_when() -> None:
    assert of_call("8", "", "", b"").fate == "refused"
    assert of_call("8", "", details(0), b"") == Verdict("later", "it answered RESOURCE_EXHAUSTED")
    assert of_call("8", "", details(2.5), b"").pause == 2.5
    assert of_call("14", "", details(90), b"").pause == 90.0
    assert of_call("3", "", details(1), b"").fate == "refused"


def test_spans_that_are_rejected_of_a_lot_that_is_taken() -> None:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 3
    response.partial_success.error_message = "x" * 1000
    message = response.SerializeToString()
    verdict = of_call("0", "", "", b"\0" + len(message).to_bytes(4, "big") + message)
    assert (verdict.fate, verdict.rejected, verdict.words) == ("taken", 3, "x" * 1000)
    assert of_call("0", "", "", b"\0\0\0\0\0") == Verdict("taken")


def test_an_answer_that_is_compressed() -> None:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 3
    message = gzip.compress(response.SerializeToString())
    assert of_call("0", "", "", b"\1" + len(message).to_bytes(4, "big") + message).rejected == 3


def test_an_answer_that_would_become_enormous_is_not_read() -> None:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 3
    response.partial_success.error_message = "x" * 10_000_000
    message = gzip.compress(response.SerializeToString())
    assert len(message) < otlp_answers.LONGEST_MESSAGE
    assert of_call("0", "", "", b"\1" + len(message).to_bytes(4, "big") + message) == Verdict("taken")


@pytest.mark.parametrize("body", [b"", b"\1\0\0\0\0", b"\0\0\0\0\x05ab", b"\0\0\0\0\2\xff\xff"])
def test_a_message_that_cannot_be_read_says_nothing(body: bytes) -> None:
    assert of_call("0", "", "", body) == Verdict("taken")


@given(st.text(max_size=5), st.text(max_size=400), st.text(max_size=60), st.binary(max_size=60))
def test_whatever_it_answers_means_something(status: str, message: str, given: str, body: bytes) -> None:
    for text in (given, base64.b64encode(body).decode()):
        verdict = of_call(status, message, text, body)
        assert verdict.pause >= 0
        assert verdict.rejected >= 0
    assert isinstance(otlp_answers.error_message(body), str)


def test_details_that_are_too_long_are_not_read() -> None:
    assert of_call("8", "", details(1) + "A" * 40_000, b"").fate == "refused"


def test_pauses_double_up_to_a_bound_and_begin_anew_when_lots_are_taken() -> None:
    pauses = Pauses(lambda: 1.0)
    assert [pauses.next(0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE]
    pauses.taken()
    assert pauses.next(0) == FIRST_PAUSE


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e9)), max_size=20))
def test_no_pause_is_shorter_than_asked_or_longer_than_the_bound(steps: list[tuple[float, float]]) -> None:
    numbers = [number for number, _ in steps]
    pauses = Pauses(lambda: numbers.pop(0))
    for _, asked in steps:
        pause = pauses.next(asked)
        assert min(asked, MOST_ASKED) <= pause <= max(LONGEST_PAUSE, MOST_ASKED)
        assert pause >= FIRST_PAUSE / 2
