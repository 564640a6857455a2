"""No request of HTTP/2 reaches an endpoint as two, and nobody gets another's answer: with real servers.

Behind each attempt come a request on the same connection and two of other clients. The endpoint tells what
it was asked: what it should not have been shows there. Whose answer is whose shows at the clients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import pytest

from hack.kit.ports import free_port
from hack.kit.waiting import until
from tests.interop.attempts import Attempt, all_attempts
from tests.interop.conftest import Server, Start
from tests.interop.mesh import InteropMesh, installed
from tests.interop.raw import RawClient
from tests.interop.recorder import Recorder
from tests.interop.victims import Victims, check_honest, honest

NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{
    log_format asked "asked $request_method $request_uri $http_x_marker";
    access_log /dev/stdout asked;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 200 "hello $request_uri\\n"; }}
    }}
}}
"""
GO_REFUSES = ("te: trailers", "te: trailers, in pieces")
"""It answers 400 to a request of HTTP/1 that announces the trailer Content-Length."""
Asked = Callable[[], list[str]]


def attack(address: tuple[str, int], attempt: Attempt, marker: str, victims: Victims) -> set[str]:
    """Make an attempt; return what the endpoint must have been asked because of it."""
    with RawClient(address) as client:
        client.send(attempt.write(marker.encode()) + honest(5, f"/same/{marker}"))
        answer = client.answer(1 if attempt.answered else 5)
        if attempt.outcome == "once":
            assert (answer.ending, answer.status) == ("end", 200), (attempt.name, answer)
        elif attempt.answered:
            assert answer.refused, (attempt.name, answer)
        expected = {f"GET /one/{marker} honest", f"GET /two/{marker} honest"}
        if client.lives:
            check_honest(client, 5, f"/same/{marker}")
            expected.add(f"GET /same/{marker} honest")
        victims.check(marker)
    return expected


def check_endpoint(
    mesh: InteropMesh, port: int, protocol: str, asked: Asked, refuses: Collection[str] = ()
) -> None:
    """Make every attempt at an endpoint, and compare what it was asked with what it should be.

    `refuses` are attempts that are one request, and that this endpoint refuses itself.
    """
    address = mesh.serve(port, protocol, {"svc.mesh/request-trailers": "pass"})
    victims = Victims(address)
    expected: set[str] = set()
    attempts = {f"m{number}": attempt for number, attempt in enumerate(all_attempts())}
    for marker, attempt in attempts.items():
        if attempt.name in refuses:
            attempts[marker] = msgspec.structs.replace(attempt, outcome="cut")
    before = len(asked())
    with contextlib.closing(victims):
        for marker, attempt in attempts.items():
            expected |= attack(address, attempt, marker, victims)
            if attempt.outcome == "once":
                expected.add(f"{attempt.asks} {marker}")
    optional = {f"{one.asks} {marker}" for marker, one in attempts.items() if one.outcome == "cut"}

    def got() -> list[str]:
        return [line for line in asked()[before:] if line not in optional]

    until(lambda: len(got()) >= len(expected))
    assert sorted(got()) == sorted(expected)
    cut = [line for line in asked()[before:] if line in optional]
    assert len(cut) == len(set(cut))
    until(lambda: mesh.at_rest(address[0]))


def test_a_strict_recorder(mesh: InteropMesh) -> None:
    recorder = Recorder()
    with recorder.running() as port:
        check_endpoint(mesh, port, "http", lambda: list(recorder.asked))
    assert recorder.unclear == []


def test_nginx(mesh: InteropMesh, start: Start, tmp_path: Path) -> None:
    port = free_port()
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(NGINX.format(folder=tmp_path, port=port))
    server = start(installed("nginx", "nginx"), "-e", "stderr", "-c", str(configuration), port=port)
    check_endpoint(mesh, port, "http", server.asked)


@pytest.mark.parametrize("protocol", ["http", "http2"])
def test_go(mesh: InteropMesh, go_http: Server, protocol: str) -> None:
    refuses = GO_REFUSES if protocol == "http" else ()
    check_endpoint(mesh, go_http.port, protocol, go_http.asked, refuses)


@pytest.mark.parametrize("protocol", ["http", "http2"])
def test_node(mesh: InteropMesh, node_server: Callable[[str], Server], protocol: str) -> None:
    server = node_server(protocol)
    check_endpoint(mesh, server.port, protocol, server.asked)
