"""Ports of tcp, as bytes on the wire."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodeagent.stats import columns
from tests.exchange.http1 import Http1Stage
from tests.exchange.script import a, a1, b, b1, c, client, passes

Wires = Callable[..., Http1Stage]


def joined(wires: Wires, **options: object) -> Http1Stage:
    stage = wires(protocol="tcp", **options)
    stage.play(client >> "connects", a << "dialled", a >> "accepts")
    return stage


def test_bytes_both_ways(wires: Wires) -> None:
    stage = joined(wires)
    stage.play(a1 >> b"hello", client << b"hello", client >> b"hi", a1 << b"hi")
    assert stage.plane.count(columns.BYTES_SENT) == 5
    assert stage.plane.count(columns.BYTES_RECEIVED) == 2


def test_what_is_said_while_connecting(wires: Wires) -> None:
    stage = wires(protocol="tcp")
    stage.play(client >> b"early", a << "dialled", client >> b"more", client >> "ends")
    assert stage.held("client")
    stage.play(a >> "accepts", a1 << b"earlymore", a1 << "end", a1 >> b"late", client << b"late")
    stage.play(a1 >> "ends", client << "end")


def test_an_end_while_connecting(wires: Wires) -> None:
    wires(protocol="tcp").play(
        client >> "connects",
        a << "dialled",
        client >> "ends",
        a >> "accepts",
        a1 << "end",
        a1 >> "ends",
        client << "end",
    )


@pytest.mark.parametrize("first", [client, a1], ids=["client", "endpoint"])
def test_half_closes(wires: Wires, first: object) -> None:
    one, other = (client, a1) if first is client else (a1, client)
    joined(wires).play(
        one >> "ends", other << "end", other >> b"late", one << b"late", other >> "ends", one << "end"
    )


@pytest.mark.parametrize("first", [client, a1], ids=["client", "endpoint"])
def test_a_reset_passes(wires: Wires, first: object) -> None:
    one, other = (client, a1) if first is client else (a1, client)
    joined(wires).play(one >> "resets", other << "reset")


def test_a_reset_while_connecting(wires: Wires) -> None:
    wires(protocol="tcp").play(client >> "connects", a << "dialled", client >> "resets", a << "given up")


def test_a_reset_in_the_turn_in_which_the_connection_is_made(wires: Wires) -> None:
    stage = wires(protocol="tcp")
    stage.play(client >> "connects", a << "dialled")

    def at_once() -> None:
        stage.wire("client").resets()
        stage.loop.turn()
        stage.accepts("a")

    stage.play(at_once, a1 << "end")


def test_connecting_takes_too_long_by_one_turn(wires: Wires) -> None:
    """It was joined already: both ends learn that it is over."""
    stage = wires(protocol="tcp")
    stage.play(client >> "connects", a << "dialled")

    def at_once() -> None:
        stage.loop.now += 3.0
        stage.accepts("a")
        stage.loop.advance(0.0)

    stage.play(at_once)
    stage.log.clear()


def test_an_endpoint_that_breaks_off_at_once(wires: Wires) -> None:
    stage = wires(protocol="tcp")
    stage.play(client >> "connects", a << "dialled", lambda: stage.accepts("a").resets(), client << "reset")


def test_others_are_tried(wires: Wires) -> None:
    stage = wires(protocol="tcp", endpoints="abc")
    stage.play(
        client >> b"x",
        a << "dialled",
        a >> "refuses",
        c << "dialled",
        c >> "refuses",
        b << "dialled",
        b >> "accepts",
        b1 << b"x",
    )
    assert stage.plane.count(columns.UPSTREAM_CONNECT_FAILED) == 2


def test_all_refuse(wires: Wires) -> None:
    wires(protocol="tcp").play(client >> "connects", a << "dialled", a >> "refuses", client << "reset")


def test_no_endpoint(wires: Wires) -> None:
    wires(protocol="tcp", endpoints="").play(client >> "connects", client << "reset")


def test_backpressure_both_ways(wires: Wires) -> None:
    stage = joined(wires)
    stage.play(client >> "stops reading", a1 >> "stops reading", client >> b"x" * 100, a1 >> b"y" * 100)
    assert stage.held("client")
    assert stage.held("a1")
    stage.play(client >> b"more", client >> "ends", a1 >> b"more", a1 >> "ends")
    stage.play(client >> "reads", client << b"y" * 100 + b"more", client << "end")
    stage.play(a1 >> "reads", a1 << b"x" * 100 + b"more", a1 << "end")


def test_last_bytes_that_do_not_get_through(wires: Wires) -> None:
    stage = joined(wires)
    stage.play(a1 >> "stops reading", client >> b"last", client >> "ends", a1 >> "ends", client << "end")
    stage.play(passes(59.0), passes(1.0), a1 << "reset")


def test_idle(wires: Wires) -> None:
    stage = joined(wires, annotations={"svc.mesh/idle-timeout": "7s"})
    stage.play(passes(6.0), client >> b"x", a1 << b"x", passes(6.0), a1 >> b"y", client << b"y", passes(6.0))
    stage.play(passes(1.0), client << "reset", a1 << "reset")


@pytest.mark.parametrize("first", [client, a1], ids=["client", "endpoint"])
def test_what_still_moves_after_a_half_close_is_not_idle(wires: Wires, first: object) -> None:
    stage = joined(wires, annotations={"svc.mesh/idle-timeout": "10s"})
    one, other = (client, a1) if first is client else (a1, client)
    stage.play(one >> "ends", other << "end")
    for _ in range(3):
        stage.play(passes(6), other >> b"on", one << b"on")
    stage.play(passes(11), client << "reset", a1 << "reset")
    assert [closed.reason for closed in stage.plane.watcher.closes] == ["idle_timeout"]
