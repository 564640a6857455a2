"""Redirect, rewrite and CORS on a real data plane."""

from __future__ import annotations

from tests.dataplane.harness import Mesh, answering

CLOSE = b"Host: web\r\nConnection: close\r\n"


async def test_a_redirect_reaches_no_endpoint(mesh: Mesh) -> None:
    seen: list[bytes] = []
    endpoint = await mesh.endpoint(answering(seen=seen))
    await mesh.serve(endpoint, annotations={"svc.mesh/redirect": "308 prefix=/old path=/new"})
    answer = await mesh.ask(b"GET /old/a?b HTTP/1.1\r\n" + CLOSE + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 308 ")
    assert b"\r\nLocation: http://web/new/a?b\r\n" in answer
    assert b'Proxy-Status: svc.mesh; details="redirected"' in answer
    assert seen == []
    assert (await mesh.ask(b"GET /other HTTP/1.1\r\n" + CLOSE + b"\r\n")).startswith(b"HTTP/1.1 200 ")
    assert mesh.metric("redirect", "svcmesh_redirects") == 1


async def test_a_rewrite_is_what_the_endpoint_sees(mesh: Mesh) -> None:
    seen: list[bytes] = []
    endpoint = await mesh.endpoint(answering(seen=seen))
    await mesh.serve(endpoint, annotations={"svc.mesh/rewrite": "strip /api; host inner:81"})
    assert (await mesh.ask(b"GET /api/a?b HTTP/1.1\r\n" + CLOSE + b"\r\n")).startswith(b"HTTP/1.1 200 ")
    (head,) = seen
    assert head.startswith(b"GET /a?b HTTP/1.1\r\n")
    assert head.count(b"\r\nHost: inner:81\r\n") == 1
    assert b"Host: web" not in head
    assert b"\r\nX-Forwarded-Prefix: /api\r\n" in head


async def test_preflights_and_errors_for_pages(mesh: Mesh) -> None:
    await mesh.serve(
        annotations={"svc.mesh/cors": "https://shop.example", "svc.mesh/rate-limit": "1/h burst=1"}
    )
    origin = b"Origin: https://shop.example\r\n"
    for _ in range(3):
        answer = await mesh.ask(
            b"OPTIONS / HTTP/1.1\r\n" + CLOSE + origin + b"Access-Control-Request-Method: GET\r\n\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 204 ")
        assert b"\r\nContent-Length:" not in answer
    statuses = []
    for _ in range(2):
        answer = await mesh.ask(b"GET / HTTP/1.1\r\n" + CLOSE + origin + b"\r\n")
        statuses.append(answer.split()[1])
        assert answer.count(b"\r\nAccess-Control-Allow-Origin: https://shop.example\r\n") == 1
    assert statuses == [b"503", b"429"]
    assert mesh.metric("cors", "svcmesh_cors_preflights") == 3
