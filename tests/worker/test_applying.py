"""A change of the plan with something in it that cannot be taken into use."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from discovery.model import Endpoint, ServiceKey
from middleware.registry import MIDDLEWARES
from middleware.testing import FakeWindows
from nodeagent.control.messages import Apply, SlottedBackend, SlottedListener
from nodeagent.plan.model import BackendKey, BackendSpec, Balance, LayerSpec, Listener, Rule, Weighted
from nodeagent.proxy.data_plane import DataPlane
from nodeagent.settings import Limits
from nodeagent.stats.columns import REFUSALS, Layout
from nodeagent.worker.applying import apply_change
from tests.dataplane.harness import Table


def listener(name: str, address: str) -> Listener:
    key = BackendKey(ServiceKey("shop", name), 80)
    return Listener(key.service, "http", address, 80, 80, "http", (Rule("all", (Weighted(key),)),))


def backend(name: str, balance: str = "round-robin") -> BackendSpec:
    spec = BackendSpec(BackendKey(ServiceKey("shop", name), 80), (Endpoint("10.0.0.1", 80),))
    return msgspec.structs.replace(spec, balance=Balance(balance))


async def test_what_cannot_be_taken_harms_nothing_else() -> None:
    layout = Layout(MIDDLEWARES, REFUSALS)
    cells = memoryview(bytearray(8 * 64 * layout.slot_columns)).cast("q")
    data_plane = DataPlane(asyncio.get_running_loop(), Limits(), layout, cells, Table(), FakeWindows())
    gone = listener("gone", "240.0.1.4")
    assert apply_change(data_plane, Apply(1, (SlottedListener(gone, 5),), ())) == []

    bad = msgspec.structs.replace(listener("bad", "240.0.1.2"), layers=(LayerSpec("of tomorrow", {}),))
    good = [listener("web", "240.0.1.1"), listener("cart", "240.0.1.3")]
    change = Apply(
        2,
        tuple(SlottedListener(one, 3) for one in (good[0], bad, good[1])),
        (gone.key,),
        (SlottedBackend(backend("web"), 3), SlottedBackend(backend("bad", "of tomorrow"), 3)),
    )
    with structlog.testing.capture_logs() as events:
        (failure,) = apply_change(data_plane, change)
    assert failure.key == bad.key
    assert "of tomorrow" in failure.reason
    assert [(event["event"], event["service"]) for event in events] == [
        ("backend_failed", "shop/bad"),
        ("listener_failed", "shop/bad"),
    ]
    assert [data_plane.listeners.get(one.key) is not None for one in (*good, bad, gone)] == [
        True,
        True,
        False,
        False,
    ]
    web = data_plane.listeners.get(good[0].key)
    assert web is not None
    assert web.rule is not None
    assert web.rule.backend is not None
    assert [str(target) for target in web.rule.backend.targets] == ["10.0.0.1:80"]
