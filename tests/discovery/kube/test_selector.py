"""Selectors that the API server takes are taken, others are refused with the term that is wrong."""

from __future__ import annotations

import pytest

from discovery.kube.selector import check_selector

TAKEN = [
    "team",
    "!team",
    "team=shop",
    "team==shop",
    "team!=shop",
    "team=",
    "svc.mesh/watch=true",
    "team in (shop,pay)",
    "team notin (shop, pay),!internal,tier=front",
    "generation>3",
    f"{'a.' * 126}b/{'n' * 63}={'v' * 63}",
]
REFUSED = [
    ("", "a term is empty"),
    ("team=shop,", "a term is empty"),
    ("team shop", "'team shop' is none of"),
    ("team in shop", "'team in shop' is none of"),
    ("team in (shop", "is none of"),
    ("team=a=b", "is none of"),
    ("-team=shop", "'-team' is not the key"),
    ("/team", "'/team' is not the key"),
    ("Svc.Mesh/team", "is not the key"),
    ("team=sh op", "is none of"),
    ("team=-shop", "'-shop' is not the value"),
    ("team in (shop, p@y)", "'p@y' is not the value"),
    (f"team={'v' * 64}", "is not the value"),
    ("generation>many", "'many' is not a whole number"),
    ("team&limit=1", "is not the key"),
]


@pytest.mark.parametrize("text", TAKEN)
def test_what_kubernetes_takes_is_taken(text: str) -> None:
    assert check_selector(text) == text


def test_space_around_terms_is_dropped() -> None:
    assert check_selector(" team = shop , !internal ") == "team = shop,!internal"


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_it_does_not_take_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="such as svc") as raised:
        check_selector(text)
    assert reason in str(raised.value)
