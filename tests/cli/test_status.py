"""`meshctl status`: agents that are fine, stale, not ready, leaving, silent, strange or not there at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from discovery.kube.commands.agents import PAGE_BYTES, AgentPages, AgentPod, Page
from discovery.kube.commands.waiting import why_not_running
from nodeagent.meshctl.admin_port import ADMIN_LISTEN, admin_port
from nodeagent.meshctl.main import main
from nodeagent.meshctl.status import GOOD, read_numbers, read_status, show_age
from tests.discovery.kube.fake_api import FakeApi, answer, cut_after, raw, status

METRICS = """\
# HELP svcmesh_build_info Which agent this is; always 1.
# TYPE svcmesh_build_info gauge
svcmesh_build_info{{version="0.1.0",node="node-1"}} 1.0
# TYPE svcmesh_plan_version gauge
svcmesh_plan_version 7.0
# TYPE svcmesh_plan_age_seconds gauge
svcmesh_plan_age_seconds 300.5
# TYPE svcmesh_services gauge
svcmesh_services 12.0
# TYPE svcmesh_problems gauge
svcmesh_problems 1.0
# TYPE svcmesh_source_stale_seconds gauge
svcmesh_source_stale_seconds {stale}
# TYPE svcmesh_workers gauge
svcmesh_workers 2.0
"""
READY = "[+] source\n[+] plan\nsource: fresh, last listed 2026-01-01T00:00:00Z\nready\n"
STALE = "[+] source\n[+] plan\nsource: stale since 2026-01-01T00:00:00Z (42s): connection refused\nready\n"
NOT_READY = "[+] dns\n[-] source\n[-] plan\nsource: waiting for the first list\nnot ready\n"


def put_agent(api: FakeApi, name: str, node: str, **parts: Any) -> None:
    api.put(
        {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "namespace": parts.get("namespace", "svcmesh"),
                "name": name,
                "labels": {"app.kubernetes.io/name": "svcmesh"},
                **parts.get("metadata", {}),
            },
            "spec": {"nodeName": node, **parts.get("spec", {})},
            "status": {"phase": parts.get("phase", "Running"), **parts.get("status", {})},
        }
    )


def put_pages(api: FakeApi, name: str, readyz: str = READY, code: int = 200, stale: float = 0.0) -> None:
    metrics = METRICS.format(stale=stale)
    api.pages[f"{name}:15000", "readyz"] = raw(code, readyz.encode(), "text/plain")
    api.pages[f"{name}:15000", "metrics"] = raw(200, metrics.encode(), "text/plain")


def meshctl(api: FakeApi, tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    result = CliRunner().invoke(main, ["status", "--kubeconfig", kubeconfig, *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_all_in_order(api: FakeApi, tmp_path: Path) -> None:
    for number in (2, 1):
        put_agent(api, f"svcmesh-agent-{number}", f"node-{number}")
        put_pages(api, f"svcmesh-agent-{number}")
    put_agent(api, "somebody", "node-3", metadata={"labels": {}})
    put_agent(api, "other", "node-3", namespace="shop", metadata={"labels": {}})
    assert meshctl(api, tmp_path) == (
        0,
        (
            "NODE    NAMESPACE  AGENT            STATE  VERSION  PLAN  CHANGED  SERVICES  PROBLEMS  WORKERS\n"
            "node-1  svcmesh    svcmesh-agent-1  ready  0.1.0    7     5m ago   12        1         2\n"
            "node-2  svcmesh    svcmesh-agent-2  ready  0.1.0    7     5m ago   12        1         2\n"
            "2 of 2 agents in order\n"
        ),
        "",
    )


def test_each_state(api: FakeApi, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        put_agent(api, name, f"node-{name}")
    put_pages(api, "a")
    put_pages(api, "b", STALE, stale=42.0)
    put_pages(api, "c", NOT_READY, code=503)
    api.pages["e:15000", "readyz"] = raw(200, b"<html>", "text/html")
    api.pages["e:15000", "metrics"] = raw(404, b"<html>", "text/html")
    put_agent(api, "f", "node-f", phase="Pending")
    put_agent(api, "g", "node-g", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z", "labels": LABELS})
    code, output, _ = meshctl(api, tmp_path, "--format", "json")
    document = json.loads(output)
    agents = document["agents"]
    assert code == 1
    assert (document["total"], document["good"]) == (7, 2)
    assert [(agent["pod"], agent["state"]) for agent in agents] == [
        ("a", "ready"),
        ("b", "stale"),
        ("c", "not ready"),
        ("d", "unreachable"),
        ("e", "unreachable"),
        ("f", "not running"),
        ("g", "leaving"),
    ]
    assert agents[1]["reason"] == "stale since 2026-01-01T00:00:00Z (42s): connection refused"
    assert agents[1]["stale"] == 42.0
    assert agents[2]["reason"] == "waits for source, plan"
    assert agents[2]["services"] == 12
    assert "connection refused" in agents[3]["reason"]
    assert agents[3]["plan_version"] is None
    assert "no svc.mesh agent answers there" in agents[4]["reason"]
    assert agents[5]["reason"] == "the pod is Pending"
    code, output, _ = meshctl(api, tmp_path)
    assert code == 1
    assert "\nnode-c (c): not ready: waits for source, plan\n" in output
    assert output.endswith("\n2 of 7 agents in order\n")


LABELS = {"app.kubernetes.io/name": "svcmesh"}


def test_a_connection_that_is_cut_and_no_permission(api: FakeApi, tmp_path: Path) -> None:
    for name in ("a", "b"):
        put_agent(api, name, f"node-{name}")
        put_pages(api, name)
    api.pages["a:15000", "metrics"] = cut_after(b"# HELP")
    api.pages["b:15000", "readyz"] = answer(403, status(403, "Forbidden", "pods/proxy is forbidden"))
    code, output, _ = meshctl(api, tmp_path)
    assert code == 1
    assert "node-b (b): unreachable: port forwarding to svcmesh/b: status 404; by the pod proxy: " in output
    assert "pods/proxy is forbidden\n" in output
    assert "node-a (a): unreachable: " in output


PULL = 'rpc error: code = NotFound desc = failed to pull "registry.example/svcmesh-agent:0.1.0"'


def container(state: dict[str, Any], last: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "agent", "state": state, "lastState": last or {}}]}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            {"phase": "Pending", **container({"waiting": {"reason": "ErrImagePull", "message": PULL}})},
            f"ErrImagePull: {PULL}",
        ),
        (
            {
                "phase": "Pending",
                **container({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}),
            },
            "ImagePullBackOff: Back-off",
        ),
        (
            {
                "phase": "Running",
                **container(
                    {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting"}},
                    {"terminated": {"exitCode": 1, "reason": "Error", "message": "no NET_ADMIN"}},
                ),
            },
            "CrashLoopBackOff: back-off 40s restarting (last exit code 1, Error: no NET_ADMIN)",
        ),
        (
            {"phase": "Running", **container({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})},
            "its container has ended: (last exit code 137, OOMKilled)",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available: 3 Insufficient memory.",
                    }
                ],
            },
            "no node for it: 0/3 nodes are available: 3 Insufficient memory.",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "Evicted: low on memory"),
        ({"phase": "Pending", **container({"waiting": {"reason": "ContainerCreating"}})}, ""),
        ({"phase": "Running", **container({"running": {}})}, ""),
        ({"phase": "Running", **container({"terminated": {"exitCode": 0}})}, ""),
        ({"phase": "Pending", "conditions": 7, "containerStatuses": ["x", {"state": 3}]}, ""),
        ({}, ""),
    ],
)
def test_why_a_pod_does_not_run(status: dict[str, Any], reason: str) -> None:
    assert why_not_running({"status": status}) == reason


def test_a_reason_is_cut() -> None:
    long = container({"waiting": {"reason": "ErrImagePull", "message": "x" * 10_000}})
    assert len(why_not_running({"status": long})) < 500


def test_an_image_that_cannot_be_pulled_is_said(api: FakeApi, tmp_path: Path) -> None:
    waiting = container({"waiting": {"reason": "ErrImagePull", "message": PULL}})
    put_agent(api, "a", "node-a", phase="Pending", status=waiting)
    code, output, _ = meshctl(api, tmp_path)
    assert code == 1
    assert f"node-a (a): not running: ErrImagePull: {PULL}\n" in output


def daemonsets(api: FakeApi, **numbers: int) -> None:
    metadata = {"name": "svcmesh-agent", "namespace": "svcmesh", "uid": "1"}
    path = "/apis/apps/v1/daemonsets"
    api.answers[path] = answer(200, {"items": [{"metadata": metadata, "status": numbers}]})


REFUSED = 'Error creating: pods "svcmesh-agent-x" is forbidden: violates PodSecurity "baseline:latest"'


def test_pods_that_are_refused_are_missing_with_the_reason(api: FakeApi, tmp_path: Path) -> None:
    put_agent(api, "a", "node-a")
    put_pages(api, "a")
    daemonsets(api, desiredNumberScheduled=3, currentNumberScheduled=1, numberReady=1)
    code, output, _ = meshctl(api, tmp_path)
    assert code == 1
    assert output.splitlines()[-1] == "2 of 3 pods of svcmesh/svcmesh-agent do not exist"
    events = [
        {"lastTimestamp": "2026-01-01T00:00:00Z", "message": "an older one"},
        {"lastTimestamp": "2026-01-02T00:00:00Z", "message": REFUSED},
        {"lastTimestamp": None, "eventTime": None, "message": "without a time"},
    ]
    api.answers["/api/v1/namespaces/svcmesh/events"] = answer(200, {"items": events})
    output = meshctl(api, tmp_path)[1]
    assert output.splitlines()[-1] == f"2 of 3 pods of svcmesh/svcmesh-agent do not exist: {REFUSED}"
    code, output, _ = meshctl(api, tmp_path, "-o", "json")
    assert code == 1
    assert json.loads(output)["missing"] == [
        {"namespace": "svcmesh", "daemonset": "svcmesh-agent", "wanted": 3, "missing": 2, "reason": REFUSED}
    ]
    daemonsets(api, desiredNumberScheduled=1, currentNumberScheduled=1, numberReady=1)
    assert meshctl(api, tmp_path)[0] == 0


def test_whoever_may_not_see_daemonsets_sees_the_agents(api: FakeApi, tmp_path: Path) -> None:
    put_agent(api, "a", "node-a")
    put_pages(api, "a")
    forbidden = answer(403, status(403, "Forbidden", "not for you"))
    api.answers["/apis/apps/v1/daemonsets"] = forbidden
    assert meshctl(api, tmp_path)[0] == 0


def test_no_agents(api: FakeApi, tmp_path: Path) -> None:
    code, output, errors = meshctl(api, tmp_path)
    assert (code, output) == (1, "")
    assert errors == "no agents: no pod in any namespace matches app.kubernetes.io/name=svcmesh\n"
    errors = meshctl(api, tmp_path, "-n", "mesh")[2]
    assert errors == "no agents: no pod in namespace mesh matches app.kubernetes.io/name=svcmesh\n"
    code, output, _ = meshctl(api, tmp_path, "--format", "json")
    assert (code, json.loads(output)) == (1, {"missing": [], "agents": [], "total": 0, "good": 0})


def test_another_selector_and_port(api: FakeApi, tmp_path: Path) -> None:
    put_agent(api, "a", "node-a", namespace="mesh", metadata={"labels": {"app": "agent"}})
    put_pages(api, "a")
    for page in ("readyz", "metrics"):
        api.pages["a:16000", page] = api.pages.pop(("a:15000", page))
    arguments = ("-n", "mesh", "--selector", "app=agent", "--port", "16000")
    assert meshctl(api, tmp_path, *arguments)[0] == 0


def test_agents_are_found_in_whatever_namespace(api: FakeApi, tmp_path: Path) -> None:
    for name, home in (("a", "mesh"), ("b", "other")):
        put_agent(api, name, f"node-{name}", namespace=home)
        put_pages(api, name)
    code, output, _ = meshctl(api, tmp_path, "--format", "json")
    agents = json.loads(output)["agents"]
    assert (code, [(one["namespace"], one["pod"]) for one in agents]) == (0, [("mesh", "a"), ("other", "b")])
    code, output, _ = meshctl(api, tmp_path, "--format", "json", "--namespace", "other")
    assert (code, [one["pod"] for one in json.loads(output)["agents"]]) == (0, ["b"])


def test_an_agent_is_asked_at_the_port_of_its_own_setting(api: FakeApi, tmp_path: Path) -> None:
    env = [{"name": "HOST_IP", "valueFrom": {}}, {"name": ADMIN_LISTEN, "value": "$(HOST_IP):16000"}]
    put_agent(api, "a", "node-a", spec={"containers": [{"name": "agent", "env": env}]})
    put_pages(api, "a")
    assert meshctl(api, tmp_path)[0] == 1
    for page in ("readyz", "metrics"):
        api.pages["a:16000", page] = api.pages.pop(("a:15000", page))
    assert meshctl(api, tmp_path)[0] == 0
    assert meshctl(api, tmp_path, "--port", "15000")[0] == 1


@pytest.mark.parametrize("listen", ["", "x", "127.0.0.1:", "127.0.0.1:0", "[::1]:99999", "127.0.0.1:\u0661"])
def test_a_setting_that_names_no_port_counts_as_the_default(listen: str) -> None:
    assert admin_port(AgentPod("a", "n", "Running", False, environment={ADMIN_LISTEN: listen})) == 15000


def test_a_long_page_is_read_to_its_last_whole_line(api: FakeApi, tmp_path: Path) -> None:
    put_agent(api, "a", "node-a")
    put_pages(api, "a")
    long = METRICS.format(stale=0) + 'svcmesh_requests_total{service="shop/cart"} 12345\n' * 10_000
    assert len(long) > PAGE_BYTES
    api.pages["a:15000", "metrics"] = raw(200, long.encode(), "text/plain")
    code, output, _ = meshctl(api, tmp_path)
    assert (code, output.splitlines()[-1]) == (0, "1 of 1 agents in order")
    assert read_numbers(Page(200, "svcmesh_services 12\nsvcmesh_problems 1", whole=False)) == {"services": 12}


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d")]
)
def test_ages(seconds: float, shown: str) -> None:
    assert show_age(seconds) == shown


PAGES = st.builds(
    Page, st.sampled_from([0, 200, 404, 503]), st.text(), st.booleans(), st.sampled_from(["", "x"])
)
NUMBERS = st.sampled_from(["1", "NaN", "+Inf", "x", "", "1e400", "-1"])


@given(PAGES, PAGES, NUMBERS)
def test_whatever_the_pages_say(readyz: Page, metrics: Page, number: str) -> None:
    """Never raises; and is in order only where the agent says so in both."""
    text = METRICS.format(stale=number) + metrics.text
    pages = AgentPages(AgentPod("a", "n", "Running", False), readyz, Page(metrics.status, text))
    found = read_status(pages)
    assert (found.state in GOOD) <= (readyz.status == 200 and metrics.status == 200 and not readyz.error)
