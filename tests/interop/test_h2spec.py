"""h2spec, every case in strict mode, before endpoints of HTTP/1 and of HTTP/2.

Their answers have bodies: before an endpoint that answers without, h2spec skips cases of flow control.
"""

from __future__ import annotations

import socket
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from hack.kit.waiting import until
from tests.interop.conftest import Server
from tests.interop.mesh import InteropMesh, built, run

CASES = 146
PREFACE = "http2/3.5 Sends invalid connection preface"
EXCEPTIONS = {
    # Every http port speaks HTTP/1.1 too, also that of `svc.mesh/protocol: http2` (docs/annotations.md: this
    # says what endpoints are spoken to in). What does not begin as HTTP/2 does is read as HTTP/1.1, and
    # `INVALID CONNECTION PREFACE` is no request of it: 400, and the end of the connection. RFC 9113 section
    # 3.4 asks for the end of the connection; h2spec takes no bytes before it but a GOAWAY.
    PREFACE: "note that the frame header looked like an HTTP/1.1 header",
}
"""Cases that do not pass, why, and how they end. One that passes nevertheless is a failure."""


def outcomes(report: Path) -> dict[str, str]:
    """Return what became of each case: `ok`, `skipped`, or what was wrong."""
    found: dict[str, str] = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        name = f"{case.get('package')} {case.get('classname')}"
        assert name not in found, name
        wrong = [*case.findall("failure"), *case.findall("error")]
        what = "ok" if case.find("skipped") is None else "skipped"
        found[name] = " ".join("".join(one.itertext()) for one in wrong) or what
    return found


@pytest.mark.parametrize("protocol", ["http", "http2"])
def test_every_case(mesh: InteropMesh, go_http: Server, tmp_path: Path, protocol: str) -> None:
    address, port = mesh.serve(go_http.port, protocol)
    report = tmp_path / "h2spec.xml"
    where = ("--host", address, "--port", str(port), "--timeout", "10")
    run(built("h2spec"), "--strict", "--junit-report", str(report), *where, seconds=110, check=False)
    found = outcomes(report)
    assert len(found) == CASES, found
    awry = {name: what for name, what in found.items() if what != "ok"}
    assert awry.keys() == EXCEPTIONS.keys(), awry
    for name, ending in EXCEPTIONS.items():
        assert ending in awry[name]
    until(lambda: mesh.at_rest(address))


def test_what_is_neither_protocol_is_answered_and_closed(mesh: InteropMesh, go_http: Server) -> None:
    """The exception above, seen from outside."""
    with socket.create_connection(mesh.serve(go_http.port, "http2"), 10) as connection:
        connection.sendall(b"INVALID CONNECTION PREFACE\r\n\r\n")
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1") == 1
