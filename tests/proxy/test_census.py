"""What is counted of open connections, and since when they are paused."""

from __future__ import annotations

import dataclasses

from nodeagent.proxy.census import Census, CensusTaker


@dataclasses.dataclass(eq=False)
class Open:
    of_client: bool = True
    busy: bool = False
    paused: bool = False
    deadline: float = 0.0
    owner: str = ""
    held: int = 0

    def expire(self, now: float) -> None:
        """Never asked here."""

    def drain(self, now: float) -> None:
        """Never asked here."""

    def reset(self) -> None:
        """Never asked here."""


def test_both_sides_are_counted_by_what_they_do() -> None:
    clients = [Open(), Open(busy=True), Open(busy=True)]
    upstreams = [Open(of_client=False, busy=True), Open(of_client=False), Open(of_client=False)]
    assert CensusTaker().take([*clients, *upstreams], 1.0) == Census(3, 2, 1, 2)


def test_a_pause_is_as_long_as_it_has_been_seen() -> None:
    taker = CensusTaker()
    stuck, brief = Open(paused=True), Open(paused=True)
    assert taker.take([stuck, brief], 10.0) == Census(2, 0, 0, 0, 2, 0.0)
    assert taker.take([stuck, brief], 11.0) == Census(2, 0, 0, 0, 2, 1.0)
    brief.paused = False
    assert taker.take([stuck, brief], 12.0) == Census(2, 0, 0, 0, 1, 2.0)
    stuck.paused, brief.paused = False, True
    assert taker.take([stuck, brief], 13.0) == Census(2, 0, 0, 0, 1, 0.0), "a new pause"


def test_who_is_gone_is_forgotten() -> None:
    taker = CensusTaker()
    taker.take([Open(paused=True)], 1.0)
    assert taker.take([], 50.0) == Census()
