"""The agent over its sources: a Kubernetes API, and a folder that changes a thousand times."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hack.kit.manifests import ENABLED
from hack.kit.ports import free_port
from hack.kit.waiting import until
from tests.agent.harness import Agent, Whoami, endpoints, service
from tests.discovery.kube.fake_api import FakeApi
from tests.discovery.kube.objects import endpoint_slice, pod
from tests.discovery.kube.objects import service as kube_service


@contextmanager
def in_a_thread(api: FakeApi, port: int = 0) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Run a fake API server on a loop of its own; gives a function that acts on it from outside."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(api.start(port), loop).result(10)

    def act(action: Callable[[], object]) -> None:
        async def run() -> None:
            action()

        asyncio.run_coroutine_threadsafe(run(), loop).result(10)

    try:
        yield act
    finally:
        asyncio.run_coroutine_threadsafe(api.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_the_kube_source_leads_to_the_same_mesh(
    tmp_path: Path, start_whoami: Callable[[str], Whoami], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_whoami("from-the-api")
    api = FakeApi()
    shop = kube_service("web", "10.96.7.10")
    shop["spec"]["ports"][0]["port"] = 18080
    slice_ = endpoint_slice("web-1", "web", "127.0.0.1")
    slice_["ports"][0]["port"] = server.port
    (tmp_path / "cluster").mkdir()
    with in_a_thread(api) as act:
        act(lambda: api.put(shop))
        act(lambda: api.put(slice_))
        monkeypatch.setenv("KUBECONFIG", api.write_kubeconfig(tmp_path / "kubeconfig"))
        agent = Agent(tmp_path / "cluster", "--source", "kube")
        try:
            until(agent.ready)
            assert agent.ask()["name"] == "from-the-api"
            act(lambda: api.delete("Service", "shop", "web"))
            until(lambda: agent.resolve("web.shop")[0] == "NXDOMAIN")
            act(lambda: api.put(shop))
            until(lambda: agent.resolve("web.shop")[1])
            assert agent.ask()["name"] == "from-the-api"
        finally:
            assert agent.stop() == 0


def test_a_node_name_that_no_pod_knows_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    (tmp_path / "cluster").mkdir()
    with in_a_thread(api) as act:
        act(lambda: api.put(pod("agent", node="node-1")))
        monkeypatch.setenv("KUBECONFIG", api.write_kubeconfig(tmp_path / "kubeconfig"))
        agents = [
            Agent(tmp_path / "cluster", "--source", "kube", "--node-name", name)
            for name in ("node-1", "node-2")
        ]
        try:
            for agent in agents:
                until(agent.ready)
            # What has to be listed again is synced again.
            act(api.forget_history)
            act(lambda: api.cut_watches("Pod"))
            until(lambda: len(pod_lists(agents[0])) == 4)
            act(lambda: api.put(kube_service("web", "10.96.7.10")))
            for agent in agents:
                until(lambda agent=agent: agent.metric("svcmesh_services ") == 1)  # type: ignore[misc]
            (line,) = agents[0].events("node_without_pods")  # of both: they share a log
            assert (line["level"], line["node"]) == ("warning", "node-2")
            assert "--node-name" in line["reason"]
        finally:
            assert [agent.stop() for agent in agents] == [0, 0]


def pod_lists(agent: Agent) -> list[int]:
    """Return how many Pods each list of them had."""
    return [line["objects"] for line in agent.events("source_listed") if line["resource"] == "Pod"]


def test_a_burst_of_a_thousand_changes_costs_a_few_plans(agent: Agent) -> None:
    before = len(agent.events("plan_applied"))
    for number in range(1000):
        text = service(f"s{number}", ENABLED).replace(
            "10.96.7.10", f"10.97.{number // 250}.{number % 250 + 1}"
        )
        agent.write(f"s{number}.yaml", text)
    until(lambda: agent.metric("svcmesh_services") == 1001, seconds=60)
    plans = len(agent.events("plan_applied")) - before
    print(f"{plans} plans for 1000 changes")
    assert plans <= 200
    assert agent.ask()["name"] in "ab"


def test_a_rate_limit_holds_for_the_node_whatever_the_number_of_workers(
    tmp_path: Path, start_whoami: Callable[[str], Whoami]
) -> None:
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    limited = {**ENABLED, "svc.mesh/rate-limit": "100/s burst=10"}
    (cluster / "web.yaml").write_text(
        service("web", limited) + endpoints("web", [start_whoami("limited").port])
    )
    agent = Agent(cluster, "--workers", "4")
    try:
        until(agent.ready)
        address = agent.address("web.shop")
        passed, elapsed = flood(address, seconds=4.0)
        print(f"{passed} passed in {elapsed:.2f} s")
        assert passed == pytest.approx(100 * elapsed + 10, rel=0.05)
    finally:
        agent.stop()


def test_a_circuit_breaker_is_the_nodes_whatever_the_number_of_workers(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    protected = {**ENABLED, "svc.mesh/circuit-breaker": "NetworkErrorRatio() > 0.5"}
    (cluster / "web.yaml").write_text(service("web", protected) + endpoints("web", [free_port()]))
    agent = Agent(cluster, "--workers", "4")
    try:
        until(agent.ready)
        agent.address("web.shop")
        until(lambda: "circuit_open" in refusal(agent))
        refusals = [refusal(agent) for _ in range(20)]
        assert [one for one in refusals if "circuit_open" not in one] == [], "by whichever worker"
        assert agent.metric("svcmesh_circuit_breaker_opened_total") == 1
        assert len(agent.events("circuit_breaker_opened")) == 1
    finally:
        agent.stop()


def refusal(agent: Agent) -> str:
    """Ask on a new connection; return how the mesh says that it answered itself."""
    connection = agent.connect()
    connection.request("GET", "/")
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.getheader("Proxy-Status") or ""


def flood(address: str, seconds: float) -> tuple[int, float]:
    """Ask on new connections, which spread over the workers, for a while; return the 200s and the time."""
    passed = 0
    lock = threading.Lock()
    started = time.monotonic()

    def run() -> None:
        nonlocal passed
        while time.monotonic() - started < seconds:
            connection = http.client.HTTPConnection(address, 18080, timeout=10)
            for _ in range(20):
                connection.request("GET", "/")
                response = connection.getresponse()
                response.read()
                if response.status == 200:
                    with lock:
                        passed += 1
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return passed, time.monotonic() - started


def test_a_lost_source_is_seen_and_changes_nothing_else(agent: Agent) -> None:
    """A folder goes away and comes back, as an API server might."""
    assert "source: fresh" in agent.admin("/readyz?verbose")[1]
    away = agent.cluster.rename(agent.cluster.with_name("away"))
    until(lambda: "source: stale since " in agent.admin("/readyz?verbose")[1])
    assert agent.admin("/readyz") == (200, "ready\n")
    assert agent.metric("svcmesh_source_stale ") == 1
    until(lambda: agent.metric("svcmesh_source_stale_seconds ") > 0)
    assert agent.ask()["name"] in "ab"
    away.rename(agent.cluster)
    until(lambda: "source: fresh" in agent.admin("/readyz?verbose")[1])
    assert agent.metric("svcmesh_source_stale_seconds ") == 0
    assert len(agent.events("source_stale")) == 1


def test_services_of_traefik_mesh(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> None:
    """Its annotations and its zones, and a file that is edited while the agent runs."""
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    ports = [start_whoami("traefik").port]
    foreign = {"maesh.containo.us/traffic-type": "http", "mesh.traefik.io/retry-attempts": "2"}
    (cluster / "web.yaml").write_text(service("web", foreign) + endpoints("web", ports))
    (cluster / "other.yaml").write_text(service("other", {}) + endpoints("other", ports))
    agent = Agent(cluster, "--compat", "traefik-mesh")
    try:
        until(agent.ready)
        address = agent.address("web.shop")
        assert agent.address("web.shop", zone="traefik.mesh") == address
        assert agent.address("web.shop", zone="maesh") == address
        assert agent.ask()["name"] == "traefik"
        plan = json.loads(agent.admin("/plan")[1])["services"]
        assert set(plan) == {"shop/web"}
        assert plan["shop/web"]["annotations"]["svc.mesh/retry-attempts"] == "1"
        foreign["mesh.traefik.io/retry-attempts"] = "4"
        (cluster / "web.yaml").write_text(service("web", foreign) + endpoints("web", ports))
        until(lambda: '"svc.mesh/retry-attempts": "3"' in agent.admin("/plan")[1])
    finally:
        agent.stop()


def test_a_bad_annotation_becomes_one_event_of_many_agents_and_another_when_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def web(attempts: str) -> dict[str, Any]:
        return kube_service("web", "10.96.7.10", **{"svc.mesh/retry-attempts": attempts})

    def told() -> list[tuple[str, str]]:
        return [(event["type"], event["reason"]) for event in api.events.values()]

    api = FakeApi()
    (tmp_path / "cluster").mkdir()
    with in_a_thread(api) as act:
        act(lambda: api.put(web("2")))
        monkeypatch.setenv("KUBECONFIG", api.write_kubeconfig(tmp_path / "kubeconfig"))
        agents = [Agent(tmp_path / "cluster", "--source", "kube", "--node-name", name) for name in "ab"]
        try:
            for agent in agents:
                until(agent.ready)
            act(lambda: api.put(web("many")))
            started = time.monotonic()
            until(told)
            print(f"an Event after {time.monotonic() - started:.2f} s")
            until(lambda: api.count("create", "Event") == 2)
            assert told() == [("Warning", "InvalidAnnotation")]
            ((_, event),) = api.events.items()
            assert event["note"].startswith("svc.mesh/retry-attempts=many: ")
            assert event["note"].endswith("now: svc.mesh/retry-attempts=2 stays in force")
            assert event["regarding"]["uid"] == "Service-shop-web"
            act(lambda: api.put(web("3")))
            until(lambda: api.count("create", "Event") == 4)
            assert told() == [("Warning", "InvalidAnnotation"), ("Normal", "AnnotationMended")]
        finally:
            assert [agent.stop() for agent in agents] == [0, 0]
