"""A real Prometheus (Debian's) that scrapes an agent every 200 ms, with the rules of the manifests."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from hack.kit.ports import free_port
from hack.kit.waiting import until

SCRAPE = "200ms"


class Sample(msgspec.Struct, frozen=True):
    """One line of an answer: its labels without `__name__`, and its value."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """Its HTTP API."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer; an error of Prometheus fails the test with its words."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def query(self, expr: str) -> list[Sample]:
        """Return the instant vector that the expression gives now."""
        data = self.get("query", query=expr)
        assert data["resultType"] == "vector", expr
        return [Sample(one["metric"], float(one["value"][1])) for one in data["result"]]

    def ready(self) -> bool:
        """Return whether it answers queries."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@contextmanager
def prometheus(folder: Path, admin_port: int, rules: Path, *features: str) -> Iterator[Prometheus]:
    """Run it until the end of the block. The target has the labels that docs/install.md gives it; `features`
    are those of `--enable-feature`.

    Groups of rules that ask for an interval of minutes are evaluated as often as the others.
    """
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not there (Debian: prometheus)")
    target = {
        "targets": [f"127.0.0.1:{admin_port}"],
        "labels": {"node": "n1", "pod": "agent-1"},
    }
    job = {"job_name": "svcmesh-agent", "honor_labels": True, "static_configs": [target]}
    config = {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE},
        "scrape_configs": [job],
        "rule_files": ["rules.yaml"],
    }
    groups = yaml.safe_load(rules.read_text())
    for group in groups["groups"]:
        group.pop("interval", None)
    (folder / "rules.yaml").write_text(yaml.safe_dump(groups))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
                *(f"--enable-feature={feature}" for feature in features),
            ],
            stderr=log,
            stdout=log,
        )
    try:
        server = Prometheus(port)
        until(server.ready)
        yield server
    finally:
        process.kill()
        process.wait()
