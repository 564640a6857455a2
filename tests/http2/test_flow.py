"""Windows and patience, with the peer's moves in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.proxy.budget import Budget
from nodeagent.proxy.http2.flood import Patience
from nodeagent.proxy.http2.flow import LARGEST_STREAM_WINDOW, STREAM_WINDOW, ReceiveWindow

MOVES = st.lists(st.tuples(st.booleans(), st.integers(0, 3 * STREAM_WINDOW)), max_size=200)


class Sender:
    """A peer that keeps to its window."""

    def __init__(self, window: int) -> None:
        self.may_send = window


@given(MOVES, st.integers(0, 4 * LARGEST_STREAM_WINDOW))
def test_a_peer_that_keeps_to_its_window_is_never_refused(
    moves: list[tuple[bool, int]], budgeted: int
) -> None:
    budget = Budget(budgeted)
    window = ReceiveWindow(STREAM_WINDOW, budget)
    may_send, waits = STREAM_WINDOW, 0
    for sends, size in moves:
        if sends:
            size = min(size, may_send)
            may_send -= size
            waits += size
            assert window.received(size) == 0
        else:
            size = min(size, waits)
            waits -= size
            may_send += window.passed_on(size)
        assert window.waiting == waits
        assert window.left == may_send
        assert window.left + window.waiting + window.owed == window.size <= LARGEST_STREAM_WINDOW
        assert window.size - STREAM_WINDOW + budget.left == budgeted
        assert budget.left >= 0
    may_send += window.passed_on(waits)
    assert may_send * 2 >= window.size, "a peer whose bytes have all been passed on may always go on"
    window.close()
    window.close()
    assert budget.left == budgeted


def test_one_byte_too_many() -> None:
    window = ReceiveWindow(10)
    assert window.received(10) == 0
    assert window.received(1) == -1


def test_it_grows_while_the_reader_keeps_up() -> None:
    window = ReceiveWindow(STREAM_WINDOW, Budget(2**30))
    for _ in range(200):
        window.received(16_384)
        window.passed_on(16_384)
    assert window.size > LARGEST_STREAM_WINDOW // 2


def test_it_does_not_grow_for_a_slow_reader() -> None:
    """Something waits whenever some of it is passed on."""
    window = ReceiveWindow(STREAM_WINDOW, Budget(2**30))
    window.received(STREAM_WINDOW)
    for _ in range(200):
        window.received(window.passed_on(10_000))
    assert window.size == STREAM_WINDOW


def test_windows_share_one_budget() -> None:
    budget = Budget(STREAM_WINDOW)
    one, other = ReceiveWindow(STREAM_WINDOW, budget), ReceiveWindow(STREAM_WINDOW, budget)
    for window in (one, other):
        window.received(STREAM_WINDOW)
        window.passed_on(STREAM_WINDOW)
    assert (one.size, other.size) == (2 * STREAM_WINDOW, STREAM_WINDOW)
    one.close()
    other.received(STREAM_WINDOW)
    other.passed_on(STREAM_WINDOW)
    assert other.size == 2 * STREAM_WINDOW


def test_a_stream_that_has_ended_borrows_nothing() -> None:
    """What has waited is passed on in a turn of its own, and the stream may have ended before that."""
    budget = Budget(STREAM_WINDOW)
    window = ReceiveWindow(STREAM_WINDOW, budget)
    window.received(STREAM_WINDOW)
    window.close()
    window.passed_on(STREAM_WINDOW)
    assert budget.left == STREAM_WINDOW


class TestPatience:
    def test_it_runs_out_and_comes_back(self) -> None:
        now = 0.0
        patience = Patience(10, 2.0, lambda: now)
        assert all(patience.spend() for _ in range(10))
        assert not patience.spend()
        now = 100.0
        assert all(patience.spend() for _ in range(8))

    def test_work_fills_it_up_to_its_size(self) -> None:
        patience = Patience(10, 0.0, lambda: 0.0)
        for _ in range(100):
            patience.left += 5
        assert all(patience.spend() for _ in range(10))
        assert not patience.spend()
        patience.left += 3
        assert patience.spend()
