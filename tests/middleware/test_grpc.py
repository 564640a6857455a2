"""What a status of gRPC is in HTTP, and the other way round."""

from __future__ import annotations

import pytest

from middleware.grpc import BY_WORD, GrpcStatus, http_code, of_http, of_reply


def test_the_codes_are_those_of_grpc() -> None:
    assert [status.value for status in GrpcStatus] == list(range(17))
    assert (GrpcStatus(8).name, GrpcStatus(14).name) == ("RESOURCE_EXHAUSTED", "UNAVAILABLE")


def test_the_words_are_envoys() -> None:
    envoys = {"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}
    assert envoys < set(BY_WORD)
    assert len(BY_WORD) == 16
    assert BY_WORD["data-loss"] is GrpcStatus.DATA_LOSS


@pytest.mark.parametrize("status", GrpcStatus)
def test_every_status_has_a_code_of_its_kind(status: GrpcStatus) -> None:
    code = http_code(200, status)
    assert code == 200 if status is GrpcStatus.OK else 400 <= code < 600


@pytest.mark.parametrize(
    ("status", "grpc_status", "expected"),
    [
        (200, None, 200),
        (503, None, 503),
        (200, GrpcStatus.OK, 200),
        (200, GrpcStatus.UNAVAILABLE, 503),
        (200, GrpcStatus.DEADLINE_EXCEEDED, 504),
        (200, GrpcStatus.CANCELLED, 499),
        (200, GrpcStatus.RESOURCE_EXHAUSTED, 429),
        (200, GrpcStatus.NOT_FOUND, 404),
        (200, GrpcStatus.UNKNOWN, 500),
        (502, GrpcStatus.UNAVAILABLE, 502),
    ],
)
def test_what_became_of_a_request(status: int, grpc_status: GrpcStatus | None, expected: int) -> None:
    assert http_code(status, grpc_status) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, 2), (400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (500, 2), (502, 14), (503, 14)],
)
def test_what_callers_make_of_a_response_without_one(status: int, expected: int) -> None:
    assert of_http(status) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, 3), (403, 7), (404, 12), (418, 3), (429, 8), (500, 13), (502, 14), (503, 14), (504, 4), (204, 13)],
)
def test_what_the_mesh_tells_callers(status: int, expected: int) -> None:
    assert of_reply(status) == expected
