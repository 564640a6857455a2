"""Which traced request is the exemplar of a bucket, and how many there may be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from discovery.model import ServiceKey
from nodeagent.stats.columns import DURATION_BOUNDS
from nodeagent.stats.exemplars import Exemplar, Exemplars
from nodeagent.stats.ledger import SeriesKey
from nodeagent.stats.region import SlotKey

CART: SlotKey = (ServiceKey("shop", "cart"), 80)
PAY: SlotKey = (ServiceKey("shop", "pay"), 80)
WEB, ADMIN = "shop/deployment/web", "shop/deployment/admin"


def own(key: SlotKey, source: str) -> SeriesKey:
    return key, source


def together(key: SlotKey, _: str) -> SeriesKey:
    return key, ""


def trace(number: int) -> bytes:
    return number.to_bytes(16)


def test_the_latest_of_each_bucket_is_kept() -> None:
    exemplars = Exemplars()
    exemplars.take(CART, WEB, trace(1), 0.003, 100.0)
    exemplars.take(CART, WEB, trace(2), 0.004, 101.0)
    exemplars.take(CART, WEB, trace(3), 20.0, 102.0)
    assert exemplars.by_series(own) == {
        (CART, WEB): {
            3: Exemplar(f"{2:032x}", 0.004, 101.0),
            len(DURATION_BOUNDS): Exemplar(f"{3:032x}", 20.0, 102.0),
        }
    }


def test_edges_that_share_a_series_show_the_latest() -> None:
    exemplars = Exemplars()
    exemplars.take(CART, WEB, trace(2), 0.003, 101.0)
    exemplars.take(CART, ADMIN, trace(1), 0.003, 100.0)
    exemplars.take(PAY, ADMIN, trace(3), 0.003, 99.0)
    found = exemplars.by_series(together)
    assert {key: one[3].trace_id for key, one in found.items()} == {
        (CART, ""): f"{2:032x}",
        (PAY, ""): f"{3:032x}",
    }


def test_of_too_many_edges_those_that_were_not_traced_for_the_longest_time_go() -> None:
    exemplars = Exemplars(most=2)
    exemplars.take(CART, WEB, trace(1), 0.003, 100.0)
    exemplars.take(CART, ADMIN, trace(2), 0.003, 101.0)
    exemplars.take(CART, WEB, trace(3), 0.3, 102.0)
    exemplars.take(PAY, WEB, trace(4), 0.003, 103.0)
    assert exemplars.by_series(own).keys() == {(CART, WEB), (PAY, WEB)}
    assert len(exemplars.by_series(own)[CART, WEB]) == 2


def test_none_is_shown_after_a_later_one() -> None:
    exemplars = Exemplars()
    exemplars.take(CART, WEB, trace(2), 0.003, 101.0)
    exemplars.take(CART, WEB, trace(1), 0.004, 100.0)
    exemplars.take(CART, ADMIN, trace(3), 0.003, 90.0)
    assert exemplars.by_series(together)[CART, ""][3].trace_id == f"{2:032x}"

    def web_has_its_own(key: SlotKey, source: str) -> SeriesKey:
        return key, source if source == WEB else ""

    found = exemplars.by_series(web_has_its_own)
    assert found[CART, WEB][3].trace_id == f"{2:032x}"
    assert found[CART, ""] == {}, "Prometheus has a later one in this series"
    assert exemplars.by_series(web_has_its_own)[CART, ""] == {}
    exemplars.take(CART, ADMIN, trace(4), 0.003, 102.0)
    assert exemplars.by_series(web_has_its_own)[CART, ""][3].trace_id == f"{4:032x}"


@given(st.floats(0, 100_000), st.binary(min_size=16, max_size=16), st.floats(0, 4e9))
def test_its_value_is_within_its_bucket_and_its_labels_are_short(
    seconds: float, trace_id: bytes, at: float
) -> None:
    exemplars = Exemplars()
    exemplars.take(CART, WEB, trace_id, seconds, at)
    ((bucket, exemplar),) = exemplars.by_series(own)[CART, WEB].items()
    assert exemplar.seconds <= (*DURATION_BOUNDS, float("inf"))[bucket]
    assert bucket == 0 or exemplar.seconds > DURATION_BOUNDS[bucket - 1]
    labels = exemplar.text().split("{")[1].split("}")[0]
    assert len(labels) <= 128
    assert abs(float(exemplar.text().split()[-2]) - seconds) <= 1e-6
