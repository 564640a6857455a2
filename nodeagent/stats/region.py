"""Counters in shared memory: a worker writes plain numbers, the agent reads them without asking it.

The agent makes one `StatsRegion` for each worker slot and keeps it when the worker dies, so a new worker
continues to count where the old one stopped, and counters never decrease. The memory is sparse: a region for
32,768 slots costs only the pages that were written. A cell is 8 aligned bytes and has one writer, so a reader
sees the old number or the new one.

`SlotAllocator` decides which port of which Service counts in which slot.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Self

import structlog

from discovery.model import ServiceKey
from nodeagent.stats import edges, methods
from nodeagent.stats.columns import (
    CONNECTIONS_ACTIVE,
    FIRST_SLOT,
    OVERFLOW_SLOT,
    WORKER_GAUGES,
    WORKER_HEARTBEAT,
    WORKER_SLOT,
    Layout,
)

log = structlog.get_logger()

MAX_SLOTS = 32_768
QUARANTINE = 60.0
"""Seconds before the slot of a port that left the plan may serve another."""

CELL_BYTES = 8

SlotKey = tuple[ServiceKey, int]
"""A Service and its port."""


class RegionError(Exception):
    """A file descriptor does not hold a region of the expected size."""


class SharedMemory:
    """Anonymous shared memory as an array of signed 64-bit cells; a child gets it by its descriptor.

    Its size is sealed, so no process that holds the descriptor can shrink it under the others.
    """

    def __init__(self, fd: int, cells: int) -> None:
        size = cells * CELL_BYTES
        if os.fstat(fd).st_size != size:
            raise RegionError(f"descriptor {fd} holds {os.fstat(fd).st_size} bytes instead of {size}")
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        self.cells = memoryview(self._map).cast("q")

    @classmethod
    def allocate(cls, name: str, cells: int) -> int:
        """Return the descriptor of new memory, all cells zero. `name` shows in `/proc/PID/fd`."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, cells * CELL_BYTES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return fd

    def close(self) -> None:
        """Unmap the memory and close the descriptor; views of `cells` must be gone."""
        self.cells.release()
        self._map.close()
        os.close(self.fd)


class StatsRegion(SharedMemory):
    """The counters of one worker: `slots` slots of `layout.slot_columns` cells, at the beginning of `cells`.

    Behind them are the rows of `nodeagent.stats.methods`, in `methods`, and from the cell `edges_at` on those
    of `nodeagent.stats.edges`.
    """

    def __init__(self, fd: int, layout: Layout, slots: int = MAX_SLOTS) -> None:
        super().__init__(fd, _size(layout, slots))
        self.layout = layout
        self.slots = slots
        behind = slots * layout.slot_columns
        self.edges_at = behind + methods.CELLS
        self.methods = self.cells[behind : self.edges_at]

    @classmethod
    def create(cls, layout: Layout, slots: int = MAX_SLOTS) -> Self:
        """Make a region; pass its `fd` to the worker (`pass_fds`)."""
        return cls(cls.allocate("svcmesh-stats", _size(layout, slots)), layout, slots)

    @classmethod
    def open(cls, fd: int, layout: Layout, slots: int = MAX_SLOTS) -> Self:
        """Map the region behind a descriptor that the agent passed.

        Raises:
            RegionError: its size is not the one of this layout.
        """
        return cls(fd, layout, slots)

    def close(self) -> None:
        """Unmap the memory and close the descriptor; views of it must be gone."""
        self.methods.release()
        super().close()

    def clear(self, slot: int) -> None:
        """Set every cell of a slot to zero."""
        width = self.layout.slot_columns
        base = slot * width
        self.cells[base : base + width] = memoryview(bytes(width * CELL_BYTES)).cast("q")

    @property
    def heartbeat(self) -> int:
        """When the worker last said that it lives, in ns of the monotonic clock; 0: not yet."""
        return self.cells[self.layout.base(WORKER_SLOT) + WORKER_HEARTBEAT]

    def reset_gauges(self, slots: int) -> None:
        """Set the gauges of the first `slots` slots to zero: between a worker's death and the next one."""
        cells = self.cells
        for column in WORKER_GAUGES:
            cells[self.layout.base(WORKER_SLOT) + column] = 0
        for slot in range(OVERFLOW_SLOT, slots):
            base = self.layout.base(slot)
            for column in self.layout.gauges:
                if cells[base + column]:
                    cells[base + column] = 0


def _size(layout: Layout, slots: int) -> int:
    return slots * layout.slot_columns + methods.CELLS + edges.CELLS


class SlotAllocator:
    """Gives every port of the plan a slot that stays its own for as long as the plan has the port.

    The slot of a port that left is kept for `quarantine` seconds, and for as long as a worker still has
    connections that count in it; a port that comes back meanwhile finds its counters as they were. Then the
    slot is cleared in every region and may serve another. When all are taken, further ports share
    `OVERFLOW_SLOT` until they leave the plan.
    """

    def __init__(self, slots: int = MAX_SLOTS, quarantine: float = QUARANTINE) -> None:
        self._slots: dict[SlotKey, int] = {}
        self._retired: dict[SlotKey, tuple[int, float]] = {}
        self._free: list[int] = []
        self._limit = slots
        self._quarantine = quarantine
        self.used = FIRST_SLOT
        """Slots that were ever in use: all numbers are below it."""
        self.overflowed = 0
        """Ports that share the overflow slot now."""
        self.generations: dict[int, int] = {}
        """How often each slot was cleared for another port; those that never were are left out."""
        self.version = 0
        """Grows with every change of `slots`."""

    @property
    def slots(self) -> Mapping[SlotKey, int]:
        """Return the slot of every port of the plan (a live, read-only view)."""
        return MappingProxyType(self._slots)

    def assign(
        self,
        added: Iterable[SlotKey],
        removed: Iterable[SlotKey],
        regions: Sequence[StatsRegion],
        now: float,
    ) -> None:
        """Make the slots follow the plan, from which the ports `removed` went; those `added` are in it now.

        A port in both stays as it is, as does one added again. `regions` are those of all workers, `now` is
        the monotonic clock in seconds.
        """
        wanted = set(added)
        gone = sorted({key for key in removed if key in self._slots} - wanted)
        fresh = sorted(key for key in wanted if key not in self._slots)
        self.version += bool(gone or fresh)
        for key in gone:
            self._retire(key, now)
        if fresh and self._retired:
            fresh = self._revive(fresh)
            self._reclaim(regions, now)
        overflowed = self.overflowed
        for key in fresh:
            self._slots[key] = self._take()
        if self.overflowed and not overflowed:
            log.warning(
                "stats_slots_exhausted", slots=self._limit, reason="further ports are counted together"
            )

    def _retire(self, key: SlotKey, now: float) -> None:
        slot = self._slots.pop(key)
        if slot == OVERFLOW_SLOT:
            self.overflowed -= 1
        else:
            self._retired[key] = (slot, now)

    def _revive(self, keys: list[SlotKey]) -> list[SlotKey]:
        """Give back the slots that are still kept; return the keys that had none."""
        missing = []
        for key in keys:
            kept = self._retired.pop(key, None)
            if kept is None:
                missing.append(key)
            else:
                self._slots[key] = kept[0]
        return missing

    def _reclaim(self, regions: Sequence[StatsRegion], now: float) -> None:
        for key, (slot, since) in list(self._retired.items()):
            if now - since < self._quarantine:
                break  # in the order in which they left
            active = (region.cells[region.layout.base(slot) + CONNECTIONS_ACTIVE] for region in regions)
            if any(active):
                continue
            del self._retired[key]
            for region in regions:
                region.clear(slot)
            self._free.append(slot)
            self.generations[slot] = self.generations.get(slot, 0) + 1

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        if self.used < self._limit:
            self.used += 1
            return self.used - 1
        self.overflowed += 1
        return OVERFLOW_SLOT
