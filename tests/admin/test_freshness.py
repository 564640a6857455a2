"""A source's way through fresh and stale, and what people read of it."""

from __future__ import annotations

from nodeagent.admin.freshness import Freshness, describe_source, describe_state
from nodeagent.plan.counts import ServiceCounts

NOON = 1_700_000_000.0
"""2023-11-14, 22:13:20 UTC."""


def test_a_source_that_never_told_anything_is_neither_fresh_nor_stale() -> None:
    new = Freshness()
    assert (new.fresh, new.stale, new.stale_seconds(NOON)) == (False, False, 0.0)
    assert describe_source(new, NOON) == "source: waiting for the first list"


def test_a_source_that_is_lost_says_since_when_and_why() -> None:
    lost = Freshness().regained(NOON - 100).lost("Service: connection refused", NOON)
    assert (lost.fresh, lost.stale, lost.synced) == (False, True, NOON - 100)
    assert lost.stale_seconds(NOON + 42) == 42
    assert (
        describe_source(lost, NOON + 42)
        == "source: stale since 2023-11-14T22:13:20Z (42s): Service: connection refused"
    )


def test_to_be_lost_again_changes_the_reason_and_not_the_time() -> None:
    lost = Freshness().lost("no answer yet", NOON).lost("status 503", NOON + 5)
    assert (lost.stale_since, lost.reason) == (NOON, "status 503")


def test_it_ends_with_the_next_list() -> None:
    again = Freshness().lost("no answer yet", NOON).regained(NOON + 9)
    assert (again.fresh, again.stale, again.reason) == (True, False, "")
    assert describe_source(again, NOON + 10) == "source: fresh, last listed 2023-11-14T22:13:29Z"


def test_a_clock_that_went_back_makes_no_negative_age() -> None:
    assert Freshness().lost("", NOON).stale_seconds(NOON - 1) == 0


def test_the_plan_has_a_line_too() -> None:
    fresh = Freshness().regained(NOON)
    assert list(describe_state(fresh, 0, 0.0, ServiceCounts(), NOON))[1] == "plan: none yet"
    assert (
        list(describe_state(fresh, 7, NOON - 3, ServiceCounts(2, 1, 3), NOON))[1]
        == "plan: version 7, changed 3s ago, 2 Services in the mesh, 1 left out, 3 with problems"
    )
