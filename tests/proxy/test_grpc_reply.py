"""What the mesh says to callers of gRPC."""

from __future__ import annotations

from middleware.contract import Reply
from nodeagent.proxy.grpc_reply import grpc_head, grpc_trailers
from nodeagent.proxy.message import Fields


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


def test_a_layer_may_say_the_status_itself() -> None:
    fields = Fields(grpc_head(Reply(403, [("grpc-status", "9"), ("grpc-message", "not%20yet")])))
    assert fields.get_all("grpc-status") == ["9"]
    assert fields.get_all("grpc-message") == ["not%20yet"]


def test_trailers_say_the_same() -> None:
    fields = [("Proxy-Status", "svc.mesh"), ("Content-Type", "text/plain"), ("Set-Cookie", "a=b")]
    reply = Reply(504, fields, b"too late\n")
    lines = b"Proxy-Status: svc.mesh\r\ngrpc-status: 4\r\ngrpc-message: too late\r\n"
    assert grpc_trailers(reply) == lines
