"""Locality as an owner has it: which zone an agent's node is in, and who is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hack.kit.manifests import ENABLED
from hack.kit.ports import LOCALHOST
from hack.kit.waiting import until
from tests.agent.harness import Agent, service
from tests.agent.test_health_checks import Web

SLICE = """---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-{zone}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{{addresses: [{address}], zone: {zone}, nodeName: node-{zone}}}]
"""


@contextmanager
def in_two_zones(folder: Path, locality: str, *arguments: str) -> Iterator[Agent]:
    """An agent with a Service that has an endpoint in zone a and another in b, each named like its zone."""
    cluster = folder / "cluster"
    cluster.mkdir()
    webs = [Web("a"), Web("b")]
    slices = [SLICE.format(zone=one.name, port=one.port, address=LOCALHOST) for one in webs]
    (cluster / "web.yaml").write_text(
        service("web", {**ENABLED, "svc.mesh/locality": locality}) + "".join(slices)
    )
    agent = Agent(cluster, *arguments)
    try:
        until(agent.ready)
        yield agent
    finally:
        agent.stop()
        for one in webs:
            one.stop()


def names(agent: Agent) -> set[str]:
    return {agent.ask()["name"] for _ in range(8)}


@pytest.mark.parametrize("how", [("--node-zone", "b"), ("--node-name", "node-b")])
@pytest.mark.parametrize("locality", ["prefer", "strict"])
def test_requests_stay_in_the_zone(tmp_path: Path, locality: str, how: tuple[str, str]) -> None:
    with in_two_zones(tmp_path, locality, *how) as agent:
        assert names(agent) == {"b"}
        assert not agent.events("zone_unknown")


def test_nobody_says_the_zone(tmp_path: Path) -> None:
    with in_two_zones(tmp_path, "strict", "--node-name", "other") as agent:
        assert names(agent) == {"a", "b"}
        (line,) = agent.events("zone_unknown")
        assert line["node"] == "other"
