"""The messages of grpc.health.v1, byte by byte."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, strategies

from nodeagent.health.grpc_health import MalformedMessage, failure_of, health_request, serving_status


def answer(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def test_requests() -> None:
    assert health_request("") == b"\0\0\0\0\0"
    assert health_request("a.B") == b"\0\0\0\0\x05\x0a\x03a.B"
    assert health_request("x" * 200) == b"\0\0\0\0\xcb\x0a\xc8\x01" + b"x" * 200


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"", 0),
        (b"\x08\x01", 1),
        (b"\x08\x02", 2),
        (b"\x08\x81\x01", 129),
        (b"\x08\x02\x08\x01", 1),
        (b"\x12\x03abc\x08\x01", 1),
        (b"\x10\x05\x08\x01", 1),
        (b"\x0d\0\0\0\0\x09\0\0\0\0\0\0\0\0\x08\x01", 1),
    ],
)
def test_answers(message: bytes, status: int) -> None:
    assert serving_status(answer(message)) == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0\0",
        b"\1\0\0\0\2\x08\x01",
        b"\0\0\0\0\3\x08\x01",
        answer(b"\x08\x01") * 2,
        answer(b"\x08"),
        answer(b"\x08" + b"\xff" * 11),
        answer(b"\x12\x05ab"),
        answer(b"\x09\0"),
        answer(b"\x0b"),
    ],
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        serving_status(body)


@given(strategies.binary(max_size=64))
def test_any_bytes_are_a_status_or_malformed(message: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        assert serving_status(answer(message)) >= 0


@pytest.mark.parametrize(
    ("status", "message", "body", "failure"),
    [
        ("0", "", answer(b"\x08\x01"), ""),
        ("0", "", answer(b"\x08\x02"), "NOT_SERVING"),
        ("0", "", answer(b""), "UNKNOWN"),
        ("0", "", answer(b"\x08\x09"), "status 9"),
        ("0", "", b"", "its answer is no HealthCheckResponse: not one message that is not compressed"),
        ("5", "", b"", "grpc-status 5: it does not know the service"),
        ("12", "x", b"", "grpc-status 12: it has no grpc.health.v1.Health"),
        ("14", "going down", b"", "grpc-status 14: going down"),
        ("", "", answer(b"\x08\x01"), "grpc-status missing"),
    ],
)
def test_what_an_answer_means(status: str, message: str, body: bytes, failure: str) -> None:
    assert failure_of(status, message, body) == failure
