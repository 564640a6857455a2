"""An agent that starts while its source is away, with the snapshot that the last one left."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hack.kit.manifests import ENABLED
from hack.kit.waiting import until
from tests.agent.harness import Agent, Whoami, endpoints, service
from tests.agent.test_source_pods import request_line
from tests.agent.test_sources import in_a_thread
from tests.discovery.kube.fake_api import FakeApi
from tests.discovery.kube.objects import endpoint_slice, pod
from tests.discovery.kube.objects import service as kube_service


@contextmanager
def running(agent: Agent) -> Iterator[Agent]:
    try:
        until(agent.ready)
        yield agent
    finally:
        assert agent.stop() == 0


def shop(name: str, address: str, port: int) -> tuple[dict[str, object], dict[str, object]]:
    made = kube_service(name, address)
    made["spec"]["ports"][0]["port"] = 18080
    slice_ = endpoint_slice(f"{name}-1", name, "127.0.0.1")
    slice_["ports"][0]["port"] = port
    return made, slice_


def test_without_an_api_server_the_last_snapshot_is_served_until_it_is_back(
    tmp_path: Path, start_whoami: Callable[[str], Whoami], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_whoami("from-the-disk")
    api = FakeApi()
    (tmp_path / "cluster").mkdir()
    with in_a_thread(api) as act:
        for name, address in (("web", "10.96.7.10"), ("gone", "10.96.7.11")):
            for document in shop(name, address, server.port):
                act(lambda document=document: api.put(document))  # type: ignore[misc]
        monkeypatch.setenv("KUBECONFIG", api.write_kubeconfig(tmp_path / "kubeconfig"))
        agent = Agent(tmp_path / "cluster", "--source", "kube", "--state-dir", str(tmp_path / "state"))
        with running(agent):
            assert agent.ask()["name"] == "from-the-disk"
            assert not agent.events("snapshot_loaded")
        port = api.port
    # The API server is away now.
    started = time.monotonic()
    agent.start()
    with running(agent):
        print(f"ready after {time.monotonic() - started:.2f} s")
        assert agent.ask()["name"] == "from-the-disk"
        assert agent.resolve("gone.shop")[1]
        (line,) = agent.events("snapshot_loaded")
        assert line["services"] == 2
        assert agent.metric("svcmesh_source_stale ") == 1
        assert "source: stale since" in agent.admin("/readyz?verbose")[1]
        before = agent.metric("svcmesh_plan_version ")
        with in_a_thread(api, port) as act:
            act(lambda: api.delete("Service", "shop", "gone"))
            until(lambda: agent.resolve("gone.shop")[0] == "NXDOMAIN", seconds=60)
            assert agent.metric("svcmesh_source_stale ") == 0
            assert agent.metric("svcmesh_plan_version ") > before
            assert agent.ask()["name"] == "from-the-disk"


def test_pods_are_named_from_the_last_snapshot_too(
    tmp_path: Path, start_whoami: Callable[[str], Whoami], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of pods alone is written at the latest when the agent leaves."""
    server = start_whoami("a")
    api = FakeApi()
    (tmp_path / "cluster").mkdir()
    options = ("--source", "kube", "--node-name", "node-1", "--access-log", "all")
    with in_a_thread(api) as act:
        for document in shop("web", "10.96.7.10", server.port):
            act(lambda document=document: api.put(document))  # type: ignore[misc]
        monkeypatch.setenv("KUBECONFIG", api.write_kubeconfig(tmp_path / "kubeconfig"))
        agent = Agent(tmp_path / "cluster", *options, "--state-dir", str(tmp_path / "state"))
        with running(agent):
            until((tmp_path / "state" / "snapshot").exists)
            client = pod("till")
            client["status"] = {"phase": "Running", "podIP": "127.0.0.9"}
            act(lambda: api.put(client))
            until(lambda: request_line(agent).get("source_pod") == "shop/till")
    agent.start()
    with running(agent):
        until(lambda: agent.events("snapshot_loaded"))
        assert request_line(agent)["source_workload"] == "shop/pod/till"


def test_a_damaged_snapshot_is_not_served(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> None:
    cluster, state = tmp_path / "cluster", tmp_path / "state"
    cluster.mkdir()
    (cluster / "web.yaml").write_text(
        service("web", ENABLED) + endpoints("web", [start_whoami("whole").port])
    )
    agent = Agent(cluster, "--state-dir", str(state))
    with running(agent):
        until((state / "snapshot").exists)
    content = bytearray((state / "snapshot").read_bytes())
    content[-5] ^= 1
    (state / "snapshot").write_bytes(content)
    agent.start()
    with running(agent):
        (line,) = agent.events("snapshot_refused")
        assert "checksum" in line["reason"]
        assert agent.metric("svcmesh_snapshot_refused ") == 1
        assert agent.ask()["name"] == "whole"
        until(lambda: (state / "snapshot").read_bytes() != content)


def test_last_good_values_outlive_a_restart(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> None:
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    slices = endpoints("web", [start_whoami("a").port])
    (cluster / "web.yaml").write_text(service("web", {**ENABLED, "svc.mesh/retry-attempts": "5"}) + slices)
    agent = Agent(cluster, "--state-dir", str(tmp_path / "state"))
    with running(agent):
        agent.write("web.yaml", service("web", {**ENABLED, "svc.mesh/retry-attempts": "many"}) + slices)
        until(lambda: agent.events("problem_found"))
    for _ in range(2):
        found = len(agent.events("problem_found"))
        agent.start()
        with running(agent):
            until(lambda found=found: len(agent.events("problem_found")) > found)  # type: ignore[misc]
            assert agent.events("problem_found")[-1]["effect"] == "svc.mesh/retry-attempts=5 stays in force"


def test_a_folder_that_cannot_be_made_stops_nobody(
    tmp_path: Path, start_whoami: Callable[[str], Whoami]
) -> None:
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    (cluster / "web.yaml").write_text(service("web", ENABLED) + endpoints("web", [start_whoami("a").port]))
    (tmp_path / "file").write_text("in the way")
    agent = Agent(cluster, "--state-dir", str(tmp_path / "file" / "state"))
    with running(agent):
        until(lambda: agent.events("snapshot_not_written"))
        assert agent.ask()["name"] == "a"


def test_no_name_is_denied_before_anything_is_known(
    tmp_path: Path, start_whoami: Callable[[str], Whoami], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent shares its port for DNS with its predecessor, so it must not answer from an empty zone."""
    api = FakeApi()
    with in_a_thread(api):
        monkeypatch.setenv("KUBECONFIG", api.write_kubeconfig(tmp_path / "kubeconfig"))
        port = api.port
    for document in shop("web", "10.96.7.10", start_whoami("late").port):
        api.put(document)
    agent = Agent(tmp_path / "cluster", "--source", "kube")
    until(lambda: agent.log.exists() and agent.events("source_error"))
    assert agent.admin("/healthz")[0] == 200
    assert "dns" in agent.admin("/readyz")[1]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", agent.dns_port)).close()
    with in_a_thread(api, port), running(agent):
        assert agent.ask()["name"] == "late"
