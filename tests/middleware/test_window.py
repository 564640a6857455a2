from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from middleware.window import RollingWindow


@given(st.lists(st.floats(0, 40, allow_nan=False), min_size=1, max_size=60))
def test_a_window_holds_what_happened_in_its_last_buckets(gaps: list[float]) -> None:
    window: RollingWindow[list[float]] = RollingWindow(list, count=10, width=1.0)
    now = 5.0
    times = []
    for gap in gaps:
        now += gap
        times.append(now)
        window.current(now).append(now)
        held = [time for bucket in window.buckets(now) for time in bucket]
        assert len(window.buckets(now)) <= 10
        assert held == times[-len(held) :]
        assert set(held) >= {time for time in times if time > now - 9}
        assert all(time >= now - 10 for time in held)


def test_clearing_forgets() -> None:
    window: RollingWindow[list[float]] = RollingWindow(list, count=3, width=1.0)
    window.current(1.0).append(1.0)
    window.clear()
    window.current(1.1).append(1.1)
    assert list(window.buckets(1.2)) == [[1.1]]
