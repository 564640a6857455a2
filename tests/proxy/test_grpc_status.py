"""Where messages say the status of a gRPC call."""

from __future__ import annotations

import pytest

from middleware.contract import Reply
from middleware.grpc import GrpcStatus
from nodeagent.proxy.grpc_status import in_head, in_reply, said_in, status_in
from nodeagent.proxy.message import ResponseHead


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"grpc-status: 0\r\n", GrpcStatus.OK),
        (b"grpc-message: not now\r\ngrpc-status: 9\r\nx: y\r\n", GrpcStatus.FAILED_PRECONDITION),
        (b"Grpc-Status:\t 14 \r\n", GrpcStatus.UNAVAILABLE),
        (b"grpc-status:5\r\n", GrpcStatus.NOT_FOUND),
        (b"grpc-status: 17\r\n", GrpcStatus.UNKNOWN),
        (b"grpc-status: -1\r\n", GrpcStatus.UNKNOWN),
        (b"grpc-status: \xb2\r\n", GrpcStatus.UNKNOWN),
        (b"grpc-status: " + b"9" * 5000 + b"\r\n", GrpcStatus.UNKNOWN),
        (b"grpc-status:\r\n", GrpcStatus.UNKNOWN),
        (b"x-grpc-status: 0\r\n", None),
        (b"grpc-status-details-bin: AA\r\n", None),
        (b"grpc-message: grpc-status: 0\r\n", None),
        (b"", None),
    ],
)
def test_what_lines_say(lines: bytes, expected: GrpcStatus | None) -> None:
    assert said_in(lines) is expected
    assert status_in(lines, 200) is (GrpcStatus.UNKNOWN if expected is None else expected)


@pytest.mark.parametrize(
    ("status", "lines", "expected"),
    [
        (200, b"grpc-status: 14\r\n", GrpcStatus.UNAVAILABLE),
        (200, b"", GrpcStatus.UNKNOWN),
        (503, b"content-type: text/html\r\n", GrpcStatus.UNAVAILABLE),
        (404, b"", GrpcStatus.UNIMPLEMENTED),
        (503, b"grpc-status: 8\r\n", GrpcStatus.RESOURCE_EXHAUSTED),
    ],
)
def test_what_a_head_says(status: int, lines: bytes, expected: GrpcStatus) -> None:
    assert in_head(ResponseHead(status, b"1", b"%d " % status, lines, 0)) is expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(429), GrpcStatus.RESOURCE_EXHAUSTED),
        (Reply(200, [("Grpc-Status", "9")]), GrpcStatus.FAILED_PRECONDITION),
        (Reply(200, [("grpc-status", "nine")]), GrpcStatus.UNKNOWN),
    ],
)
def test_what_a_reply_says(reply: Reply, expected: GrpcStatus) -> None:
    assert in_reply(reply) is expected
