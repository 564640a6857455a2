"""The nftables text is pure and compared with golden files; the kernel's view of it is in tests/lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.capture.observed import ObservedTable, judge
from nodeagent.capture.route import prefixes_of
from nodeagent.capture.ruleset import (
    Layout,
    check_keys,
    layout_of,
    render_change,
    render_removal,
    render_table,
    rules_of,
)
from nodeagent.settings import Settings

GOLDEN = Path(__file__).parent.parent / "golden" / "capture"


def settings(mesh_range: str = "240.0.0.0/4") -> Settings:
    return Settings(
        source="file:unused",
        capture="nftables",
        mesh_range=mesh_range,
        zone="svc.mesh",
        alias_zones=(),
        dns_listen=("240.0.0.53", 15053),
        admin_listen=("127.0.0.1", 15000),
        workers=1,
        node_name="n1",
        drain_timeout=30.0,
        log_level="info",
        log_format="json",
    )


def layout(mesh_range: str = "240.0.0.0/4") -> Layout:
    return layout_of(settings(mesh_range), "0badcafe")


def test_table() -> None:
    keys = [("250.96.0.11", 443), ("250.96.0.10", 80), ("250.96.0.10", 8080)]
    assert render_table(layout(), keys) == (GOLDEN / "table.nft").read_text()


def test_table_without_services() -> None:
    assert render_table(layout("10.192.0.0/12"), ()) == (GOLDEN / "empty.nft").read_text()


def test_order_of_keys_does_not_show() -> None:
    keys = [("250.96.0.11", 443), ("250.96.0.10", 80)]
    assert render_table(layout(), keys) == render_table(layout(), reversed(keys))


def test_change() -> None:
    added, removed = {("250.96.0.12", 80)}, {("250.96.0.10", 80), ("250.96.0.10", 8080)}
    assert render_change(layout(), added, removed) == (
        "flush chain ip svcmesh owner-0badcafe-240.0.0.0/4\n"
        "delete element ip svcmesh workers { 250.96.0.10 . 80, 250.96.0.10 . 8080 }\n"
        "add element ip svcmesh workers { 250.96.0.12 . 80 : 240.0.0.1 . 15001 }\n"
    )


def test_removal() -> None:
    assert render_removal(layout()) == (
        "flush chain ip svcmesh owner-0badcafe-240.0.0.0/4\ndelete table ip svcmesh\n"
    )


@pytest.mark.parametrize(
    "key",
    [
        ("example.org", 80),
        ("250.96.0.10 }\ndelete table ip filter", 80),
        ("10.0.0.1", 80),
        ("250.96.0.10", 0),
        ("250.96.0.10", 65536),
        ("250.96.010", 80),
    ],
)
def test_keys_that_nft_must_not_see(key: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match="is not an address of"):
        check_keys(layout(), [("250.96.0.10", 80), key])


def test_the_broadcast_address_is_left_alone() -> None:
    prefixes = prefixes_of(settings().network)
    assert len(prefixes) == 28
    assert prefixes[0] == "240.0.0.0/5"
    assert prefixes[-1] == "255.255.255.254/32"
    assert layout().addresses == "240.0.0.0-255.255.255.254"


def test_another_range_is_one_route() -> None:
    assert prefixes_of(settings("10.192.0.0/12").network) == ("10.192.0.0/12",)
    assert layout("10.192.0.0/12").addresses == "10.192.0.0-10.207.255.255"


def test_judging_a_table() -> None:
    ours = layout()
    successor = layout_of(settings(), "5ccce550")
    flushed = dict.fromkeys(rules_of(ours), 0)
    assert judge(None, ours) == "missing"
    assert judge(ObservedTable(rules_of(ours)), ours) == "ours"
    assert judge(ObservedTable(flushed), ours) == "altered"
    assert judge(ObservedTable({"steer": 4}), ours) == "altered"
    assert judge(ObservedTable(rules_of(successor)), ours) == "superseded"
    assert judge(ObservedTable({}), ours) == "altered"
