"""What the mesh says to callers of gRPC."""

from __future__ import annotations

import pytest

from middleware.contract import Reply
from nodeagent.proxy.http2.grpc_reply import grpc_head, grpc_status, is_grpc
from nodeagent.proxy.message import Fields, RequestHead


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("application/grpc", True),
        ("Application/GRPC+proto", True),
        ("application/grpc; charset=utf-8", True),
        ("application/grpc-web", False),
        ("application/grpc-web+proto", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_who_speaks_it(kind: str, expected: bool) -> None:
    line = f"content-type: {kind}\r\n".encode() if kind else b""
    assert is_grpc(RequestHead(b"POST", b"/a.B/C", b"1", b"Host: web\r\n" + line, 0)) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, 3), (403, 7), (404, 12), (418, 3), (429, 8), (500, 13), (502, 14), (503, 14), (504, 4), (204, 13)],
)
def test_statuses(status: int, expected: int) -> None:
    assert grpc_status(status) == expected


def test_the_message_is_encoded() -> None:
    reply = Reply(503, [("Proxy-Status", "svc.mesh"), ("Content-Type", "text/plain")], "100% é\n".encode())
    head = grpc_head(reply)
    fields = Fields(head)
    assert head.status == 200
    assert fields.get_all("content-type") == ["application/grpc"]
    assert fields.get("proxy-status") == "svc.mesh"
    assert fields.get("grpc-status") == "14"
    assert fields.get("grpc-message") == "100%25 %C3%A9"
    assert fields.get("content-length") is None


def test_without_words_the_reason_is_told() -> None:
    assert Fields(grpc_head(Reply(403, reason="denied"))).get("grpc-message") == "denied"
