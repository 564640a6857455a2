"""The OpenTelemetry Collector, as `make otelcol` builds it: what it takes it passes on to the test."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from hack.kit.ports import free_ports
from hack.kit.waiting import until

BIN = Path(os.environ.get("SVCMESH_TOOLS", "") or Path.home() / ".cache" / "svcmesh" / "bin")


class Otelcol(msgspec.Struct, frozen=True):
    """The ports of one that runs."""

    grpc: int
    http: int


def _config(ports: Otelcol, backend: int, certificate: tuple[Path, Path] | None) -> dict[str, object]:
    tls = {}
    if certificate is not None:
        tls["tls"] = {"cert_file": str(certificate[0]), "key_file": str(certificate[1])}
    return {
        "receivers": {
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": f"127.0.0.1:{ports.grpc}", **tls},
                    "http": {"endpoint": f"127.0.0.1:{ports.http}", **tls},
                }
            }
        },
        "exporters": {
            "otlp_http": {
                "endpoint": f"http://127.0.0.1:{backend}",
                "compression": "none",
                # What the server answers is what the agent gets.
                "sending_queue": {"enabled": False},
                "retry_on_failure": {"enabled": False},
            }
        },
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_http"]}},
        },
    }


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def otelcol(folder: Path, backend: int, certificate: tuple[Path, Path] | None = None) -> Iterator[Otelcol]:
    """Run one until the end, with TLS if it is given a certificate and its key."""
    program = BIN / "otelcol"
    if not program.is_file():
        pytest.skip(f"{program} is not there: `make otelcol` builds it (needs Go)")
    ports = Otelcol(*free_ports(2))
    config = folder / "otelcol.yaml"  # JSON is YAML
    config.write_bytes(msgspec.json.encode(_config(ports, backend, certificate)))
    log = folder / "otelcol.log"
    with log.open("wb") as out:
        process = subprocess.Popen([program, "--config", config], stdout=out, stderr=subprocess.STDOUT)
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return _listens(ports.grpc) and _listens(ports.http)

        until(ready)
        yield ports
    finally:
        process.kill()
        process.wait(20)
