"""What is told at the end."""

from __future__ import annotations

import msgspec

from hack.soak.ledger import Break, Ledger, Outcome, Result
from hack.soak.report import (
    Report,
    Violation,
    excused,
    growing,
    progress,
    render,
    requests_by_kind,
    unexcused,
)
from hack.soak.series import MIB, Trend
from hack.soak.watch import Gauges

FLAT = Trend("agent (1)", "memory", 99, 600.0, 60.0 * MIB, 61.0 * MIB, MIB, 6.0 * MIB, MIB)
GROWING = Trend("worker 0 (2)", "memory", 99, 600.0, 30.0 * MIB, 50.0 * MIB, MIB, 6.0 * MIB, 20.0 * MIB)


def ledger() -> Ledger:
    made = Ledger()
    window = made.open("killed", 10.0)
    window.until = 10.1
    made.record(Outcome("get", "plain", 1.0, 2.0))
    made.record(Outcome("get", "limited", 1.0, 2.0, Result.MEANT, "rate_limited"))
    made.record(Outcome("get", "plain", 9.0, 10.0, Result.FAILED, "reset", Break.CONNECTION))
    made.record(Outcome("post", "plain", 20.0, 20.5, Result.FAILED, "502 upstream_reset", Break.ANSWER))
    return made


def report(*violations: Violation) -> Report:
    return Report(
        seed=7,
        seconds=3661.0,
        requests=requests_by_kind(ledger()),
        meant={"limited: rate_limited": 1},
        excused=excused(ledger().judge()),
        events={"killed": 1},
        trends=[FLAT, GROWING],
        descriptors={"agent": (30, 29)},
        drained_in=1.5,
        cpu={"load": 0.25},
        violations=violations,
    )


def test_requests_are_counted_by_kind_and_result() -> None:
    assert requests_by_kind(ledger()) == {
        "get": {"ok": 1, "meant": 1, "failed": 1},
        "post": {"ok": 0, "meant": 0, "failed": 1},
    }


def test_a_failure_without_an_excuse_is_named_with_its_time() -> None:
    (violation,) = unexcused(ledger().judge(), began=0.5)
    assert violation.what == "post to plain failed after 0.50 s: 502 upstream_reset"
    assert violation.at == 20.0


def test_what_grows_is_named_with_how_much() -> None:
    (violation,) = growing([FLAT, GROWING], 600.0)
    assert violation.what == (
        "worker 0 (2): memory grew from 30.00 MiB to 50.00 MiB, 20.00 MiB in 600 s, and may by 6.00 MiB"
    )


def test_the_table_says_whether_it_is_good() -> None:
    good, bad = report(), report(Violation("something is left", 61.0))
    assert good.good
    assert render(good).endswith("No violation.")
    assert not bad.good
    assert render(bad).endswith("1 VIOLATION\n  at 0:01:01: something is left")
    assert "1:01:01 with seed 7" in render(good)


def test_the_document_holds_all_of_it() -> None:
    document = msgspec.json.decode(msgspec.json.encode(report(Violation("left", 2.0))))
    assert document["violations"] == [{"what": "left", "at": 2.0}]
    assert document["trends"][1]["growth"] == 20.0 * MIB
    assert document["excused"] == {"killed": 1}


def test_the_line_of_the_moment() -> None:
    made = ledger()
    line = progress(90.0, made, made.judge(), {"agent (1)": 61.5 * MIB}, {"killed": 2, "cut": 3}, 1)
    assert line == (
        "0:01:30  4 requests, 2 failed (1 without excuse), 1 violations; MiB: agent 61.5; 3 cut, 2 killed"
    )


def test_what_is_left_is_told_by_worker() -> None:
    page = """\
svcmesh_agent_tasks 9.0
svcmesh_worker_exchanges{worker="0"} 0.0
svcmesh_worker_exchanges{worker="1"} 2.0
svcmesh_worker_upstream_connections_idle{worker="1"} 5.0
svcmesh_connections_active{service="plain",namespace="soak",port="18080"} 3
svcmesh_connections_active{service="retry",namespace="soak",port="18080"} 0
"""
    gauges = Gauges(page)
    assert gauges.left() == ["worker 1: exchanges 2", "plain: 3 active connections"]
    assert gauges.agent_tasks == 9.0
