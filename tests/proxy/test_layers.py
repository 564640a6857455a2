from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from middleware.contract import MOST_COUNTERS
from middleware.registry import MIDDLEWARES
from middleware.testing import FakeTable, FakeWindows
from nodeagent.proxy.layers import LayerContext, PortCounters
from nodeagent.proxy.runtime import Runtime
from nodeagent.settings import Limits
from nodeagent.stats.columns import OVERFLOW_SLOT, Layout


class Ground:
    """Layers of a runtime whose loop never runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        layout = Layout(MIDDLEWARES)
        cells = memoryview(bytearray(8 * 2 * layout.slot_columns)).cast("q")
        clock = lambda: 1000.0  # noqa: E731
        self._runtime = Runtime(loop, Limits(), layout, cells, FakeTable(), FakeWindows(), now=clock)
        self._counters = PortCounters(self._runtime, OVERFLOW_SLOT)

    def context(self, port: int = 80) -> LayerContext:
        return LayerContext(self._runtime, "default/web", port, self._counters)


@pytest.fixture
def ground() -> Iterator[Ground]:
    loop = asyncio.new_event_loop()
    yield Ground(loop)
    loop.close()


def test_a_window_is_that_of_a_name_and_a_number_of_counters_at_one_port_and_rule(ground: Ground) -> None:
    places = [ground.context(), ground.context(81), *(ground.context().of_rule(name) for name in "ab")]
    windows = [place.window(name, counters) for place in places for name in "xy" for counters in (1, 2)]
    assert len({id(window) for window in windows}) == len(windows)
    again = [ground.context().of_rule("a").window("x", 1), ground.context(81).window("y", 2)]
    assert [windows.index(window) for window in again] == [8, 7]


def test_a_window_has_not_any_number_of_counters(ground: Ground) -> None:
    with pytest.raises(ValueError, match="1 to 31 counters"):
        ground.context().window("x", MOST_COUNTERS + 1)
