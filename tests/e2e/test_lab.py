"""What a user of the mesh sees, on two nodes with nftables capture: names, addresses, requests, refusals."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import Any

import pytest

from hack.kit.manifests import Port
from hack.kit.waiting import pause, until
from hack.lab.namespace import LabProcess
from hack.lab.node import Agent, Pod
from tests.e2e.conftest import WHOAMI_ADDRESS, Mesh

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

WHOAMI = "http://whoami.default.svc.mesh/"


def curl(pod: Pod, url: str, *options: str) -> dict[str, Any]:
    done = pod.run(["curl", "-sS", "--fail-with-body", "--max-time", "10", *options, url])
    assert done.returncode == 0, (done.stdout, done.stderr)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def requests_seen(agent: Agent, service: str = "whoami") -> int:
    counts = re.findall(
        rf'^svcmesh_requests_total{{service="{service}".*}} (\d+)', agent.metrics(), re.MULTILINE
    )
    return sum(map(int, counts))


def resolve(pod: Pod, name: str, kind: str = "A") -> tuple[str, list[str]]:
    """Return the response code and the answers, asked of the pod's own resolver."""
    done = pod.run(["dig", "+noall", "+comments", "+answer", name, kind])
    code = re.search(r"status: (\w+)", done.stdout)
    answers = [line.split()[-1] for line in done.stdout.splitlines() if line and not line.startswith(";")]
    return code[1] if code else done.stdout, answers


def refusal(pod: Pod, address: str, port: int) -> tuple[str, float]:
    """Return how a connection attempt ended, and after how many milliseconds."""
    done = pod.run([sys.executable, "-m", "tests.e2e.refusal", address, str(port)], check=True)
    outcome, took = done.stdout.split()
    return outcome, float(took)


def start_load(
    pod: Pod, seconds: float, connections: int = 8, url: str = WHOAMI, renew: int = 0
) -> LabProcess:
    """Start `tests.e2e.load` in a pod; `renew` makes a new connection after so many requests."""
    figures = map(str, (connections, seconds, renew))
    load = pod.start([sys.executable, "-m", "tests.e2e.load", url, *figures], name="load")
    assert load.log is not None
    until(load.log.read_text)
    return load


def finish_load(load: LabProcess, seconds: float = 60) -> dict[str, Any]:
    load.terminate()
    load.wait(seconds)
    assert load.log is not None
    outcome: dict[str, Any] = json.loads(load.log.read_text().splitlines()[-1])
    print("load:", outcome)
    return outcome


def test_every_endpoint_answers_in_turn_through_the_agent_of_the_pods_own_node(mesh: Mesh) -> None:
    here, there = mesh.agents
    seen_here, seen_there = requests_seen(here), requests_seen(there)
    rounds = 2 * len(mesh.servers)
    answers = [curl(mesh.client, WHOAMI) for _ in range(rounds)]
    names = [answer["name"] for answer in answers]
    assert sorted(names) == sorted([pod.name for pod in mesh.servers] * 2)
    assert names[: len(mesh.servers)] == names[len(mesh.servers) :]
    assert {answer["headers"]["x-forwarded-for"] for answer in answers} == {mesh.client.address}
    assert {answer["headers"]["host"] for answer in answers} == {"whoami.default.svc.mesh"}
    assert requests_seen(here) == seen_here + rounds
    assert requests_seen(there) == seen_there


def test_the_other_node_serves_its_own_pods(mesh: Mesh) -> None:
    here, there = mesh.agents
    seen_here, seen_there = requests_seen(here), requests_seen(there)
    pod = mesh.lab.node(2).pods[0]
    assert curl(pod, WHOAMI)["headers"]["x-forwarded-for"] == pod.address
    assert requests_seen(there) == seen_there + 1
    assert requests_seen(here) == seen_here


def test_the_node_itself_may_use_mesh_addresses(mesh: Mesh) -> None:
    node = mesh.lab.node(1)
    done = node.run(["curl", "-sS", "--max-time", "10", f"http://{WHOAMI_ADDRESS}/"])
    assert json.loads(done.stdout)["name"] in {pod.name for pod in mesh.servers}


def test_who_sends_what_is_no_request_is_named_by_the_agent_of_its_node(mesh: Mesh) -> None:
    babble = f"exec 3<>/dev/tcp/{WHOAMI_ADDRESS}/80; printf 'what is this?\\r\\n\\r\\n' >&3; cat <&3"
    assert mesh.client.run(["bash", "-c", babble]).stdout.startswith("HTTP/1.1 400")
    here, there = mesh.agents
    named = f"default/{mesh.client.name}"
    line = until(
        lambda: [line for line in here.log.splitlines() if "request_refused" in line and named in line]
    )
    assert f"default/pod/{mesh.client.name}" in line[-1]
    assert named not in there.log
    # That line was written by a thread of the worker's, which has no more privileges than the worker.
    started = [line for line in here.log.splitlines() if '"worker_started"' in line]
    pid = json.loads(started[-1])["pid"]
    statuses = mesh.lab.node(1).run(["sh", "-c", f"cat /proc/{pid}/task/*/status"], check=True).stdout
    assert len(re.findall(r"^Pid:", statuses, re.MULTILINE)) == 2
    assert set(re.findall(r"^Cap(?:Prm|Eff):\s+(\w+)$", statuses, re.MULTILINE)) == {"0" * 16}


def test_pod_addresses_pass_by_every_agent(mesh: Mesh) -> None:
    before = [requests_seen(agent) for agent in mesh.agents]
    for pod in mesh.servers:
        answer = curl(mesh.client, f"http://{pod.address}:8080/")
        assert answer["peer"] == mesh.client.address
        assert "x-forwarded-for" not in answer["headers"]
    assert [requests_seen(agent) for agent in mesh.agents] == before


def test_an_unannotated_service_is_nowhere(mesh: Mesh) -> None:
    assert resolve(mesh.client, "plain.default.svc.mesh") == ("NXDOMAIN", [])
    assert refusal(mesh.client, "250.96.0.12", 80)[0] == "ConnectionRefusedError"
    for agent in mesh.agents:
        assert "plain" not in agent.get("/plan")[1]
        assert 'service="plain"' not in agent.metrics()
    rules = mesh.lab.node(1).run(["nft", "list", "ruleset"], check=True).stdout
    assert WHOAMI_ADDRESS in rules
    assert "250.96.0.12" not in rules


def test_names(mesh: Mesh) -> None:
    assert resolve(mesh.client, "whoami.default.svc.mesh") == ("NOERROR", [WHOAMI_ADDRESS])
    assert resolve(mesh.client, "WhoAmI.default.SVC.mesh") == ("NOERROR", [WHOAMI_ADDRESS])
    assert resolve(mesh.client, "whoami.default.svc.mesh", "AAAA") == ("NOERROR", [])
    assert resolve(mesh.client, "example.org")[0] == "REFUSED"
    done = mesh.client.run(["dig", "+short", "-x", WHOAMI_ADDRESS])
    assert done.stdout == "whoami.default.svc.mesh.\n"
    done = mesh.client.run(["dig", "+short", "+tcp", "SRV", "_http._tcp.whoami.default.svc.mesh"])
    assert done.stdout.split()[2:] == ["80", "whoami.default.svc.mesh."]


def test_a_headless_service_has_an_address_and_is_served(mesh: Mesh) -> None:
    code, (address,) = resolve(mesh.client, "headless.default.svc.mesh")
    assert code == "NOERROR"
    assert address.startswith("254.")
    assert curl(mesh.client, "http://headless.default.svc.mesh/")["name"] == mesh.servers[0].name


def test_tcp_with_a_server_that_speaks_first(mesh: Mesh) -> None:
    done = mesh.client.run(
        ["nc", "-N", "-w", "5", "echo.default.svc.mesh", "7000"], stdin="hello\n", timeout=15
    )
    banner, echo = done.stdout.splitlines()
    assert banner.startswith(mesh.servers[-1].name) or mesh.servers[-1].name in banner
    assert echo == "hello"


@pytest.mark.parametrize(
    ("address", "port"),
    [(WHOAMI_ADDRESS, 81), ("250.1.2.3", 80), ("240.0.0.1", 15001), (WHOAMI_ADDRESS, 15000)],
)
def test_what_is_not_in_the_mesh_is_refused_at_once(mesh: Mesh, address: str, port: int) -> None:
    outcome, took = refusal(mesh.client, address, port)
    print(f"{address}:{port} refused after {took} ms")
    assert outcome == "ConnectionRefusedError"


def test_opting_out_and_in_again(mesh: Mesh) -> None:
    server = mesh.servers[0]
    mesh.serve("toggled", "10.96.0.20", server)
    name = "toggled.default.svc.mesh"
    until(lambda: resolve(mesh.client, name)[1] == ["250.96.0.20"])
    slow = mesh.client.start(
        ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", f"http://{name}/?delay=1.5"], name="slow"
    )
    until(lambda: 'svcmesh_connections_active{service="toggled"' in mesh.agents[0].metrics())
    mesh.serve("toggled", "10.96.0.20", server, annotations={"svc.mesh/retry-attempts": "2"})
    until(lambda: resolve(mesh.client, name) == ("NXDOMAIN", []))
    assert refusal(mesh.client, "250.96.0.20", 80)[0] == "ConnectionRefusedError"
    assert slow.wait(20) == 0
    assert slow.log is not None
    assert slow.log.read_text().endswith("\n200")
    mesh.serve("toggled", "10.96.0.20", server)
    until(lambda: resolve(mesh.client, name)[1] == ["250.96.0.20"])
    assert curl(mesh.client, f"http://{name}/")["name"] == server.name
    mesh.cluster.remove("toggled")


def test_rolling_all_endpoints_under_load_loses_no_request(mesh: Mesh) -> None:
    """60 s where `SVCMESH_ROLL_SECONDS` says so (CI does), 10 s otherwise."""
    seconds = float(os.environ.get("SVCMESH_ROLL_SECONDS", "10"))
    pods = list(mesh.servers)
    port = 8100
    processes = {pod.name: pod.start_sample("whoami", port) for pod in pods}
    rolled = mesh.cluster

    def publish(serving: list[Pod]) -> None:
        rolled.endpoints("rolled", [Port(80, port, "http")], [pod.endpoint for pod in serving])

    rolled.service("rolled", [Port(80, port, "http")], cluster_ip="10.96.0.30")
    publish(pods)
    url = "http://rolled.default.svc.mesh/"
    until(lambda: resolve(mesh.client, "rolled.default.svc.mesh")[1])
    load = start_load(mesh.client, seconds + 60, url=url)
    end = time.monotonic() + seconds
    rolls = 0
    while time.monotonic() < end:
        leaving = pods[rolls % len(pods)]
        publish([pod for pod in pods if pod is not leaving])
        address = f'"{leaving.address}:{port}"'
        until(lambda address=address: address not in mesh.agents[0].get("/plan")[1])  # type: ignore[misc]
        processes[leaving.name].terminate()
        assert processes[leaving.name].wait(30) == 0
        processes[leaving.name] = leaving.start_sample("whoami", port)
        publish(pods)
        until(lambda address=address: address in mesh.agents[0].get("/plan")[1])  # type: ignore[misc]
        rolls += 1
    outcome = finish_load(load)
    print(f"{rolls} endpoints replaced in {seconds:.0f} s")
    assert outcome["failed"] == 0
    assert outcome["ok"] > 100
    assert rolls >= 2
    mesh.cluster.remove("rolled")


def test_a_clean_exit_leaves_nothing(mesh: Mesh) -> None:
    node = mesh.lab.node(2)
    assert mesh.agents[1].stop() == 0
    assert "svcmesh" not in node.run(["nft", "list", "ruleset"], check=True).stdout
    assert node.run(["ip", "route", "show", "table", "local", "proto", "240"], check=True).stdout == ""
    agent = node.start_agent(mesh.cluster.directory)
    mesh.agents = (mesh.agents[0], agent)
    pod = node.pods[0]
    assert curl(pod, WHOAMI)["name"] in {server.name for server in mesh.servers}


def test_an_upgrade_loses_no_request_and_refuses_no_connection(mesh: Mesh) -> None:
    """As a DaemonSet with a surge does it: the successor is ready, then the predecessor is told to leave."""
    node = mesh.lab.node(1)
    keeping = start_load(mesh.client, 120, connections=4)
    renewing = start_load(mesh.client, 120, connections=4, url=f"http://{WHOAMI_ADDRESS}/", renew=3)
    for number in range(2):
        ready_file = mesh.lab.directory / f"ready-{number}"
        successor = node.start_agent(
            mesh.cluster.directory, "--ready-file", str(ready_file), "--drain-timeout", "10s", wait=False
        )
        until(ready_file.exists)
        predecessor = mesh.agents[0]
        mesh.agents = (successor, mesh.agents[1])
        assert predecessor.stop() == 0
        assert curl(mesh.client, WHOAMI)["name"] in {pod.name for pod in mesh.servers}
    for load in (keeping, renewing):
        outcome = finish_load(load)
        assert outcome["failed"] == 0, outcome
        assert outcome["ok"] > 100
    assert "svcmesh" in node.run(["nft", "list", "tables"], check=True).stdout


def test_what_others_remove_from_the_kernel_is_mended(mesh: Mesh) -> None:
    node = mesh.lab.node(1)
    node.run(["nft", "flush", "ruleset"], check=True)
    until(lambda: "svcmesh" in node.run(["nft", "list", "tables"]).stdout)
    assert curl(mesh.client, WHOAMI)
    assert "capture_healed" in mesh.agents[0].log


def test_a_killed_worker(mesh: Mesh) -> None:
    load = start_load(mesh.client, 120)
    agent = mesh.agents[0]
    started = [line for line in agent.log.splitlines() if '"worker_started"' in line]
    pid = json.loads(started[-1])["pid"]
    assert mesh.lab.node(1).run(["kill", "-KILL", str(pid)]).returncode == 0
    until(lambda: "svcmesh_worker_restarts_total 1.0" in agent.metrics())
    until(lambda: 'svcmesh_worker_plan_version{worker="0"} 0.0' not in agent.metrics())
    assert curl(mesh.client, WHOAMI)
    outcome = finish_load(load)
    assert outcome["ok"] > 0
    assert outcome["failing_seconds"] < 5


def test_a_stopped_worker_is_replaced_and_who_comes_meanwhile_is_served(mesh: Mesh) -> None:
    agent = mesh.agents[0]
    started = [line for line in agent.log.splitlines() if '"worker_started"' in line]
    pid = json.loads(started[-1])["pid"]
    assert mesh.lab.node(1).run(["kill", "-STOP", str(pid)]).returncode == 0
    # Its connections wait in the socket that the agent keeps, and belong to the next worker.
    assert curl(mesh.client, WHOAMI, "--max-time", "30")["name"]
    assert '"worker_hung"' in agent.log


def test_a_killed_agent_and_its_successor(mesh: Mesh) -> None:
    load = start_load(mesh.client, 120)
    mesh.agents[0].kill()
    successor = mesh.lab.node(1).start_agent(mesh.cluster.directory)
    mesh.agents = (successor, mesh.agents[1])
    until(lambda: curl(mesh.client, WHOAMI)["name"])
    pause(0.02)
    outcome = finish_load(load)
    assert outcome["ok"] > 0
    assert outcome["failing_seconds"] < 5
