"""How many Services there are: every page, line, metric and command says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from discovery.kube.commands.agents import AgentPages, AgentPod, Page
from hack.kit.manifests import ENABLED, render
from hack.kit.waiting import until
from nodeagent.meshctl.main import main
from nodeagent.meshctl.status import read_status
from tests.agent.harness import Agent

MESHED, LEFT_OUT, WITH_PROBLEMS = 5, 4, 5


def one(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "shop"}
    metadata["annotations"] = {**ENABLED, **(annotations or {})}
    ports = [{"name": "http", "port": 18080}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports, **spec}}


def cluster() -> str:
    """Return Services of every kind, good and bad."""
    return render(
        one("good", clusterIP="10.96.7.10"),
        one("also-good", clusterIP="10.96.7.11"),
        one("no-cluster-ip"),
        one("headless", clusterIP="None"),
        one("bad-annotation", {"svc.mesh/retry-attempts": "many"}, clusterIP="10.96.7.12"),
        # Left out, with a problem each:
        one("same-address", clusterIP="10.96.7.10"),
        one("external", type="ExternalName", externalName="example.com"),
        one("no-ports", clusterIP="10.96.7.13", ports=[]),
        one("maybe", {"svc.mesh/enabled": "maybe"}, clusterIP="10.96.7.14"),
        # They do not ask, and are not counted:
        one("elsewhere", {"svc.mesh/enabled": "false"}, clusterIP="10.96.7.15"),
        one(
            "bad-and-elsewhere",
            {"svc.mesh/enabled": "false", "svc.mesh/timeout": "x"},
            clusterIP="10.96.7.16",
        ),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "all.yaml").write_text(cluster())
    return folder


def test_all_say_the_same(folder: Path) -> None:
    agent = Agent(folder)
    try:
        until(agent.ready)
        counts = {"services": MESHED, "left_out": LEFT_OUT, "with_problems": WITH_PROBLEMS}
        found = {"services": agent.metric("svcmesh_services ")}
        found |= {name: agent.metric(f"svcmesh_services_{name} ") for name in ("left_out", "with_problems")}
        assert found == counts, "/metrics"
        for event in ("agent_ready", "plan_applied"):
            line = agent.events(event)[-1]
            assert {name: line[name] for name in counts} == counts, event
        text = agent.admin("/readyz?verbose")[1]
        said = f"{MESHED} Services in the mesh, {LEFT_OUT} left out, {WITH_PROBLEMS} with problems"
        assert said in text, "/readyz?verbose"
        pages = (Page(*agent.admin(path)) for path in ("/readyz?verbose", "/metrics"))
        status = read_status(AgentPages(AgentPod("agent", "node", "Running", leaving=False), *pages))
        assert status.services == MESHED, "meshctl status"
    finally:
        agent.stop()
    output = CliRunner().invoke(main, ["check", str(folder), "--format", "json"]).stdout
    report = msgspec.json.decode(output)
    checked = {name: report[key] for name, key in zip(counts, ("meshed", *list(counts)[1:]), strict=True)}
    assert checked == counts, "meshctl check"
    text = CliRunner().invoke(main, ["check", str(folder)]).stdout
    assert f"11 Services checked, {MESHED} in the mesh, {LEFT_OUT} left out, " in text.splitlines()[-1]
