"""Which failures are excused, and which are not."""

from __future__ import annotations

import pytest

from hack.soak.ledger import SETTLE, Break, Ledger, Outcome, Result, tally


def failed(
    started: float,
    ended: float,
    how: Break = Break.CONNECTION,
    *,
    service: str = "plain",
    unsafe: bool = False,
) -> Outcome:
    return Outcome("get", service, started, ended, Result.FAILED, "broke", how, unsafe)


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger(["retry"])
    window = made.open("killed", 10.0)
    window.until = 10.1
    return made


@pytest.mark.parametrize(
    ("outcome", "excused"),
    [
        (failed(9.0, 10.05), True),
        (failed(9.0, 12.0), True),
        (failed(10.05, 10.06), True),
        (failed(10.1 + SETTLE, 10.6), True),
        (failed(9.0, 9.9), False),
        (failed(10.2 + SETTLE, 10.6), False),
        (failed(9.0, 10.05, Break.ANSWER), False),
        (failed(9.0, 40.0, Break.TIMEOUT), False),
    ],
)
def test_a_killed_worker_excuses_connections_that_broke_meanwhile(
    ledger: Ledger, outcome: Outcome, excused: bool
) -> None:
    ledger.record(outcome)
    (verdict,) = ledger.judge()
    assert verdict.excuse == ("killed" if excused else "")


@pytest.mark.parametrize("how", list(Break))
def test_a_hung_worker_excuses_every_failure_while_it_lasts(how: Break) -> None:
    ledger = Ledger()
    ledger.open("hung", 10.0, any_break=True)
    ledger.record(failed(8.0, 9.0, how))
    ledger.record(failed(50.0, 80.0, how))
    assert tally(ledger.judge()) == {"": 1, "hung": 1}


@pytest.mark.parametrize(
    ("service", "how", "unsafe", "excused"),
    [
        ("retry", Break.ANSWER, True, True),
        ("retry", Break.ANSWER, False, False),
        ("retry", Break.CONNECTION, True, False),
        ("plain", Break.ANSWER, True, False),
    ],
)
def test_what_may_not_be_sent_twice_is_excused_where_endpoints_reset(
    service: str, how: Break, unsafe: bool, excused: bool
) -> None:
    ledger = Ledger(["retry"])
    ledger.record(failed(1.0, 2.0, how, service=service, unsafe=unsafe))
    assert bool(ledger.judge()[0].excuse) is excused


def test_everything_is_counted() -> None:
    ledger = Ledger()
    ledger.record(Outcome("get", "plain", 1.0, 2.0))
    ledger.record(Outcome("get", "limited", 1.0, 2.0, Result.MEANT, "rate_limited"))
    ledger.record(failed(1.0, 2.0))
    assert (ledger.total, ledger.failed) == (3, 1)
    assert ledger.meant == {("limited", "rate_limited"): 1}
    assert ledger.counts["get", "plain", Result.OK] == 1
