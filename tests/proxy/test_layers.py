from __future__ import annotations

from typing import cast

import pytest

from middleware.contract import MOST_COUNTERS
from middleware.testing import FakeTable, FakeWindows
from nodeagent.proxy.layers import LayerContext, PortCounters
from nodeagent.proxy.runtime import Runtime


class Ground:
    """What is used of a `Runtime`."""

    def __init__(self) -> None:
        self.shared, self.windows = FakeTable(), FakeWindows()

    def now(self) -> float:
        return 1000.0

    def context(self, port: int = 80) -> LayerContext:
        counters = cast("PortCounters", None)
        return LayerContext(cast("Runtime", self), "default/web", port, counters)


def test_a_window_is_that_of_a_name_and_a_number_of_counters_at_one_port_and_rule() -> None:
    ground = Ground()
    places = [ground.context(), ground.context(81), *(ground.context().of_rule(name) for name in "ab")]
    windows = [place.window(name, counters) for place in places for name in "xy" for counters in (1, 2)]
    assert len({id(window) for window in windows}) == len(windows)
    again = [ground.context().of_rule("a").window("x", 1), ground.context(81).window("y", 2)]
    assert [windows.index(window) for window in again] == [8, 7]


def test_a_window_has_not_any_number_of_counters() -> None:
    with pytest.raises(ValueError, match="1 to 31 counters"):
        Ground().context().window("x", MOST_COUNTERS + 1)
