"""A client that does not read holds back whichever endpoint is asked next."""

from __future__ import annotations

from middleware.retry import Options
from nodeagent.plan.model import LayerSpec
from tests.exchange.fakes import ENDPOINTS, HIGH, Mesh, Wire

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: <%b>\r\n\r\n" % (b"x" * 500)


def is_held(wire: Wire) -> bool:
    return wire.paused


def test_the_next_try_of_a_request_is_held_back_too() -> None:
    mesh = Mesh(layers=[LayerSpec("retry", Options(attempts=1))], endpoints=ENDPOINTS)
    client = mesh.connect()
    client.peer_reads = False
    client.send(GET)
    mesh.loop.run()
    first = mesh.dialer.waiting[0].accept()
    first.send(HINT * (HIGH // len(HINT) + 1))
    mesh.loop.run()
    assert is_held(first)
    first.break_off()
    mesh.loop.run()
    second = mesh.dialer.waiting[0].accept()
    second.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    mesh.loop.run()
    assert is_held(second)
    client.peer_reads = True
    client.read()
    mesh.loop.run()
    assert not is_held(second)
    assert bytes(client.received).endswith(b"\r\n\r\nok")
