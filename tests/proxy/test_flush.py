"""What is written at the end of a turn."""

from __future__ import annotations

import pytest

from nodeagent.proxy.flush import Flush
from tests.exchange.loop import HandLoop


class Written:
    def __init__(self, flush: Flush, again: bool = False, fails: bool = False) -> None:
        self.flushes = 0
        self._flush = flush
        self._again = again
        self._fails = fails

    def flush(self) -> None:
        self.flushes += 1
        if self._fails:
            raise ZeroDivisionError
        if self._again:
            self._again = False
            self._flush.add(self)


def test_all_of_a_turn_are_written_by_one_call() -> None:
    loop = HandLoop()
    flush = Flush(loop.asyncio)
    first, second = Written(flush), Written(flush, again=True)
    flush.add(first)
    flush.add(second)
    assert (first.flushes, len(loop._ready)) == (0, 1)
    loop.turn()
    assert (first.flushes, second.flushes) == (1, 1)
    loop.settle()
    assert (first.flushes, second.flushes) == (1, 2)


def test_one_that_fails_stops_no_other() -> None:
    loop = HandLoop()
    flush = Flush(loop.asyncio)
    bad, good = Written(flush, fails=True), Written(flush)
    flush.add(bad)
    flush.add(good)
    with pytest.raises(ZeroDivisionError):
        loop.turn()
    loop.settle()
    assert (bad.flushes, good.flushes) == (1, 1)
