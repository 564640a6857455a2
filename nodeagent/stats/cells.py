"""Numbers that all workers of a node share, such as the fill of a rate limit's bucket.

A hash table of fixed size in shared memory: `SETS` sets of `WAYS` entries, each a 64-bit hash of the key, the
number, and when it was last written. A key belongs to one set; when that is full, the entry that was not
written for the longest time is replaced. Two keys whose 64-bit hashes are equal share a number; with 32,768
entries the odds of one such pair are 1 in 30 thousand million.

Workers exclude each other with a lock on the bytes of the set (`exclusion`). It is held for a microsecond or
two; the kernel releases it when its holder is killed. A worker that is stopped while it holds one must not
stop the others: a worker that has waited `PATIENCE` without success makes its change nevertheless, reports
that (`forgone`), and does not wait for that set again for `PAUSE`. Then a change of the same number by
another worker in the same microsecond may be lost: a rate limit lets one request too many through. With only
one worker no lock is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Self

from nodeagent.stats.exclusion import Exclusion
from nodeagent.stats.region import CELL_BYTES, SharedMemory

SETS = 4096
WAYS = 8
_ENTRY = 3
_SET = WAYS * _ENTRY
_SET_BYTES = _SET * CELL_BYTES
_MEMO = 16_384
"""Keys whose hash is remembered."""


class SharedCells(SharedMemory):
    """A bounded table of signed 64-bit numbers by key: implements `middleware.contract.SharedTable`.

    `exclusive` says that no other process writes to it, so that no lock is needed; `forgone` is called for
    each change that was made without the necessary lock. For use by one thread.
    """

    def __init__(self, fd: int, exclusive: bool, forgone: Callable[[], None] = lambda: None) -> None:
        super().__init__(fd, SETS * _SET)
        self._exclusive = exclusive
        self._exclusion = Exclusion(fd, forgone)
        self._hashes: dict[bytes, tuple[int, int]] = {}

    @classmethod
    def create(cls, exclusive: bool = False) -> Self:
        """Make an empty table; pass its `fd` to every worker."""
        return cls(cls.allocate("svcmesh-cells", SETS * _SET), exclusive)

    @classmethod
    def open(cls, fd: int, exclusive: bool, forgone: Callable[[], None] = lambda: None) -> Self:
        """Map the table behind a descriptor that the agent passed.

        Raises:
            RegionError: it is not a table of this size.
        """
        return cls(fd, exclusive, forgone)

    def update(self, key: bytes, change: Callable[[int], int | None]) -> None:
        """Call `change` with the number under `key` (0 if none) and store what it returns.

        No other worker changes the same number meanwhile, unless one that was stopped holds the lock. `None`
        leaves it as it is. `change` must be quick and must not call `update`; what it raises goes to the
        caller, and nothing is stored.
        """
        place = self._hashes.get(key) or self._hash(key)
        if self._exclusive:
            self._change(place, change)
            return
        start = place[0] * CELL_BYTES
        locked = self._exclusion.enter(start, _SET_BYTES)
        try:
            self._change(place, change)
        finally:
            if locked:
                self._exclusion.leave(start, _SET_BYTES)

    def _change(self, place: tuple[int, int], change: Callable[[int], int | None]) -> None:
        first, hashed = place
        cells = self.cells
        for at in range(first, first + _SET, _ENTRY):
            if cells[at] == hashed:
                number = change(cells[at + 1])
                if number is not None:
                    cells[at + 1] = number
                    cells[at + 2] = time.monotonic_ns()
                return
        number = change(0)
        if number is not None:
            self._insert(first, hashed, number)

    def _insert(self, first: int, hashed: int, number: int) -> None:
        cells = self.cells
        # An empty entry was written at time 0, before all others.
        at = min(range(first, first + _SET, _ENTRY), key=lambda entry: cells[entry + 2])
        # In this order a process killed half-way leaves an empty entry, never a key with another's number.
        cells[at] = 0
        cells[at + 2] = 0
        cells[at + 1] = number
        cells[at] = hashed
        cells[at + 2] = time.monotonic_ns()

    def _hash(self, key: bytes) -> tuple[int, int]:
        """Return the first cell of the key's set and its hash, the same in every process; never 0."""
        digest = int.from_bytes(blake2b(key, digest_size=8).digest(), "little", signed=True)
        place = ((digest % SETS) * _SET, digest or 1)
        if len(self._hashes) >= _MEMO:
            self._hashes.clear()
        self._hashes[bytes(key)] = place
        return place
