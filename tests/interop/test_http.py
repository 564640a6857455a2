"""Clients of HTTP/2 that people use, through a whole agent, before endpoints of HTTP/1 and of HTTP/2."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hack.kit.waiting import until
from tests.interop.conftest import Server
from tests.interop.mesh import NODE_PEER, InteropMesh, built, installed, run

GO_TRIALS = ("get", "head", "echo", "8 MiB", "trailers", "a thousand at once", "cancellation")
NODE_TRIALS = (
    *("get", "head", "echo", "8 MiB", "trailers", "large and binary fields", "a thousand at once"),
    *("cancellation", "ping"),
)
BODY = bytes(range(256)) * 4096
"""1 MiB."""


@pytest.fixture(params=["http", "http2"])
def go_server(mesh: InteropMesh, go_http: Server, request: pytest.FixtureRequest) -> str:
    """The address and port of Go's server behind the mesh, which speaks this protocol to it."""
    address, port = mesh.serve(go_http.port, request.param)
    return f"{address}:{port}"


@pytest.fixture
def body(tmp_path: Path) -> str:
    """A file to send."""
    path = tmp_path / "body"
    path.write_bytes(BODY)
    return str(path)


@pytest.mark.parametrize("protocol", ["http", "http2"])
@pytest.mark.parametrize("server", ["go", "node"])
@pytest.mark.parametrize("client", ["go", "node"])
def test_libraries(
    mesh: InteropMesh,
    go_http: Server,
    node_server: Callable[[str], Server],
    client: str,
    server: str,
    protocol: str,
) -> None:
    """Client and server of Go and of Node; the mesh speaks either protocol to the server."""
    address, port = mesh.serve((go_http if server == "go" else node_server(protocol)).port, protocol)
    command: tuple[str, ...] = (built("h2peer"), "call-http")
    if client == "node":
        command = (installed("node", "nodejs"), NODE_PEER, "call")
    said = run(*command, f"{address}:{port}", check=False)
    trials = GO_TRIALS if client == "go" else NODE_TRIALS
    assert said.stdout.splitlines() == [f"ok {name}" for name in trials], said.stdout + said.stderr
    until(lambda: mesh.at_rest(address))


def test_curl_by_prior_knowledge(go_server: str, body: str, tmp_path: Path) -> None:
    curl = installed("curl", "curl")
    out = tmp_path / "out"
    write = "%{http_version} %{response_code}"
    asked = (curl, "--silent", "--show-error", "--http2-prior-knowledge", "--write-out", write)
    assert run(*asked, f"http://{go_server}/a").stdout == "hello /a\n2 200"
    posted = run(*asked, "--output", str(out), "--data-binary", f"@{body}", f"http://{go_server}/")
    assert posted.stdout == "2 200"
    assert out.read_bytes() == BODY


def test_curl_asks_for_an_upgrade(go_server: str, body: str, tmp_path: Path) -> None:
    """`Upgrade: h2c` is obsolete (RFC 9113 section 3.1) and passed over: the answer is HTTP/1.1."""
    curl = installed("curl", "curl")
    out = tmp_path / "out"
    asked = (curl, "--silent", "--show-error", "--http2", "--write-out", "%{http_version} %{response_code}")
    assert run(*asked, f"http://{go_server}/a").stdout == "hello /a\n1.1 200"
    posted = run(*asked, "--output", str(out), "--data-binary", f"@{body}", f"http://{go_server}/")
    assert posted.stdout == "1.1 200"
    assert out.read_bytes() == BODY


def test_nghttp(go_server: str, body: str) -> None:
    nghttp = installed("nghttp", "nghttp2-client")
    url = f"http://{go_server}"
    asked = ("--verbose", "--padding=200", "--header", "te: trailers", "--data", body, "--trailer", "x-a: b")
    said = run(nghttp, *asked, url).stdout
    assert re.search(r":status: 200$", said, re.MULTILINE)
    assert re.search(r"x-size: 1048576$", said, re.MULTILINE)
    many = run(nghttp, "--null-out", "--stat", "--multiply=50", "--window-bits=10", f"{url}/a").stdout
    assert len(re.findall(r"^ *\d+ .* 200 +\d+ /a$", many, re.MULTILINE)) == 50, many


@pytest.mark.parametrize("streams", ["1", "100"])
def test_h2load(mesh: InteropMesh, go_server: str, body: str, streams: str) -> None:
    h2load = installed("h2load", "nghttp2-client")
    url = f"http://{go_server}/a"
    said = run(h2load, "--requests=2000", "--clients=4", f"--max-concurrent-streams={streams}", url).stdout
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in said
    assert "2000 2xx" in said
    posted = run(h2load, "--requests=20", f"--max-concurrent-streams={streams}", "--data", body, url).stdout
    assert "20 succeeded, 0 failed, 0 errored, 0 timeout" in posted
    until(lambda: mesh.at_rest(go_server.partition(":")[0]))
