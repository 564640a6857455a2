"""Workers are told of pods as what changes, up to a limit, and never of the same twice."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from discovery.model import PodKey, PodObject
from nodeagent.control.messages import Channel, Message, SourcePod, Sources, encode
from nodeagent.control.sources import MAX_SOURCES, SourceTable, choose_sources, diff_sources
from nodeagent.worker.sources import SourcePods

Pods = dict[str, PodObject]


def pod(name: str, workload: str = "deployment/web", origin: str = "") -> PodObject:
    return PodObject(PodKey("shop", name), workload, origin=origin)


def told(name: str, workload: str = "deployment/web") -> SourcePod:
    return SourcePod("shop", name, workload)


def shown(name: str) -> tuple[str, str]:
    """Return how lines name the pod, and its workload."""
    pod = told(name)
    return f"{pod.namespace}/{pod.name}", f"{pod.namespace}/{pod.workload}"


def test_what_is_told_is_what_changed() -> None:
    old = {"10.1.0.1": told("a"), "10.1.0.2": told("b"), "10.1.0.3": told("c")}
    new = {"10.1.0.4": told("d"), "10.1.0.3": told("e"), "10.1.0.1": told("a")}
    assert diff_sources(old, new) == Sources({"10.1.0.4": told("d"), "10.1.0.3": told("e")}, ("10.1.0.2",))
    assert not diff_sources(old, dict(old))


def test_a_change_that_names_nobody_else_is_not_told() -> None:
    table = SourceTable()
    assert table.change({"10.1.0.1": pod("a")}) == Sources({"10.1.0.1": told("a")})
    assert not table.change({"10.1.0.1": pod("a", origin="web.yaml:7")})
    assert table.change({"10.1.0.1": pod("a", "job/web")}) == Sources({"10.1.0.1": told("a", "job/web")})


def test_a_worker_that_starts_later_is_told_everything() -> None:
    table = SourceTable()
    assert not table.everything()
    table.change({"10.1.0.1": pod("a"), "10.1.0.2": pod("b")})
    table.change({"10.1.0.2": pod("b")})
    assert table.everything() == Sources({"10.1.0.2": told("b")})


def test_more_than_there_is_room_for_are_left_out_and_who_is_in_stays() -> None:
    table = SourceTable(limit=2)
    with capture_logs() as logs:
        table.change({"10.1.0.2": pod("b"), "10.1.0.3": pod("c")})
        assert logs == []
        first: Pods = {"10.1.0.1": pod("a"), "10.1.0.2": pod("b"), "10.1.0.3": pod("c")}
        assert not table.change(first)
        assert not table.change({**first, "10.1.0.4": pod("d")})
        (line,) = logs
        assert (line["event"], line["addresses"], line["told"]) == ("sources_left_out", 3, 2)
        del first["10.1.0.2"]
        assert table.change(dict(first)) == Sources({"10.1.0.1": told("a")}, ("10.1.0.2",))
        assert len(logs) == 1
        table.change({**first, "10.1.0.4": pod("d")})
        assert len(logs) == 2, "said again, since there had been room"


def test_a_node_full_of_pods_fits() -> None:
    pods = {f"10.{n >> 8}.{n & 255}.1": pod(f"p{n}") for n in range(MAX_SOURCES + 1)}
    message = Sources(choose_sources(pods, {}))
    assert len(message.upserted) == MAX_SOURCES
    assert received(encode(message)) == [message]


def received(data: bytes) -> list[Message]:
    messages: list[Message] = []
    Channel(messages.append, lambda: None).data_received(data)
    return messages


addresses = st.sampled_from([f"10.1.0.{n}" for n in range(8)])
tables = st.dictionaries(addresses, st.builds(pod, st.sampled_from("ab")))


@given(st.lists(tables), st.integers(0, 8), st.integers(1, 8))
def test_workers_know_the_same_whenever_they_started(changes: list[Pods], start: int, limit: int) -> None:
    """Through the wire: one worker is there from the beginning, another comes later."""
    table = SourceTable(limit)
    early, late = SourcePods(), SourcePods()
    for number, pods in enumerate(changes):
        if number == start:
            take(late, table.everything())
        message = table.change(pods)
        take(early, message)
        if number >= start:
            take(late, message)
    if len(changes) <= start:
        take(late, table.everything())
    last = changes[-1] if changes else {}
    found = {address: early.names(address) for address in last}
    assert found == {address: late.names(address) for address in last}
    named = {address: one for address, one in found.items() if one is not None}
    assert len(named) == min(limit, len(last))
    assert all(one == shown(last[address].key.name) for address, one in named.items())
    assert all(early.names(f"10.1.0.{n}") is None for n in range(8) if f"10.1.0.{n}" not in last)


def test_a_worker_knows_the_workload_of_a_pod() -> None:
    worker = SourcePods()
    worker.change(Sources({"10.1.0.1": told("a"), "10.1.0.2": SourcePod("shop", "bare", "")}))
    assert worker.workload("10.1.0.1") == f"{told('a').namespace}/{told('a').workload}"
    assert worker.workload("10.1.0.2") == worker.workload("10.1.0.9") == ""


def take(worker: SourcePods, message: Sources) -> None:
    for one in received(encode(message)):
        assert isinstance(one, Sources)
        worker.change(one)


def test_what_is_told_of_a_pod_is_who_it_is_alone() -> None:
    assert [field.name for field in msgspec.structs.fields(SourcePod)] == [
        "namespace",
        "name",
        "workload",
        "service_account",
    ]
