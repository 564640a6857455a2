"""HTTP/1.1 in the report, and the peers that are set up like the mesh."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hack.bench.__main__ import TITLES
from hack.bench.figures import (
    AGENT,
    EVERYTHING,
    RESILIENT,
    RESILIENT_ENVOY,
    TAPPED,
    Sample,
    targets,
)
from hack.bench.http_cases import HTTP_CASES, LATENCY_CASES, TCP_CASES
from hack.bench.idle_case import HTTP1_CASE
from hack.bench.load import HttpLoader
from hack.bench.peers import envoy_config
from hack.bench.report import COLUMNS
from hack.bench.traefik import ROUTES, traefik_config

PORTS = {"http_port": 1, "tcp_port": 2, "backend": 3}


@pytest.mark.parametrize(
    "case", [*(case.name for case in (*HTTP_CASES, *LATENCY_CASES, *TCP_CASES)), HTTP1_CASE]
)
def test_each_case_is_in_the_report(case: str) -> None:
    assert case in TITLES
    assert case in COLUMNS


def test_the_mesh_with_everything_on_is_compared_with_envoy_with_everything_on() -> None:
    costs = {AGENT: 10.0, RESILIENT: 15.0, "envoy": 40.0, RESILIENT_ENVOY: 30.0}
    samples = [Sample("small", peer, 0, {"cpu_us_per_request": cost}) for peer, cost in costs.items()]
    found = {target.name: target.value for target in targets(samples)}
    assert found[f"CPU per request: {RESILIENT} / {RESILIENT_ENVOY}"] == 0.5
    assert found[f"CPU per request, small: {AGENT} / envoy"] == 0.25


@pytest.mark.parametrize("resilient", [True, False])
def test_envoy_has_what_the_mesh_has(resilient: bool) -> None:
    read = yaml.safe_load(envoy_config(PORTS, [("127.0.0.1", 3)], "ROUND_ROBIN", resilient))
    resources = read["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    route = manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    (cluster,) = resources["clusters"]
    assert ({"retry_policy", "timeout"} <= route.keys()) is resilient
    assert ({"circuit_breakers", "outlier_detection"} <= cluster.keys()) is resilient


def test_traefik_sends_both_ports_to_the_backend() -> None:
    static, routes = (yaml.safe_load(text) for text in traefik_config(PORTS, Path("/folder")))
    assert static["entryPoints"]["http"]["address"] == "127.0.0.1:1"
    assert static["providers"]["file"]["filename"] == f"/folder/{ROUTES}"
    http, tcp = (routes[kind]["services"]["backend"]["loadBalancer"]["servers"] for kind in ("http", "tcp"))
    assert http == [{"url": "http://127.0.0.1:3"}]
    assert tcp == [{"address": "127.0.0.1:3"}]


def test_only_traced_requests_are_made_by_a_script(tmp_path: Path) -> None:
    loader = HttpLoader(tmp_path, 0)
    scripts = {
        traced: Path(loader.command("URL", 1, 1, (), traced)[-2]).read_text() for traced in (False, True)
    }
    assert "traceparent" not in scripts[False]
    assert "traceparent" in scripts[True]
    assert all("requests" in script for script in scripts.values())


def test_what_watching_adds_is_told_beside_the_bare_agent() -> None:
    costs = {AGENT: 20.0, EVERYTHING: 25.0, TAPPED: 20.5}
    samples = [Sample("observed", peer, 0, {"cpu_us_per_request": cost}) for peer, cost in costs.items()]
    found = {
        target.name: (target.value, target.reached) for target in targets(samples) if target.value is not None
    }
    assert found == {
        f"CPU per request, {EVERYTHING} / bare": (1.25, False),
        f"CPU per request, {TAPPED} / bare": (1.025, True),
    }
