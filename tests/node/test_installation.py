"""The mesh on a real kubelet and container runtime, from `helm install` to `helm uninstall`.

Every test begins with the mesh installed, whatever came before it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.kit.waiting import until
from hack.kube.one_node import OneNode
from tests.node.installation import Installation, Load, until_answered
from tests.node.workloads import corefile

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]
NET_ADMIN = 1 << 12


def restarts(pod: dict[str, Any]) -> int:
    (container,) = pod["status"]["containerStatuses"]
    return int(container["restartCount"])


def test_pods_reach_endpoints_by_the_mesh_name(installed: Installation) -> None:
    until_answered(installed)
    answers = [installed.ask() for _ in range(4)]
    assert len({answer["name"] for answer in answers}) == 2, "both pods answer in turn"
    address = installed.node.kubectl("get", "pod", "client", "-o", "jsonpath={.status.podIP}")
    headers = {name.lower(): value for name, value in answers[0]["headers"].items()}
    assert headers["x-forwarded-for"] == address


def test_the_agent_has_one_capability_and_its_workers_none(installed: Installation) -> None:
    """containerd grants it to a user that is not root, and no_new_privs does not take it away."""
    show = "echo; echo; cat $d/status; tr '\\0' ' ' < $d/cmdline"
    script = f"for d in /proc/[0-9]*/task/*; do {show}; done; touch /x"
    shown = installed.in_agent(script)
    threads = [
        dict(re.findall(r"^(\w+):\s+(.*)$", part, re.MULTILINE)) | {"text": part}
        for part in shown.stdout.split("\n\n")
    ]
    agents = [one for one in threads if "nodeagent run" in one["text"]]
    workers = [one for one in threads if "nodeagent.worker" in one["text"]]
    processes = [{one["Tgid"] for one in group} for group in (agents, workers)]
    assert list(map(len, processes)) == [2, 2], "process 1 keeps the agent running"
    assert {int(agent[name], 16) for agent in agents for name in ("CapPrm", "CapBnd")} == {NET_ADMIN}
    assert {int(worker[name], 16) for worker in workers for name in ("CapPrm", "CapEff")} == {0}
    for process in (*agents, *workers):
        assert process["Uid"].split() == ["65532"] * 4
        assert process["NoNewPrivs"] == "1"
        assert process["Seccomp"] == "2", "RuntimeDefault"
    assert "Read-only file system" in shown.stderr


def test_an_owner_sees_what_is_wrong_with_an_annotation(installed: Installation) -> None:
    node = installed.node
    node.kubectl("annotate", "service", "whoami", "svc.mesh/retry-attempts=many")
    until(lambda: "InvalidAnnotation" in installed.events("whoami"))
    assert "svc.mesh/retry-attempts=many" in installed.events("whoami")
    node.kubectl("annotate", "service", "whoami", "svc.mesh/retry-attempts=2", "--overwrite")
    until(lambda: "AnnotationMended" in installed.events("whoami"))
    node.kubectl("annotate", "service", "whoami", "svc.mesh/retry-attempts-")


def test_logs_and_status(installed: Installation) -> None:
    assert installed.log_events("agent_ready")
    status = installed.meshctl("status", "--format", "json")
    assert status.returncode == 0, status.stderr
    (agent,) = json.loads(status.stdout)["agents"]
    assert (agent["node"], agent["state"], agent["services"]) == ("node-1", "ready", 1)


def test_the_logs_of_one_service(installed: Installation, node: OneNode) -> None:
    node.kubectl("annotate", "service", "whoami", "svc.mesh/timeout=never", "--overwrite")
    until(lambda: "svc.mesh/timeout" in installed.meshctl("logs", "whoami").stdout)
    node.kubectl("annotate", "service", "whoami", "svc.mesh/timeout-")
    lines = installed.meshctl("logs", "whoami", "-o", "json")
    assert lines.returncode == 0, lines.stderr
    assert {json.loads(line)["node"] for line in lines.stdout.splitlines()} == {"node-1"}
    other = installed.meshctl("logs", "whoami", "-n", "kube-system")
    assert (other.returncode, other.stdout) == (0, "")


def test_only_health_and_metrics_are_open_at_the_node_s_address(installed: Installation) -> None:
    address = installed.agent_pod()["status"]["hostIP"]

    def ask(url: str) -> tuple[int, str]:
        done = installed.node.run("curl", "-s", "-w", "\n%{http_code}", url)
        text, _, code = done.stdout.rpartition("\n")
        return int(code), text

    assert [ask(f"http://{address}:15000{page}")[0] for page in ("/healthz", "/readyz", "/metrics")] == [
        200
    ] * 3
    code, text = ask(f"http://{address}:15000/plan")
    assert code == 403
    assert "pods/portforward" in text
    assert ask("http://127.0.0.1:15000/plan")[0] == 200
    proxied = f"/api/v1/namespaces/svcmesh/pods/{installed.agent_pod()['metadata']['name']}:15000/proxy/plan"
    refused = installed.node.run("kubectl", "get", "--raw", proxied)
    assert refused.returncode != 0
    checked = installed.meshctl("check", "--cluster", "--installed", "-o", "json")
    (found,) = [one for one in json.loads(checked.stdout)["checks"] if one["id"] == "agents-resolve"]
    assert (found["result"], found["message"]) == ("ok", "whoami.default.svc.mesh on 1 of 1 nodes")


def test_the_role_for_people_is_enough_and_nothing_less_is(
    installed: Installation, node: OneNode, tmp_path: Path
) -> None:
    node.kubectl("-n", "svcmesh", "create", "serviceaccount", "person")
    config = yaml.safe_load(node.kubectl("config", "view", "--raw", "--minify"))
    token = node.kubectl("-n", "svcmesh", "create", "token", "person").strip()
    config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))

    def ask(*words: str) -> tuple[int, str]:
        done = installed.meshctl(*words, "--kubeconfig", str(path))
        return done.returncode, done.stdout + done.stderr

    code, said = ask("status", "-n", "svcmesh")
    assert code == 2
    assert "pods is forbidden" in " ".join(said.split())
    bind = ("create", "rolebinding", "people", "--role=svcmesh-viewer", "--serviceaccount=svcmesh:person")
    node.kubectl("-n", "svcmesh", *bind)
    try:
        until(lambda: ask("status", "-n", "svcmesh")[0] == 0)
        code, said = ask("page", "/plan", "--agents-namespace", "svcmesh")
        assert (code, "default/whoami" in said) == (0, True)
        assert ask("logs", "whoami", "--agents-namespace", "svcmesh")[0] == 0
        proxied = f"/api/v1/namespaces/svcmesh/pods/{installed.agent_pod()['metadata']['name']}:15000/proxy/"
        refused = node.run("kubectl", "--kubeconfig", str(path), "get", "--raw", proxied)
        assert "forbidden" in refused.stderr.lower()
    finally:
        node.kubectl("-n", "svcmesh", "delete", "rolebinding/people", "serviceaccount/person")


def test_an_agent_at_the_node_s_address_is_reached_all_the_same(installed: Installation) -> None:
    installed.install(adminListen="$(HOST_IP):15000")
    checked = installed.meshctl("check", "--cluster", "--installed", "-o", "json")
    (found,) = [one for one in json.loads(checked.stdout)["checks"] if one["id"] == "agents-resolve"]
    assert (found["result"], found["message"]) == ("ok", "whoami.default.svc.mesh on 1 of 1 nodes")
    installed.install(adminListen="127.0.0.1:15000")
    assert installed.meshctl("status").returncode == 0


@pytest.mark.parametrize("renew", [0, 3], ids=["kept connections", "connections of three requests"])
def test_an_upgrade_loses_no_request(installed: Installation, renew: int) -> None:
    until_answered(installed)
    before = installed.agent_pod()["metadata"]["name"]
    with Load(installed.node, renew=renew) as load:
        installed.install(logLevel="debug" if renew else "warning")
        assert installed.agent_pod()["metadata"]["name"] != before
        counted = load.stop()
    print(f"upgrade under load: {counted}")
    assert counted["failed"] == 0, counted
    assert counted["ok"] > 100


def test_a_killed_agent_costs_no_request(installed: Installation) -> None:
    """Its workers serve on, and the container goes on with another agent."""
    until_answered(installed)
    before = installed.agent_pod()
    with Load(installed.node, renew=0) as load:
        died = len(installed.log_events("agent_died"))
        installed.in_agent("kill -9 $(cut -d' ' -f1 /proc/1/task/1/children)")
        until(lambda: len(installed.log_events("agent_died")) > died)
        until(lambda: installed.log_events("successor_ready"))
        counted = load.stop()
    print(f"agent killed under load: {counted}")
    assert counted["failed"] == 0, counted
    until_answered(installed)
    after = installed.agent_pod()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert restarts(after) == restarts(before)


def test_a_killed_container_is_back_in_a_moment(installed: Installation) -> None:
    until_answered(installed)
    before = restarts(installed.agent_pod())
    installed.node.run("pkill", "-KILL", "-f", "nodeagent run$")
    until(lambda: restarts(installed.agent_pod()) > before)
    until_answered(installed)


def test_the_cluster_s_dns_forwards_and_is_put_back(installed: Installation) -> None:
    until_answered(installed)
    assert not installed.answers("ordinary"), "the cluster's DNS knows nothing of the mesh yet"
    done = installed.meshctl("dns", "install", "--yes", "--timeout", "120")
    assert done.returncode == 0, done.stdout + done.stderr
    until_answered(installed, "ordinary")
    done = installed.meshctl("dns", "status")
    assert done.returncode == 0, done.stdout + done.stderr
    done = installed.meshctl("dns", "remove", "--yes", "--timeout", "120")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(
        installed.node.kubectl("-n", "kube-system", "get", "configmap", "coredns", "-o", "json")
    )
    assert found["data"] == {"Corefile": corefile()}
    assert not installed.answers("ordinary")


def test_uninstalling_leaves_nothing(installed: Installation) -> None:
    node = installed.node
    until_answered(installed)
    uid = installed.agent_pod()["metadata"]["uid"]
    pod_folder = node.folder / "kubelet" / "pods" / uid
    assert "table ip svcmesh" in node.run("nft", "list", "tables").stdout
    assert pod_folder.exists()
    installed.uninstall()
    left = node.kubectl("get", "clusterrole,clusterrolebinding,namespace", "-o", "name")
    assert "svcmesh" not in left
    until(lambda: "svcmesh" not in node.run("nft", "list", "tables").stdout)
    assert not node.run("ip", "route", "show", "table", "local", "proto", "240").stdout
    until(lambda: not pod_folder.exists())
    assert not node.run("pgrep", "-f", "nodeagent").stdout
