"""Events: well formed, one for each notice however many agents tell it, patient with a bad server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from discovery.kube import events as module
from discovery.kube.events import EventWriter, event_document, event_name
from discovery.kube.source import KubeSource
from discovery.model import ServiceKey
from discovery.notice import Notice
from hack.kit.waiting import until_async
from tests.discovery.kube.conftest import FAST
from tests.discovery.kube.fake_api import FakeApi, answer, raw, status

KEY = ServiceKey("shop", "cart")
NOTICE = Notice(
    service=KEY,
    uid="u1",
    type="Warning",
    reason="InvalidAnnotation",
    note="svc.mesh/retry-attempts=many: is not a whole number",
    identity=("svc.mesh/retry-attempts", "many", "is not a whole number", "0"),
)
NOW = datetime(2026, 5, 4, 10, 15, 2, 7, UTC)
Start = Callable[[str], EventWriter]


@pytest.fixture
async def start(api: FakeApi, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts what tells Events, of the source of a node."""
    async with AsyncExitStack() as stack:

        def make(node: str) -> EventWriter:
            kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig")
            source = KubeSource(node_name=node, kubeconfig=kubeconfig, timing=FAST, random=lambda: 0.01)
            writer = source.announcer()
            task = asyncio.create_task(writer.run())

            async def stop() -> None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

            stack.push_async_callback(stop)
            return writer

        yield make


def test_the_document_is_what_kubernetes_asks_for() -> None:
    assert event_document(NOTICE, "node-1", NOW) == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "shop", "name": event_name(NOTICE)},
        "eventTime": "2026-05-04T10:15:02.000007Z",
        "type": "Warning",
        "reason": "InvalidAnnotation",
        "action": "ReadAnnotations",
        "note": NOTICE.note,
        "regarding": {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": "shop",
            "name": "cart",
            "uid": "u1",
        },
        "reportingController": "svc.mesh/agent",
        "reportingInstance": "node-1",
    }


def test_the_name_depends_on_what_is_told_and_on_nothing_else() -> None:
    assert event_name(NOTICE).startswith("cart.svcmesh-")
    assert event_name(msgspec.structs.replace(NOTICE, note="in other words")) == event_name(NOTICE)
    others = [
        msgspec.structs.replace(NOTICE, uid="u2"),
        msgspec.structs.replace(NOTICE, reason="AnnotationMended"),
        msgspec.structs.replace(NOTICE, identity=(*NOTICE.identity[:3], "1")),
        msgspec.structs.replace(NOTICE, identity=("svc.mesh/retry-attemptsmany", *NOTICE.identity[2:])),
    ]
    assert len({event_name(notice) for notice in (NOTICE, *others)}) == 5


@pytest.mark.parametrize("note", ["x" * 5000, "ä" * 5000, "x" * 1021 + "€€", "\ud800", "x" * 1024])
def test_a_note_has_at_most_a_kilobyte(note: str) -> None:
    shown = event_document(msgspec.structs.replace(NOTICE, note=note), "", NOW)["note"]
    assert 0 < len(shown.encode()) <= 1024


async def test_ten_agents_tell_it_once(api: FakeApi, start: Start) -> None:
    for number in range(10):
        start(f"node-{number}").tell([NOTICE])
    await until_async(lambda: api.count("create", "Event") == 10)
    ((key, document),) = api.events.items()
    assert key == ("shop", event_name(NOTICE))
    assert document["reportingInstance"].startswith("node-")


async def test_a_server_that_fails_is_asked_again_and_it_is_said_once(api: FakeApi, start: Start) -> None:
    busy = status(429, "TooManyRequests", "later")
    api.script("create", "Event", answer(500, {}), answer(429, busy), raw(503, b"<html>", "text/html"))
    writer = start("node-1")
    with capture_logs() as logs:
        writer.tell([NOTICE])
        await until_async(lambda: len(api.events) == 1)
        await until_async(lambda: logs[-1]["event"] == "event_created")
    assert [line["event"] for line in logs] == ["events_failed", "event_created"]
    assert api.count("create", "Event") == 4


async def test_what_is_refused_is_dropped_and_the_rest_is_told(api: FakeApi, start: Start) -> None:
    api.script("create", "Event", answer(422, status(422, "Invalid", "note: too long")))
    writer = start("node-1")
    other = msgspec.structs.replace(NOTICE, uid="u2")
    with capture_logs() as logs:
        writer.tell([NOTICE, other])
        await until_async(lambda: len(api.events) == 1 and len(logs) == 2)
    assert [line["event"] for line in logs] == ["event_refused", "event_created"]
    assert "note: too long" in logs[0]["reason"]


async def test_a_namespace_that_forbids_it_does_not_hold_up_others(api: FakeApi, start: Start) -> None:
    leaving = status(403, "Forbidden", "namespace shop is being terminated")
    api.script("create", "Event", *[answer(403, leaving)] * 3)
    writer = start("node-1")
    other = msgspec.structs.replace(NOTICE, service=ServiceKey("pay", "till"))
    writer.tell([NOTICE, other])
    await until_async(lambda: len(api.events) == 2)


async def test_new_credentials_are_used_after_401(api: FakeApi, start: Start) -> None:
    api.script("create", "Event", answer(401, status(401, "Unauthorized", "expired")))
    start("node-1").tell([NOTICE])
    await until_async(lambda: len(api.events) == 1)


async def test_more_than_the_queue_holds_is_dropped_and_it_is_said_once(
    api: FakeApi, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE", 3)
    writer = start("node-1")
    with capture_logs() as logs:
        writer.tell(msgspec.structs.replace(NOTICE, uid=str(number)) for number in range(10))
        await until_async(lambda: len(api.events) == 3)
    assert [line["event"] for line in logs].count("events_dropped") == 1


async def test_what_is_too_old_is_not_told(
    api: FakeApi, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_AGE", -1.0)
    writer = start("node-1")
    writer.tell([NOTICE])
    await until_async(lambda: not writer._queue)
    assert api.count("create", "Event") == 0


async def test_there_is_a_limit_to_the_rate(
    api: FakeApi, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rate of next to nothing, what goes beyond the burst waits."""
    monkeypatch.setattr(module, "RATE", 0.001)
    monkeypatch.setattr(module, "BURST", 2)
    writer = start("node-1")
    writer._tokens = 2.0
    writer.tell(msgspec.structs.replace(NOTICE, uid=str(number)) for number in range(3))
    await until_async(lambda: len(api.events) == 2 and writer._tokens < 0)
    assert api.count("create", "Event") == 2


async def test_one_service_and_one_namespace_leave_room_for_others(
    api: FakeApi, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OF_SERVICE", (3, 0.0))
    monkeypatch.setattr(module, "OF_NAMESPACE", (5, 0.0))
    writer = start("node-1")

    def notices(namespace: str, name: str, count: int) -> list[Notice]:
        key = ServiceKey(namespace, name)
        return [
            msgspec.structs.replace(NOTICE, service=key, uid=f"{namespace}{name}", identity=(str(number),))
            for number in range(count)
        ]

    with capture_logs() as logs:
        writer.tell(notices("noisy", "a", 100))
        writer.tell(notices("noisy", "b", 100))
        writer.tell(notices("noisy", "c", 100))
        writer.tell(notices("quiet", "d", 1))
        await until_async(lambda: len(api.events) == 6)
    told = [document["regarding"]["name"] for document in api.events.values()]
    assert sorted(told) == ["a", "a", "a", "b", "b", "d"]
    assert [line["service"] for line in logs if line["event"] == "events_dropped"] == ["noisy/a"]
