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
            "spec": {"nodeName": node},
            "status": {"phase": parts.get("phase", "Running")},
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
    put_agent(api, "other", "node-3", namespace="shop")
    assert meshctl(api, tmp_path) == (
        0,
        (
            "NODE    AGENT            STATE  VERSION  PLAN  CHANGED  SERVICES  PROBLEMS  WORKERS\n"
            "node-1  svcmesh-agent-1  ready  0.1.0    7     5m ago   12        1         2\n"
            "node-2  svcmesh-agent-2  ready  0.1.0    7     5m ago   12        1         2\n"
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
        ("f", "unreachable"),
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
    assert "node-b (b): unreachable: pods/proxy is forbidden\n" in output
    assert "node-a (a): unreachable: " in output


def test_no_agents(api: FakeApi, tmp_path: Path) -> None:
    code, output, errors = meshctl(api, tmp_path)
    assert (code, output) == (1, "")
    assert errors == "no agents: no pod in namespace svcmesh matches app.kubernetes.io/name=svcmesh\n"
    code, output, _ = meshctl(api, tmp_path, "--format", "json")
    assert (code, json.loads(output)) == (1, {"agents": [], "total": 0, "good": 0})


def test_another_namespace_selector_and_port(api: FakeApi, tmp_path: Path) -> None:
    put_agent(api, "a", "node-a", namespace="mesh", metadata={"labels": {"app": "agent"}})
    put_pages(api, "a")
    for page in ("readyz", "metrics"):
        api.pages["a:16000", page] = api.pages.pop(("a:15000", page))
    arguments = ("-n", "mesh", "--selector", "app=agent", "--port", "16000")
    assert meshctl(api, tmp_path, *arguments)[0] == 0


def test_pods_that_cannot_be_listed(api: FakeApi, tmp_path: Path) -> None:
    api.script("list", "Pod", answer(403, status(403, "Forbidden", "pods is forbidden")))
    code, output, errors = meshctl(api, tmp_path)
    assert (code, output) == (2, "")
    assert "cannot list Pods: status 403: pods is forbidden" in errors


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
