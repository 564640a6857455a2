"""Events as `kubectl describe service` finds them, on a real API server, with the role of the manifests."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.kit.waiting import until
from hack.kube.control_plane import ControlPlane
from tests.agent.harness import Agent
from tests.kube.objects import namespace, service

pytestmark = pytest.mark.kube

BASE = Path(__file__).parents[2] / "manifests" / "base"


def web(attempts: str) -> dict[str, Any]:
    annotations: dict[str, Any] = {"svc.mesh/retry-attempts": attempts}
    return service("web", **annotations)


def described(cluster: ControlPlane, name: str) -> list[dict[str, Any]]:
    """Return the Events that kubectl shows of a Service, by the selector it uses."""
    uid = cluster.admin.get(f"/api/v1/namespaces/shop/services/{name}")["metadata"]["uid"]
    selector = (
        f"involvedObject.name%3D{name},involvedObject.namespace%3Dshop,"
        f"involvedObject.kind%3DService,involvedObject.uid%3D{uid}"
    )
    found = cluster.admin.get(f"/api/v1/namespaces/shop/events?fieldSelector={selector}")
    return sorted(found["items"], key=lambda event: str(event["eventTime"]))


def agents_user(cluster: ControlPlane) -> dict[str, str]:
    """Install the agent's account with the role that the manifests give it; return it for a kubeconfig."""
    for file in ("namespace", "serviceaccount", "clusterrole", "clusterrolebinding"):
        cluster.admin.apply(yaml.safe_load((BASE / f"{file}.yaml").read_text()))
    return {"token": cluster.service_account_token("svcmesh", "svcmesh-agent")}


def test_a_bad_annotation_is_said_once_by_all_agents_and_so_is_its_end(
    cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.admin.apply(namespace("shop"))
    cluster.admin.apply(web("2"))
    monkeypatch.setenv("KUBECONFIG", cluster.write_kubeconfig("agent", agents_user(cluster)))
    (tmp_path / "cluster").mkdir()
    agents = [
        Agent(tmp_path / "cluster", "--source", "kube", "--node-name", name, "--log-level", "debug")
        for name in "abc"
    ]
    try:
        for agent in agents:
            until(agent.ready)
        rounds = (("many", "Warning", "InvalidAnnotation"), ("3", "Normal", "AnnotationMended"))
        for attempts, kind, reason in rounds:
            before = len(described(cluster, "web"))
            cluster.admin.apply(web(attempts))
            since = time.monotonic()
            until(lambda before=before: len(described(cluster, "web")) > before)  # type: ignore[misc]
            print(f"\n{reason}: under kubectl describe after {time.monotonic() - since:.2f} s")
            event = described(cluster, "web")[-1]
            assert (event["type"], event["reason"]) == (kind, reason)
            assert event["reportingComponent"] == "svc.mesh/agent"
        # All write one log: two Events were made, and of each two agents heard that it exists.
        until(lambda: len(agents[0].events("event_known")) == 4)
        assert len(agents[0].events("event_created")) == 2
        assert [event["reason"] for event in described(cluster, "web")] == [
            "InvalidAnnotation",
            "AnnotationMended",
        ]
        first = described(cluster, "web")[0]["message"]
        assert first.startswith("svc.mesh/retry-attempts=many: ")
        assert first.endswith("; now: svc.mesh/retry-attempts=2 stays in force")
        assert not agents[0].events("events_failed")
    finally:
        for agent in agents:
            agent.stop()
