"""When the result of a change counts as good, as worse, and as still under way."""

from __future__ import annotations

import pytest

from nodeagent.meshctl.clusterdns.question import enabled_zones
from nodeagent.meshctl.clusterdns.verdict import WORSE, Sight, Verdict, Worse

GOOD = Sight("a")
WAITING = Sight("b", mesh="NXDOMAIN")
BAD = Sight("b", cluster="SERVFAIL")


def test_all_pods_have_to_answer() -> None:
    verdict = Verdict(10, strict=True)
    assert not verdict.judge((GOOD, WAITING), 0)
    assert verdict.judge((GOOD, Sight("b")), 1)


def test_a_reload_may_cost_an_answer_but_not_several_in_a_row() -> None:
    verdict = Verdict(10, strict=True)
    for _ in range(3):
        for _ in range(WORSE - 1):
            assert not verdict.judge((GOOD, BAD), 0)
        assert not verdict.judge((GOOD, WAITING), 0)
    for _ in range(WORSE - 1):
        verdict.judge((BAD,), 0)
    with pytest.raises(Worse, match="got worse: pod b: SERVFAIL"):
        verdict.judge((BAD,), 0)


def test_time_runs_out() -> None:
    with pytest.raises(Worse, match="not in force in time: pod b: NXDOMAIN"):
        Verdict(10, strict=True).judge((GOOD, WAITING), 10)


def test_a_removal_that_is_slow_is_none_the_worse() -> None:
    assert Verdict(10, strict=False).judge((WAITING,), 10)
    with pytest.raises(Worse, match="SERVFAIL"):
        Verdict(10, strict=False).judge((BAD,), 10)


def test_zones_in_the_metrics_of_coredns() -> None:
    text = """\
# TYPE coredns_plugin_enabled gauge
coredns_plugin_enabled{name="errors",server="dns://:53",view="",zone="a."} 1
coredns_plugin_enabled{name="forward",server="dns://:53",view="",zone="svc.mesh."} 1
coredns_plugin_enabled{server="dns://:53",zone=".",name="forward"} 1
"""
    assert enabled_zones(text) == {"svc.mesh", ""}
