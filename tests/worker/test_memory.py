"""Who is broken off when a worker holds too much, and when new requests are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import structlog

from nodeagent.proxy.runtime import Holding
from nodeagent.settings import Limits
from nodeagent.stats import columns
from nodeagent.worker.heap import trim
from nodeagent.worker.memory import MIB, MemoryGuard, resident, too_greedy
from tests.exchange.http1 import Http1Stage, Own, get, ok, put
from tests.exchange.script import a, a1, client, client2, passes

BUDGET = 320 * MIB
GREEDY = Holding("10.0.0.1", 4096, 21 * MIB, 21 * MIB)
MANY = Holding("10.0.0.1", 10, 9 * MIB, 161 * MIB)


@pytest.mark.parametrize(
    ("used", "most", "expected"),
    [
        (BUDGET, GREEDY, None),
        (BUDGET + 1, GREEDY, GREEDY),
        (BUDGET + 1, MANY, MANY),
        (
            BUDGET + 1,
            Holding("10.0.0.1", 10, 20 * MIB, 160 * MIB),
            None,
        ),  # it is not the clients that fill it
        (BUDGET + 1, None, None),
    ],
)
def test_only_beyond_the_budget_and_only_who_fills_it(
    used: int, most: Holding | None, expected: Holding | None
) -> None:
    assert too_greedy(used, BUDGET, lambda: most) == expected


def test_what_this_process_uses() -> None:
    trim()
    before = resident()
    block = bytearray(64 * MIB)
    block[::4096] = b"x" * len(block[::4096])
    assert 60 * MIB < resident() - before < 100 * MIB


class Guarded:
    """A stage whose worker has a budget of 1 MiB; the test says what its process uses."""

    def __init__(self, wires: Callable[..., Http1Stage], **options: object) -> None:
        self.stage = wires(limits=Limits(replay_bytes=400_000), **options)
        self.used = 0
        self.free = 0
        """What the process would give back."""
        self.guard = MemoryGuard(self.stage.plane.runtime, MIB, lambda: self.used, self.give_back)

    def give_back(self) -> None:
        self.used -= self.free
        self.free = 0

    def holds(self, used: int) -> None:
        self.used = used
        self.guard.shed()

    def sheds(self) -> bool:
        return self.stage.plane.runtime.shedding

    def worker(self, column: int) -> int:
        plane = self.stage.plane
        return int(plane.cells[plane.layout.base(columns.WORKER_SLOT) + column])


BODY = b"x" * 200_000
REFUSED = Own(503, "worker_overloaded")


def test_new_requests_are_refused_while_those_under_way_fill_the_memory(
    wires: Callable[..., Http1Stage],
) -> None:
    worker = Guarded(wires)
    stage = worker.stage
    stage.does(client >> put(BODY, length=300_000))
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            worker.holds(MIB)
        stage.play(client2 >> get(), client2 << REFUSED, client2 >> get(), client2 << REFUSED)
        assert worker.worker(columns.WORKER_REQUESTS_SHED) == 2
        assert worker.worker(columns.WORKER_SHEDDING) == 1
        stage.does(client >> "resets")
        stage.does(passes(1.0))
        worker.holds(MIB)
        worker.holds(MIB)
    assert [line["event"] for line in lines] == ["worker_shedding", "worker_shedding_ended"], "once for each"
    assert lines[0]["used_mib"] == 1
    assert lines[1]["refused"] == 2
    assert worker.worker(columns.WORKER_SHEDDING) == 0
    said = stage.does(client2 >> get(), a >> "accepts", a1 >> ok(b"again"))
    assert b"".join(said["client2"]).endswith(b"again")


def test_a_large_process_without_requests_serves(wires: Callable[..., Http1Stage]) -> None:
    worker = Guarded(wires)
    worker.holds(10 * MIB)
    said = worker.stage.does(client >> get(), a >> "accepts", a1 >> ok(b"served"))
    assert b"".join(said["client"]).endswith(b"served")
    assert worker.worker(columns.WORKER_REQUESTS_SHED) == 0


def test_memory_that_is_free_is_given_back_first(wires: Callable[..., Http1Stage]) -> None:
    worker = Guarded(wires)
    stage = worker.stage
    stage.does(client >> put(BODY, length=300_000))
    worker.free = MIB // 2
    worker.holds(MIB)
    assert not worker.sheds()
    worker.free = MIB // 2
    worker.holds(MIB)
    assert worker.sheds(), "once a second is enough: it takes long"
    stage.does(client >> "resets")


def test_bodies_under_way_are_kept_no_longer(wires: Callable[..., Http1Stage]) -> None:
    """They go on to the endpoint, but the request cannot be sent again; one that waits is not read on."""
    worker = Guarded(wires)
    stage = worker.stage
    stage.does(client >> put(BODY, length=300_000), a >> "accepts")
    stage.does(client2 >> put(BODY, length=300_000))
    sending, waiting = (stage.connection(name)._exchange for name in ("client", "client2"))
    assert sending.held > 200_000
    worker.holds(MIB)
    stage.does(client >> b"more", client2 >> b"more")
    assert sending.held < 1000
    assert stage.held("client2")
    assert waiting.held > 200_000
    stage.does(client >> "resets", client2 >> "resets")


def test_tcp_connections_are_refused(wires: Callable[..., Http1Stage]) -> None:
    worker = Guarded(wires, protocol="tcp")
    stage = worker.stage
    stage.does(client >> BODY)
    worker.holds(MIB)
    assert worker.sheds()
    said = stage.does(client2 >> b"hello")
    assert said == {"client2": ["reset"]}
    assert worker.worker(columns.WORKER_REFUSED_FULL) == 1
    stage.does(client >> "resets")


def test_without_a_budget_nobody_looks(wires: Callable[..., Http1Stage]) -> None:
    stage = wires()

    def used() -> int:
        raise AssertionError("it looked")

    guard = MemoryGuard(stage.plane.runtime, 0, used)
    guard.start()
    guard.look()
    assert not stage.loop.busy
