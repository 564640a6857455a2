"""`meshctl check --cluster` on a real node: before an install, with pods on the node, and after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from hack.kit.waiting import until
from hack.kube.one_node import OneNode
from tests.manifests.tools import tool
from tests.node.installation import MESHCTL, Installation, until_answered
from tests.node.workloads import AGENT_IMAGE

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]
PROBE = ("check", "--cluster", "--pre", "--probe-nodes", "--image")
LISTEN = "import socket; s = socket.create_server(('0.0.0.0', 15000)); print(flush=True); s.accept()"
PODS = ("get", "pods", "-A", "-l", "app.kubernetes.io/name=svcmesh-check")


@pytest.fixture
def bare(node: OneNode) -> Installation:
    """The node without the mesh."""
    installation = Installation(node, tool("helm"))
    installation.uninstall_if_there()
    until(lambda: "svcmesh" not in node.run("nft", "list", "tables").stdout)
    return installation


def results(document: dict[str, Any]) -> dict[str, str]:
    return {one["id"]: one["result"] for one in document["checks"]}


def messages(document: dict[str, Any]) -> dict[str, str]:
    return {one["id"]: one["message"] for one in document["checks"]}


def check(installation: Installation, *words: str) -> tuple[int, dict[str, Any]]:
    done = installation.meshctl(*words, "-o", "json")
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return done.returncode, document


def left(node: OneNode) -> str:
    """Return what is there of the pods that look at nodes, and of their namespaces."""
    pods = node.kubectl(*PODS, "-o", "name")
    spaces = node.kubectl("get", "namespaces", "-l", "app.kubernetes.io/name=svcmesh-check", "-o", "name")
    return pods + spaces


def test_before_an_install_and_after_it(bare: Installation) -> None:
    node = bare.node
    code, found = check(bare, *PROBE, AGENT_IMAGE)
    assert set(results(found).values()) == {"ok"}, messages(found)
    assert (code, found["complete"]) == (0, True)
    assert messages(found)["range-services"] == "10.96.0.0/12"
    assert messages(found)["dns-layout"] == "ConfigMap kube-system/coredns"
    until(lambda: not left(node))

    code, found = check(bare, "check", "--cluster")
    assert code == 1
    assert results(found["installation"])["agents-ready"] == "failed"

    bare.install()
    until_answered(bare)
    code, found = check(bare, "check", "--cluster")
    assert code == 0, found
    installed = found["installation"]
    bad = {name: result for name, result in results(installed).items() if result != "ok"}
    assert bad == {"dns-forwards": "warning"}, messages(installed)
    assert "meshctl dns install" in messages(installed)["dns-forwards"]
    assert messages(installed)["agents-resolve"] == "whoami.default.svc.mesh on 1 of 1 nodes"
    assert found["services"] >= 1
    assert check(bare, "check", "--cluster", "--installed", "--strict")[0] == 1

    code, found = check(bare, "check", "--cluster", "--pre")
    assert code == 1
    assert "DaemonSet svcmesh/svcmesh-agent" in messages(found)["not-installed"]


DROP = """
table ip somebody {
  chain output { type filter hook output priority -300; ip daddr 240.0.0.53 udp dport 53 drop; }
}
"""


def test_a_node_on_which_names_do_not_resolve(installed: Installation) -> None:
    until_answered(installed)
    node = installed.node
    node.run("nft", "-f", "-", text=DROP).check_returncode()
    try:
        code, found = check(installed, "check", "--cluster", "--installed")
    finally:
        node.run("nft", "delete", "table", "ip", "somebody")
    assert code == 1
    assert {name for name, result in results(found).items() if result == "failed"} == {"agents-resolve"}
    assert "node-1: " in messages(found)["agents-resolve"]


def test_what_is_in_the_way_on_a_node(bare: Installation) -> None:
    node = bare.node
    node.run("ip", "route", "add", "242.0.0.0/8", "dev", "lo").check_returncode()
    busy = subprocess.Popen(
        node.command(sys.executable, "-c", LISTEN), stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert busy.stdout is not None
        assert busy.stdout.readline() == b"\n"
        code, found = check(bare, *PROBE, AGENT_IMAGE)
    finally:
        os.killpg(busy.pid, signal.SIGKILL)
        busy.communicate()
        node.run("ip", "route", "del", "242.0.0.0/8", "dev", "lo")
    assert code == 1
    bad = {name for name, result in results(found).items() if result != "ok"}
    assert bad == {"node-routes", "node-ports"}, messages(found)
    assert "node-1: route 242.0.0.0/8" in messages(found)["node-routes"]
    assert "node-1: tcp 15000" in messages(found)["node-ports"]


def test_an_image_that_is_not_there(bare: Installation) -> None:
    code, found = check(bare, *PROBE, "localhost/nothing:1")
    assert code == 1
    assert "node-1: ErrImagePull" in messages(found)["node-pod"]
    assert results(found)["node-ports"] == "not-checked"
    until(lambda: not left(bare.node))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_pods_are_removed_when_it_is_interrupted(bare: Installation, number: signal.Signals) -> None:
    """The pod of this image never ends."""
    node = bare.node
    words = node.command(MESHCTL, *PROBE, "localhost/pause:1")
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        until(lambda: "Running" in node.kubectl(*PODS))
        os.killpg(process.pid, number)
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
    until(lambda: not left(node), 60.0)


def test_time_that_is_over(bare: Installation) -> None:
    code, found = check(bare, *PROBE, "localhost/pause:1", "--timeout", "8")
    assert (code, found["complete"]) == (2, False)
    assert messages(found)["node-pod"] == "8 s are over (--timeout)"
    until(lambda: not left(bare.node), 60.0)
