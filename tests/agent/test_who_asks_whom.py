"""Who asks whom, from a client's address to `/metrics` and `/stats`; workers that die included."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hack.kit.manifests import ENABLED, render
from hack.kit.waiting import until
from nodeagent.stats.signals import NodeStats, PortStats, Promise
from tests.agent.harness import HTTP, Agent, Whoami, endpoints, service

WEB, JOB, STRANGER = "127.0.0.9", "127.0.0.10", "127.0.0.11"


def pod(name: str, address: str) -> str:
    return render(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"serviceAccountName": "shop"},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        }
    )


@pytest.fixture
def agent(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> Iterator[Agent]:
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    asked = {**ENABLED, "svc.mesh/objective": "99% 10s"}
    (cluster / "web.yaml").write_text(service("api", asked) + endpoints("api", [start_whoami("a").port]))
    (cluster / "pods.yaml").write_text(pod("web", WEB) + "---\n" + pod("job", JOB))
    agent = Agent(cluster)
    try:
        until(agent.ready)
        yield agent
    finally:
        agent.stop()


def connect(agent: Agent, client: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(
        agent.address("api.shop"), HTTP.port, timeout=20, source_address=(client, 0)
    )


def ask(connection: http.client.HTTPConnection, times: int = 1) -> None:
    for _ in range(times):
        connection.request("GET", "/", headers={"X-Source-Workload": "shop/deployment/liar"})
        connection.getresponse().read()


def series(agent: Agent, name: str) -> dict[str, float]:
    """The samples of a family that are not 0, by source."""
    return {
        f"{sample.labels['source_namespace']}/{sample.labels['source_workload']}": sample.value
        for family in text_string_to_metric_families(agent.admin("/metrics")[1])
        for sample in family.samples
        if sample.name == name and sample.value and sample.labels["service"] == "api"
    }


def stats(agent: Agent, window: str = "1m") -> list[PortStats]:
    text = agent.admin(f"/stats?window={urllib.parse.quote(window)}")[1]
    return msgspec.json.decode(text, type=NodeStats).ports


def test_each_client_is_named_by_its_address(agent: Agent) -> None:
    for client, times in ((WEB, 3), (JOB, 2), (STRANGER, 1)):
        with contextlib.closing(connect(agent, client)) as connection:
            ask(connection, times)
    expected = {"shop/pod/web": 3, "shop/pod/job": 2, "/node": 1}  # the stranger is on this machine
    until(lambda: series(agent, "svcmesh_requests_total") == expected)
    assert series(agent, "svcmesh_request_duration_seconds_count") == expected
    assert series(agent, "svcmesh_connections_total") == dict.fromkeys(expected, 1)


def test_an_objective_counts_all_sources_together_and_stats_tell_it(agent: Agent) -> None:
    def objective() -> dict[str, float]:
        return {
            sample.labels.get("sli", sample.name): sample.value
            for family in text_string_to_metric_families(agent.admin("/metrics")[1])
            for sample in family.samples
            if sample.name in ("svcmesh_objective_requests_total", "svcmesh_objective_bad_requests_total")
        }

    stats(agent)
    assert objective() == {}, "nobody has asked"
    for client, times in ((WEB, 3), (JOB, 2)):
        with contextlib.closing(connect(agent, client)) as connection:
            ask(connection, times)
    expected = {"svcmesh_objective_requests_total": 5.0, "availability": 0.0, "latency": 0.0}
    until(lambda: objective() == expected)
    until(lambda: [port.promise for port in stats(agent)] == [Promise(0.99, 10.0, 0.99)])


def test_a_kept_connection_does_not_count_for_the_next_pod_with_its_address(agent: Agent) -> None:
    with contextlib.closing(connect(agent, WEB)) as connection:
        ask(connection)
        until(lambda: series(agent, "svcmesh_requests_total") == {"shop/pod/web": 1})
        agent.write("pods.yaml", pod("next", WEB) + "---\n" + pod("job", JOB))

        def next_is_known() -> bool:
            with contextlib.closing(connect(agent, WEB)) as fresh:
                ask(fresh)
            return "shop/pod/next" in series(agent, "svcmesh_requests_total")

        until(next_is_known)
        before = series(agent, "svcmesh_requests_total")
        ask(connection)
        assert until(lambda: series(agent, "svcmesh_requests_total") != before)
        after = series(agent, "svcmesh_requests_total")
        assert after == {**before, "/unknown": before.get("/unknown", 0) + 1}


def test_stats_show_what_is_asked_now_and_a_worker_that_dies_takes_nothing_with_it(agent: Agent) -> None:
    assert stats(agent) == [], "the first answer waits for a second, in which there is nothing"
    with contextlib.closing(connect(agent, WEB)) as connection:
        ask(connection, 5)
    (api,) = until(lambda: stats(agent))
    until(lambda: stats(agent)[0].signals.requests == 5)
    (api,) = stats(agent)
    assert (api.namespace, api.service, api.port) == ("shop", "api", HTTP.port)
    assert (api.signals.success, api.signals.classes) == (1.0, {"2xx": 5})
    assert api.signals.p50 is not None
    assert [(one.namespace, one.workload) for one in api.sources] == [("shop", "pod/web")]
    (old,) = agent.workers()
    os.kill(old, signal.SIGKILL)
    until(lambda: agent.workers() not in ([old], []))

    def asked_again() -> bool:
        try:
            with contextlib.closing(connect(agent, WEB)) as connection:
                ask(connection)
        except OSError:  # the new worker does not listen yet
            return False
        return True

    until(asked_again)
    until(lambda: series(agent, "svcmesh_requests_total") == {"shop/pod/web": 6})


def test_stats_of_a_window_that_cannot_be_had(agent: Agent) -> None:
    status, text = agent.admin("/stats?window=1h")[:2]
    assert status == 400
    assert text.startswith("window: ")


def test_every_number_of_stats_is_json(agent: Agent) -> None:
    with contextlib.closing(connect(agent, WEB)) as connection:
        stats(agent)
        ask(connection, 2)
    until(lambda: stats(agent))
    (api,) = json.loads(agent.admin("/stats?window=1m")[1])["ports"]
    assert set(api) == {"namespace", "service", "port", "signals", "sources", "promise"}
    assert api["promise"] == {"available": 0.99, "within": 10.0, "fast": 0.99}
    assert set(api["signals"]) == {
        "requests", "rate", "success", "failed", "p50", "p95", "p99", "durations", "classes", "grpc",
        "mesh_responses", "connections", "received_rate", "sent_rate",
    }  # fmt: skip


def test_the_page_of_a_running_agent(agent: Agent) -> None:
    with contextlib.closing(connect(agent, WEB)) as connection:
        json.loads(agent.admin("/ui/live")[1])
        ask(connection, 2)

        def edges() -> list[dict[str, Any]]:
            shown: list[dict[str, Any]] = json.loads(agent.admin("/ui/live?window=1m")[1])["edges"]
            return shown

        (edge,) = until(edges)
    assert (edge["source"], edge["namespace"], edge["service"]) == ("pod/web", "shop", "api")
    assert agent.admin("/ui/")[1].startswith("<!doctype html>")
