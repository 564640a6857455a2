from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from discovery.model import ServiceKey
from nodeagent.stats.columns import (
    CONNECTIONS_ACTIVE,
    FIRST_SLOT,
    OVERFLOW_SLOT,
    REQUESTS_2XX,
    WORKER_HEARTBEAT,
    WORKER_REFUSED_FULL,
    WORKER_SLOT,
    Layout,
)
from nodeagent.stats.region import MAX_SLOTS, RegionError, SlotAllocator, SlotKey, StatsRegion

LAYOUT = Layout([])


def key(name: str, port: int = 80) -> SlotKey:
    return (ServiceKey("default", name), port)


@pytest.fixture
def region() -> Iterator[StatsRegion]:
    made = StatsRegion.create(LAYOUT, slots=64)
    yield made
    made.close()


def test_what_one_process_writes_the_other_reads(region: StatsRegion) -> None:
    script = (
        "import sys; from nodeagent.stats.columns import REQUESTS_2XX, Layout\n"
        "from nodeagent.stats.region import StatsRegion\n"
        "layout = Layout([]); region = StatsRegion.open(int(sys.argv[1]), layout, slots=64)\n"
        "region.cells[layout.base(5) + REQUESTS_2XX] += 7"
    )
    for _ in range(2):  # a second worker in the same memory goes on counting
        subprocess.run([sys.executable, "-c", script, str(region.fd)], pass_fds=[region.fd], check=True)
    assert region.cells[LAYOUT.base(5) + REQUESTS_2XX] == 14


def test_a_region_of_another_size_is_refused(region: StatsRegion) -> None:
    with pytest.raises(RegionError, match="bytes instead of"):
        StatsRegion.open(region.fd, LAYOUT, slots=65)


def test_nobody_can_shrink_it_under_the_others(region: StatsRegion) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(region.fd, 0)


def test_only_what_is_written_costs_memory() -> None:
    region = StatsRegion.create(LAYOUT, slots=MAX_SLOTS)
    try:
        region.cells[LAYOUT.base(MAX_SLOTS - 1) + REQUESTS_2XX] = 1
        assert os.fstat(region.fd).st_size > 8_000_000
        assert os.fstat(region.fd).st_blocks * 512 <= 8192
    finally:
        region.close()


def test_gauges_start_again_and_counters_do_not(region: StatsRegion) -> None:
    cells, base = region.cells, LAYOUT.base(3)
    cells[base + REQUESTS_2XX] = 5
    cells[base + CONNECTIONS_ACTIVE] = 6
    cells[LAYOUT.base(WORKER_SLOT) + WORKER_HEARTBEAT] = 7
    cells[LAYOUT.base(WORKER_SLOT) + WORKER_REFUSED_FULL] = 8
    region.reset_gauges(4)
    assert cells[base + REQUESTS_2XX] == 5
    assert cells[base + CONNECTIONS_ACTIVE] == 0
    assert cells[LAYOUT.base(WORKER_SLOT) + WORKER_HEARTBEAT] == 0
    assert cells[LAYOUT.base(WORKER_SLOT) + WORKER_REFUSED_FULL] == 8


def test_a_port_keeps_its_slot(region: StatsRegion) -> None:
    allocator = SlotAllocator(slots=64)
    allocator.assign({key("b"), key("a", 81), key("a")}, (), [region], 0)
    assert allocator.slots == {key("a"): FIRST_SLOT, key("a", 81): FIRST_SLOT + 1, key("b"): FIRST_SLOT + 2}
    allocator.assign({key("c"), key("b")}, {key("a"), key("a", 81), key("b")}, [region], 1)
    assert allocator.slots == {key("b"): FIRST_SLOT + 2, key("c"): FIRST_SLOT + 3}
    assert allocator.used == FIRST_SLOT + 4


def test_a_port_that_comes_back_in_time_finds_its_counters(region: StatsRegion) -> None:
    allocator = SlotAllocator(slots=64, quarantine=10)
    allocator.assign({key("a")}, (), [region], 0)
    slot = allocator.slots[key("a")]
    region.cells[LAYOUT.base(slot) + REQUESTS_2XX] = 5
    allocator.assign((), {key("a")}, [region], 1)
    allocator.assign({key("a"), key("b")}, (), [region], 100)
    assert allocator.slots[key("a")] == slot
    assert allocator.slots[key("b")] != slot
    assert region.cells[LAYOUT.base(slot) + REQUESTS_2XX] == 5


def test_a_slot_is_cleared_before_another_port_gets_it(region: StatsRegion) -> None:
    allocator = SlotAllocator(slots=64, quarantine=10)
    allocator.assign({key("a")}, (), [region], 0)
    slot = allocator.slots[key("a")]
    region.cells[LAYOUT.base(slot) + REQUESTS_2XX] = 5
    allocator.assign((), {key("a")}, [region], 1)
    allocator.assign({key("b")}, (), [region], 10)
    assert allocator.slots[key("b")] != slot, "still in quarantine"
    allocator.assign({key("c")}, (), [region], 11)
    assert allocator.slots[key("c")] == slot
    assert region.cells[LAYOUT.base(slot) + REQUESTS_2XX] == 0


def test_a_slot_with_open_connections_is_kept(region: StatsRegion) -> None:
    allocator = SlotAllocator(slots=64, quarantine=10)
    allocator.assign({key("a"), key("b")}, (), [region], 0)
    busy, idle = allocator.slots[key("a")], allocator.slots[key("b")]
    region.cells[LAYOUT.base(busy) + CONNECTIONS_ACTIVE] = 1
    allocator.assign((), {key("a"), key("b")}, [region], 1)
    allocator.assign({key("c"), key("d")}, (), [region], 100)
    assert sorted(allocator.slots.values()) == [idle, FIRST_SLOT + 2]
    region.cells[LAYOUT.base(busy) + CONNECTIONS_ACTIVE] = 0
    allocator.assign({key("e")}, (), [region], 101)
    assert allocator.slots[key("e")] == busy


def test_ports_beyond_the_last_slot_share_one(region: StatsRegion) -> None:
    allocator = SlotAllocator(slots=FIRST_SLOT + 2, quarantine=10)
    allocator.assign({key("a"), key("b"), key("c"), key("d")}, (), [region], 0)
    assert allocator.slots == {
        key("a"): FIRST_SLOT,
        key("b"): FIRST_SLOT + 1,
        key("c"): OVERFLOW_SLOT,
        key("d"): OVERFLOW_SLOT,
    }
    assert (allocator.overflowed, allocator.used) == (2, FIRST_SLOT + 2)
    allocator.assign((), {key("b"), key("c")}, [region], 1)
    assert (allocator.overflowed, allocator.slots[key("d")]) == (1, OVERFLOW_SLOT)
    allocator.assign({key("e")}, {key("d")}, [region], 100)
    assert (allocator.overflowed, allocator.slots[key("e")]) == (0, FIRST_SLOT + 1)
