"""No request of HTTP/1 reaches an endpoint as two, and nobody gets another's answer: with real servers.

Behind each attempt come an honest request on the same connection and two of other clients, each with a target
of its own, which its answer must name. The endpoint tells what it was asked: what it should not have been
asked shows there.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from hack.kit.ports import free_port
from hack.kit.waiting import until
from tests.interop.attempts1 import Attempt, all_attempts
from tests.interop.conftest import Server, Start
from tests.interop.mesh import InteropMesh, installed, peer_python
from tests.interop.raw1 import Http1Client
from tests.interop.recorder import Recorder
from tests.interop.test_smuggling import NGINX, Asked
from tests.interop.tomcat import LOG, tomcat_command
from tests.interop.victims import Victims

HAPROXY = """
global
    log stdout format raw local0
defaults
    mode http
    log global
    log-format "asked %HM %HU %[capture.req.hdr(0)]"
    option http-keep-alive
    option dontlognull
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend web
    bind 127.0.0.1:{port}
    option http-buffer-request
    capture request header X-Marker len 64
    http-request return status 200 content-type text/plain lf-string "hello %[capture.req.uri]\\n"
"""
SPACE_BEHIND = "CL.0: POST, white space behind"
EXPECTS = ("CL.0: Expect of something else", "TE: with Expect")
"""Attempts that are one request, and that some endpoints refuse."""
PEER = str(Path(__file__).with_name("python_peer.py"))


class Attacker:
    """Makes attempts at one endpoint, and learns what it must and what it may have been asked."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.victims = Victims(address)
        self.must: Counter[str] = Counter()
        self.may: set[str] = set()
        self.refused: set[str] = set()
        """Attempts that are one request, and that the endpoint did not like."""

    def attempt(self, attempt: Attempt, marker: str) -> None:
        """Make an attempt, and have others ask at the same time."""
        honest = f"/same/{marker}"
        behind = f"GET {honest} HTTP/1.1\r\nHost: web\r\nX-Marker: honest\r\n\r\n".encode()
        with Http1Client(self._address) as client:
            client.send(attempt.write(marker) + (b"" if attempt.waits else behind), end=attempt.waits)
            self.victims.check(marker)
            self.must.update((f"GET /one/{marker} honest", f"GET /two/{marker} honest"))
            answer = client.answer(attempt.asks.partition(" ")[0])
            mine = f"{attempt.asks} {marker}"
            if attempt.outcome != "once":
                # An endpoint may answer before the body breaks off; then the connection is over.
                early = attempt.outcome == "cut" and answer is not None and answer.closes
                assert answer is None or early or (answer.of_mesh and answer.status >= 400), (attempt, answer)
                assert client.answer() is None, attempt
                if attempt.outcome == "cut":
                    self.may.add(mine)
                return
            assert answer is not None, attempt
            if answer.status == 200:
                self.must[mine] += 1
            else:
                self.refused.add(attempt.name)
                self.may.add(mine)
            if not answer.closes:
                second = client.answer()
                assert second is not None, attempt
                assert second.body == f"hello {honest}\n".encode(), (attempt, second)
                self.must[f"GET {honest} honest"] += 1


def check_endpoint(mesh: InteropMesh, port: int, asked: Asked, refuses: Collection[str] = ()) -> None:
    """Make every attempt at an endpoint, and compare what it was asked with what it should be."""
    address = mesh.serve(port, "http")
    attacker = Attacker(address)
    before = len(asked())
    with contextlib.closing(attacker.victims):
        for number, attempt in enumerate(all_attempts()):
            attacker.attempt(attempt, f"n{number}")

    def got() -> Counter[str]:
        return Counter(line for line in asked()[before:] if line not in attacker.may)

    until(lambda: got().total() >= attacker.must.total())
    assert got() == attacker.must
    optional = Counter(line for line in asked()[before:] if line in attacker.may)
    assert all(count == 1 for count in optional.values()), optional
    assert attacker.refused == set(refuses)
    until(lambda: mesh.at_rest(address[0]))


def test_a_strict_recorder(mesh: InteropMesh) -> None:
    recorder = Recorder()
    with recorder.running() as port:
        strict = (SPACE_BEHIND, "TE: a space behind", "TE: capitals", "chunks: extensions")
        check_endpoint(mesh, port, lambda: list(recorder.asked), strict)
    assert len(recorder.unclear) == len(strict)


def test_nginx(mesh: InteropMesh, start: Start, tmp_path: Path) -> None:
    port = free_port()
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(NGINX.format(folder=tmp_path, port=port))
    server = start(installed("nginx", "nginx"), "-e", "stderr", "-c", str(configuration), port=port)
    check_endpoint(mesh, port, server.asked, (SPACE_BEHIND, "TE: a tab in front"))


def test_haproxy(mesh: InteropMesh, start: Start, tmp_path: Path) -> None:
    port = free_port()
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(HAPROXY.format(port=port))
    server = start(installed("haproxy", "haproxy"), "-db", "-f", str(configuration), port=port)
    check_endpoint(mesh, port, server.asked)


def test_go(mesh: InteropMesh, go_http: Server) -> None:
    check_endpoint(mesh, go_http.port, go_http.asked)


def test_node(mesh: InteropMesh, node_server: Callable[[str], Server]) -> None:
    server = node_server("http")
    check_endpoint(mesh, server.port, server.asked, (SPACE_BEHIND,))


def test_tomcat(mesh: InteropMesh, start: Start, tmp_path: Path) -> None:
    port = free_port()
    start(*tomcat_command(tmp_path, port), port=port)
    server = Server(port, tmp_path / LOG)
    check_endpoint(mesh, port, server.asked, ("CL.0: DELETE", *EXPECTS))


@pytest.mark.parametrize("name", ["gunicorn", "uvicorn-h11", "uvicorn-httptools", "cheroot", "aiohttp"])
def test_python(mesh: InteropMesh, start: Start, name: str) -> None:
    server = start(peer_python(), PEER, name, "PORT")
    check_endpoint(mesh, server.port, server.asked, EXPECTS if name == "gunicorn" else ())
