"""From requests to more pods: agent, Prometheus, prometheus-adapter, API server and HPA, all real."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import yaml

from hack.kit.manifests import ENABLED
from hack.kit.waiting import until
from hack.kube.client import Client
from hack.kube.control_plane import CONTROLLERS, ControlPlane
from hack.manifests import rules
from tests.agent.harness import Agent, Whoami, endpoints, load, service
from tests.agent.prometheus import Prometheus, prometheus
from tests.kube.aggregation import API, adapter, flags
from tests.kube.objects import namespace, pod
from tests.manifests.autoscaling import FOLDER, adapter_queries
from tests.manifests.tools import tool

pytestmark = pytest.mark.kube

OF_WEB = f"{API}/namespaces/shop/services/web"
DEPLOYMENT = "/apis/apps/v1/namespaces/shop/deployments/web"
HPA = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web"
PODS = 2
SLOW = {"svc.mesh/fault": "delay 20ms 100%"}
"""The adapter counts in thousandths: what takes less than a millisecond takes 0."""


class Watched(NamedTuple):
    admin: Client
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A Service under traffic, a Prometheus that scrapes its agent, an API server that shows its figures."""
    tool("prometheus-adapter", "autoscaling-tools")
    folder = tmp_path_factory.mktemp("autoscaling")
    files = folder / "cluster"
    files.mkdir()
    whoami = Whoami("a")
    (files / "web.yaml").write_text(service("web", {**ENABLED, **SLOW}) + endpoints("web", [whoami.port]))
    agent = Agent(files)
    controllers = (*CONTROLLERS, "horizontal-pod-autoscaler-controller")
    try:
        until(agent.ready)
        with (
            ControlPlane(controllers=controllers, apiserver_flags=flags(folder)) as cluster,
            prometheus(folder, agent.admin_port, rules.RULES) as server,
            load(agent, 2),
            adapter(cluster, f"http://127.0.0.1:{server.port}", folder),
        ):
            yield Watched(cluster.admin, server)
    finally:
        agent.stop()
        whoami.process.kill()
        whoami.process.wait()


def figure(admin: Client, metric: str, path: str = OF_WEB) -> float:
    """Return what the API server says of a metric, 0 if it does not know it yet."""
    status, _ = admin.raw("GET", f"{path}/{metric}")
    if status != 200:
        return 0.0
    (item,) = admin.get(f"{path}/{metric}")["items"]
    assert item["describedObject"]["kind"] == "Service"
    assert item["describedObject"]["name"] == "web"
    return quantity(item["value"])


def quantity(text: str) -> float:
    """Return the number that a quantity of Kubernetes is."""
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "u": 1e-6, "n": 1e-9}
    return float(text[:-1]) * units[text[-1]] if text[-1] in units else float(text)


@pytest.mark.parametrize("metric", adapter_queries())
def test_the_api_server_shows_the_figure_that_prometheus_has(watched: Watched, metric: str) -> None:
    def both() -> tuple[float, float]:
        (sample,) = until(lambda: watched.prometheus.query(adapter_queries()[metric]))
        return sample.value, until(lambda: figure(watched.admin, metric))

    # Both change with every scrape.
    until(lambda: both()[1] == pytest.approx(both()[0], rel=0.2), seconds=60)


def test_the_metrics_belong_to_services_and_no_others_are_made(watched: Watched) -> None:
    def names() -> set[str]:
        return {one["name"] for one in watched.admin.get(API)["resources"]}

    expected = {f"{kind}/{metric}" for kind in ("services", "namespaces") for metric in adapter_queries()}
    assert until(lambda: names() == expected and names())
    assert (
        watched.admin.raw("GET", f"{API}/namespaces/shop/services/nobody/mesh_requests_per_second")[0] == 404
    )


def test_an_hpa_adds_pods_by_the_requests(watched: Watched) -> None:
    """The HPA is that of the manifests, with a target that any traffic passes."""
    admin = watched.admin
    admin.apply(namespace("shop"))
    until(lambda: admin.raw("GET", "/api/v1/namespaces/shop/serviceaccounts/default")[0] == 200)
    _deploy(admin)
    hpa = yaml.safe_load((FOLDER / "hpa.yaml").read_text())
    by_requests, _ = hpa["spec"]["metrics"]
    by_requests["object"]["target"]["averageValue"] = "1"
    admin.apply(hpa)
    until(lambda: admin.get(DEPLOYMENT)["spec"]["replicas"] > PODS, seconds=90)

    def read() -> dict[str, Any]:
        status: dict[str, Any] = admin.get(HPA)["status"]
        return status if len(status.get("currentMetrics") or ()) == len(hpa["spec"]["metrics"]) else {}

    status = until(read, seconds=60)
    shown = {one["object"]["metric"]["name"]: one["object"]["current"] for one in status["currentMetrics"]}
    assert set(shown) == set(adapter_queries())
    assert quantity(shown["mesh_requests_per_second"]["averageValue"]) > 1
    assert quantity(shown["mesh_request_duration_p95_seconds"]["value"]) > 0.02
    active = {one["type"]: one["status"] for one in status["conditions"]}
    assert active["ScalingActive"] == "True", status


def _deploy(admin: Client) -> None:
    """Make the Deployment and its Pods as they are when all is well: no controller and no node makes them."""
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": pod("any")["spec"]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"replicas": PODS, "selector": {"matchLabels": labels}, "template": template},
    }
    admin.create(deployment)
    admin.request("PATCH", f"{DEPLOYMENT}/status", {"status": {"replicas": PODS}})
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    for number in range(PODS):
        one = pod(f"web-{number}", **labels)
        admin.create(one)
        admin.request("PATCH", f"/api/v1/namespaces/shop/pods/web-{number}/status", {"status": ready})
