"""The agent as its user has it: a process, YAML files, names, addresses, signals."""

from __future__ import annotations

import errno
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hack.kit.manifests import ENABLED
from hack.kit.ports import free_port
from hack.kit.waiting import until
from tests.agent.harness import Agent, Whoami, endpoints, load, service

REQUESTS = (
    'svcmesh_requests_total{service="web",namespace="shop",port="18080",'
    'source_namespace="",source_workload="node",code_class="2xx"}'
)


def refuses(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, 18080)) == errno.ECONNREFUSED


def test_a_name_leads_to_every_endpoint_in_turn(agent: Agent) -> None:
    assert [agent.ask()["name"] for _ in range(4)] in (["a", "b"] * 2, ["b", "a"] * 2)
    answer = agent.ask()
    assert answer["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert answer["headers"]["host"].startswith("127.")
    assert agent.metric(REQUESTS) == 5
    assert agent.resolve("web.shop", "AAAA") == ("NOERROR", [])
    assert agent.resolve("nobody.shop") == ("NXDOMAIN", [])
    assert agent.resolve("_http._tcp.web.shop", "SRV")[1] == ["0 100 18080 web.shop.svc.mesh."]


def test_workers_follow_a_plan_that_changes_nothing_for_them(agent: Agent) -> None:
    text = (agent.cluster / "web.yaml").read_text()
    agent.write("web.yaml", text.replace("svc.mesh/enabled", "svc.mesh/protocol: quic\n    svc.mesh/enabled"))
    until(lambda: agent.events("problem_found"))
    until(
        lambda: (
            agent.metric("svcmesh_plan_version") == agent.metric('svcmesh_worker_plan_version{worker="0"}')
        )
    )


def test_opting_out_and_in_again(agent: Agent) -> None:
    address = agent.address("web.shop")
    text = (agent.cluster / "web.yaml").read_text()
    agent.write("web.yaml", text.replace("svc.mesh/enabled", "example.org/enabled"))
    until(lambda: agent.resolve("web.shop")[0] == "NXDOMAIN")
    until(lambda: refuses(address))
    assert "web" not in agent.admin("/plan")[1]
    agent.write("web.yaml", text)
    assert agent.ask()["name"] in "ab"


def test_a_request_in_flight_survives_opting_out(agent: Agent) -> None:
    connection = agent.connect()
    connection.request("GET", "/?delay=0.8")
    until(lambda: agent.metric('svcmesh_connections_active{service="web"') == 1)
    text = (agent.cluster / "web.yaml").read_text()
    agent.write("web.yaml", text.replace("svc.mesh/enabled", "example.org/enabled"))
    until(lambda: agent.resolve("web.shop")[0] == "NXDOMAIN")
    response = connection.getresponse()
    assert response.status == 200
    assert response.getheader("Connection") == "close"
    connection.close()


def test_rolling_every_endpoint_loses_no_request(agent: Agent, start_whoami: Callable[[str], Whoami]) -> None:
    old = [start_whoami("0"), start_whoami("1")]
    agent.write("web.yaml", service("web", ENABLED) + endpoints("web", [server.port for server in old]))
    until(lambda: agent.ask()["name"] in "01")
    rolls = 0
    with load(agent) as outcome:
        end = time.monotonic() + 6
        while time.monotonic() < end:
            leaving = old.pop(0)
            coming = start_whoami(f"new-{rolls}")
            old.append(coming)
            agent.write("web.yaml", service("web", ENABLED) + endpoints("web", [s.port for s in old]))
            until(lambda name=coming.name: agent.ask()["name"] == name)  # type: ignore[misc]
            leaving.stop()
            rolls += 1
    assert rolls >= 2
    assert outcome["failed"] == 0
    assert outcome["ok"] > 100


def test_a_killed_worker_is_replaced_and_counters_go_on(agent: Agent) -> None:
    agent.ask()
    before = agent.metric(REQUESTS)
    (pid,) = agent.workers()
    os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    until(lambda: pid not in agent.workers() and len(agent.workers()) == 1)

    def answers() -> bool:
        try:
            return bool(agent.ask())
        except OSError:
            return False

    until(answers)
    print(f"worker back after {time.monotonic() - started:.2f} s")
    until(lambda: agent.metric(REQUESTS) >= before + 1)  # an answer may be seen before it is counted
    assert agent.metric("svcmesh_worker_restarts_total") == 1
    assert agent.events("worker_died")[0]["reason"] == "killed by SIGKILL"


def test_sigterm_finishes_what_is_in_flight_and_leaves(agent: Agent) -> None:
    address = agent.address("web.shop")
    connection = agent.connect()
    connection.request("GET", "/?delay=0.8")
    until(lambda: agent.metric('svcmesh_connections_active{service="web"') == 1)
    answered: list[int] = []
    reader = threading.Thread(target=lambda: answered.append(connection.getresponse().status))
    reader.start()
    agent.process.send_signal(signal.SIGTERM)

    until(lambda: refuses(address))
    with pytest.raises(ConnectionRefusedError):
        # A successor answers from a younger zone, while this one still drains.
        socket.create_connection(("127.0.0.1", agent.dns_port)).close()
    assert agent.process.poll() is None
    assert agent.process.wait(20) == 0
    reader.join()
    assert answered == [200]
    assert agent.events("agent_stopped")
    connection.close()


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_on_a_laptop_nothing_outlives_the_agent(agent: Agent, stopped: bool) -> None:
    (worker,) = agent.workers()
    if stopped:
        os.kill(worker, signal.SIGSTOP)
    agent.process.kill()
    agent.process.wait()
    until(lambda: not Path(f"/proc/{worker}/stat").exists())
    agent.start()
    until(agent.ready)


def test_bad_files_harm_nobody_else(agent: Agent) -> None:
    agent.write("broken.yaml", "kind: [Service\n")
    until(lambda: any("broken.yaml" in str(event) for event in agent.events("problem_found")))
    agent.write(
        "other.yaml",
        service("other", {**ENABLED, "svc.mesh/retry-attempts": "many", "svc.mesh/unheard-of": "1"})
        .replace("10.96.7.10", "10.96.7.11")
        .replace("18080", str(free_port())),
    )
    until(lambda: len([e for e in agent.events("problem_found") if "shop/other" in e["object"]]) >= 2)
    assert agent.address("other.shop").endswith(".7.11")
    assert agent.ask()["name"] in "ab"
    assert agent.metric("svcmesh_problems") >= 3
    (agent.cluster / "broken.yaml").unlink()
    (agent.cluster / "other.yaml").unlink()
    until(lambda: agent.metric("svcmesh_problems") == 0)


def test_two_services_with_one_address_and_port_go_to_the_first(agent: Agent) -> None:
    agent.write("zweb.yaml", service("zweb", ENABLED))
    until(lambda: [e for e in agent.events("problem_found") if "shop/zweb" in e["object"]])
    assert agent.ask()["name"] in "ab"
    assert agent.resolve("zweb.shop")[1] == []


def errors_of(agent: Agent, service: str) -> list[dict[str, str]]:
    """Return what `/plan` says is wrong with a Service; it has no endpoints either, which is a warning."""
    found: dict[str, list[dict[str, str]]] = {
        name: one["problems"] for name, one in json.loads(agent.admin("/plan")[1])["services"].items()
    }
    return [one for one in found.get(service, []) if one.get("severity", "error") == "error"]


def test_a_port_that_is_taken_is_a_problem_until_it_is_free(agent: Agent) -> None:
    with socket.create_server((agent.address("web.shop").rpartition(".")[0] + ".77", 18080)):
        agent.write("taken.yaml", service("taken", ENABLED).replace("10.96.7.10", "10.96.7.77"))
        (problem,) = until(lambda: errors_of(agent, "shop/taken"))
        assert (problem["namespace"], problem["name"]) == ("shop", "taken")
        assert (problem["field"], problem["value"]) == ("spec.ports[0].port", "18080")
        assert ".7.77:18080" in problem["reason"]
        assert "Address already in use" in problem["reason"]
        assert f"process {os.getpid()}" in problem["reason"]
        assert "every second" in problem["effect"]
        status, text = agent.admin("/readyz?verbose")
        assert status == 200
        (line,) = (line for line in text.splitlines() if line.startswith("problem: "))
        assert line.startswith("problem: Service shop/taken, port 18080: ")
        assert agent.metric("svcmesh_problems") == 1
        (failure,) = agent.events("listen_failed")
        assert failure["service"] == "shop/taken"
        assert failure["address"].endswith(".7.77:18080")
        assert agent.ask()["name"] in "ab"
    until(lambda: not errors_of(agent, "shop/taken"))
    assert "problem:" not in agent.admin("/readyz?verbose")[1]
    until(lambda: agent.events("listen_recovered"))
    connection = agent.connect("taken.shop")
    connection.request("GET", "/")
    assert connection.getresponse().status == 503, "it has no endpoint, and the mesh says so"
    connection.close()


def test_a_port_that_is_taken_is_no_problem_once_its_service_has_gone(agent: Agent) -> None:
    with socket.create_server((agent.address("web.shop").rpartition(".")[0] + ".77", 18080)):
        agent.write("taken.yaml", service("taken", ENABLED).replace("10.96.7.10", "10.96.7.77"))
        until(lambda: errors_of(agent, "shop/taken"))
        (agent.cluster / "taken.yaml").unlink()
        until(lambda: "problem:" not in agent.admin("/readyz?verbose")[1])
        (worker,) = agent.workers()
        os.kill(worker, signal.SIGKILL)
        until(lambda: agent.workers() not in ([], [worker]))
        until(agent.ready)
    assert not errors_of(agent, "shop/taken")
    assert len(agent.events("listen_failed")) == 1


def test_a_body_of_two_gibibytes_does_not_grow_memory(agent: Agent) -> None:
    (pid,) = agent.workers()

    def resident() -> int:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    agent.ask()
    before = resident()
    block = memoryview(bytes(1024 * 1024))
    connection = agent.connect()
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(2048 * len(block)))
    connection.endheaders()
    highest = before
    for count in range(2048):
        connection.sock.sendall(block)
        if count % 64 == 0:
            highest = max(highest, resident())
    response = connection.getresponse()
    assert b'"body_bytes": 2147483648' in response.read()
    connection.close()
    print(f"worker grew by {(highest - before) / 2**20:.1f} MiB")
    assert highest - before < 16 * 2**20


def test_a_second_agent_on_the_same_addresses_says_what_is_wrong(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Agent(tmp_path / "second", "--admin-listen", f"127.0.0.1:{agent.admin_port}")
    assert second.process.wait(20) == 1
    assert f"127.0.0.1:{agent.admin_port}" in second.log.read_text()


def test_http_client_library_pool_over_many_requests(agent: Agent) -> None:
    connection = agent.connect()
    for _ in range(50):
        connection.request("PUT", "/x", body=b"y" * 10_000)
        response = connection.getresponse()
        assert response.status == 200
        assert b'"body_bytes": 10000' in response.read()
    connection.close()
    assert isinstance(connection, http.client.HTTPConnection)
