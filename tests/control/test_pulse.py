"""When a process that gives no sign of life counts as hung."""

from __future__ import annotations

from nodeagent.control.pulse import Pulse


def test_looks_without_a_change_are_counted() -> None:
    pulse = Pulse()
    assert [pulse.look(number) for number in (10, 10, 10, 20, 20)] == [0, 1, 2, 0, 1]


def test_a_process_that_has_not_begun_is_counted_from_the_first_look() -> None:
    pulse = Pulse()
    assert [pulse.look(number) for number in (0, 0, 5)] == [1, 2, 0]
