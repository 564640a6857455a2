"""What ends when its time is over: each deadline of both sides, as the sweep finds it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from middleware.contract import Handler, Request, Response
from nodeagent.proxy.errors import ClientStalled
from nodeagent.settings import Limits
from nodeagent.stats import columns
from nodeagent.stats.columns import WORKER_HEAD_TIMEOUTS, WORKER_SLOT
from tests.exchange.http1 import FROM, HOST, Http1Stage, Own, get, got, http, ok, put, was_put
from tests.exchange.layers import Gate, layer
from tests.exchange.script import a, a1, a2, client, client2, passes
from tests.exchange.test_http1 import CLOSE, UPGRADE, TestTunnel, asked

Wires = Callable[..., Http1Stage]
LIMITS = Limits(
    head_time=10.0,
    idle_time=20.0,
    stall_time=5.0,
    response_time=30.0,
    connect_time=3.0,
    upstream_idle_time=8.0,
    upstream_connections=1,
    upstream_queue_time=4.0,
)
IDLE = {"svc.mesh/idle-timeout": "7s"}


class TestClient:
    def test_it_never_asks(self, wires: Wires) -> None:
        wires(limits=LIMITS).play(client >> "connects", passes(19.0), passes(1.0), client << "end")

    def test_it_asks_no_more(self, wires: Wires) -> None:
        """The time of the endpoint's connection is shorter."""
        asked(wires(limits=LIMITS)).play(
            a1 >> ok(), client << ok(), passes(8.0), a1 << "end", passes(11.0), passes(1.0), client << "end"
        )

    def test_a_head_that_does_not_end(self, wires: Wires) -> None:
        """Its time runs from its first byte, however many follow."""
        stage = wires(limits=LIMITS)
        stage.play(client >> "connects", passes(15.0), client >> b"GET / HT")
        for byte in b"TP/1.1\r\nX:":
            stage.play(passes(0.5), client >> bytes((byte,)))
        stage.play(passes(5.0), client << Own(408, "head_timeout", closing=True), client << "end")
        cells, base = stage.plane.cells, stage.plane.layout.base(WORKER_SLOT)
        assert cells[base + WORKER_HEAD_TIMEOUTS] == 1

    def test_a_head_that_does_not_end_behind_a_request(self, wires: Wires) -> None:
        asked(wires(limits=LIMITS), get() + b"GET /").play(
            passes(15.0),
            a1 >> ok(),
            client << ok(),
            passes(8.0),
            a1 << "end",
            passes(2.0),
            client << Own(408, "head_timeout", closing=True),
            client << "end",
        )

    def test_a_body_that_does_not_end(self, wires: Wires) -> None:
        asked(wires(limits=LIMITS), put(b"b", length=4), was_put(b"b", length=4)).play(
            passes(4.0),
            client >> b"o",
            a1 << b"o",
            passes(4.0),
            passes(1.0),
            client << Own(408, "body_timeout", closing=True),
            client << "end",
            a1 << "end",
        )

    def test_a_body_that_does_not_end_while_a_layer_waits(self, wires: Wires) -> None:
        gate = Gate()

        async def wait(request: Request, handler: Handler) -> Response:
            await gate()
            return await handler(request)

        wires(limits=LIMITS, layers=[("rule", layer(wait))]).play(
            client >> put(b"b", length=4),
            passes(5.0),
            client << Own(408, "body_timeout", closing=True),
            client << "end",
            gate.opens,
        )

    def test_it_does_not_read_its_response(self, wires: Wires) -> None:
        stage = asked(wires(limits=LIMITS))
        stage.play(client >> "stops reading", a1 >> ok(b"x" * 100, length=200))
        stage.play(passes(4.0), passes(1.0), a1 << "end", client << "reset")
        (ended,) = stage.plane.watcher.ends
        assert isinstance(ended.error, ClientStalled)

    def test_it_reads_its_response_slowly(self, wires: Wires) -> None:
        stage = asked(wires(limits=LIMITS))
        whole = ok(b"x" * 100, length=200)
        stage.play(client >> "stops reading", a1 >> whole)
        for at in range(5):
            stage.play(passes(4.0), client >> "reads 2", client << whole[2 * at : 2 * at + 2])
        stage.play(client >> "reads", client << whole[10:], a1 >> b"y" * 100, client << b"y" * 100)

    def test_it_does_not_read_the_end_of_its_response(self, wires: Wires) -> None:
        stage = asked(wires(limits=LIMITS))
        stage.play(
            client >> "stops reading", a1 >> ok(b"x" * 100), passes(4.0), passes(1.0), client << "reset"
        )

    def test_it_does_not_read_a_last_response(self, wires: Wires) -> None:
        """It is closed after its response, which does not get through."""
        stage = asked(wires(limits=LIMITS), get("/", CLOSE), got())
        stage.play(
            client >> "stops reading", a1 >> ok(b"x" * 100), passes(5.0), passes(2.0), client << "reset"
        )

    def test_it_reads_a_last_response_slowly(self, wires: Wires) -> None:
        stage = asked(
            wires(limits=msgspec.structs.replace(LIMITS, upstream_idle_time=100.0)), get("/", CLOSE), got()
        )
        whole = ok(b"x" * 100, CLOSE)
        stage.play(client >> "stops reading", a1 >> ok(b"x" * 100))
        for at in range(5):
            stage.play(passes(4.0), client >> "reads 2", client << whole[2 * at : 2 * at + 2])
        stage.play(client >> "reads", client << whole[10:], client << "end")

    def test_it_does_not_close_behind_its_last_response(self, wires: Wires) -> None:
        asked(wires(limits=LIMITS), get("/", CLOSE), got()).play(
            a1 >> ok(), client << ok(b"", CLOSE), client << "end", passes(1.0), passes(1.0), client << "reset"
        )

    def test_it_has_half_closed_and_is_not_answered(self, wires: Wires) -> None:
        """It may have left: it is not waited for as long as one that stays."""
        asked(wires(limits=LIMITS)).play(
            client >> "ends", passes(4.0), passes(1.0), a1 << "end", client << "reset"
        )

    def test_it_has_half_closed_and_is_answered_slowly(self, wires: Wires) -> None:
        stage = asked(wires(limits=LIMITS))
        stage.play(a1 >> ok(length=6), client << ok(length=6), client >> "ends")
        for _ in range(5):
            stage.play(passes(4.0), a1 >> b"x", client << b"x")
        stage.play(passes(4.0), passes(1.0), a1 << "end", client << "reset")


class TestEndpoint:
    def test_it_does_not_answer(self, wires: Wires) -> None:
        stage = asked(wires(limits=LIMITS))
        stage.play(passes(29.0), passes(1.0), client << Own(504, "response_timeout"), a1 << "end")
        stage.play(client >> get(), a << "dialled", a >> "accepts", a2 << got())

    def test_it_has_time_from_the_last_byte(self, wires: Wires) -> None:
        stage = asked(wires(limits=LIMITS), put(b"", length=4), was_put(b"", length=4))
        for _ in range(4):
            stage.play(passes(4.0), client >> b"x", a1 << b"x")
        stage.play(passes(29.0), passes(1.0), client << Own(504, "response_timeout"), a1 << "end")

    def test_a_layers_limit_is_in_its_place(self, wires: Wires) -> None:
        asked(wires(limits=LIMITS, annotations={"svc.mesh/timeout": "60s"})).play(
            passes(59.0), passes(2.0), client << Own(504, "request_timeout"), a1 << "end"
        )

    def test_it_does_not_read(self, wires: Wires) -> None:
        stage = asked(wires(limits=LIMITS), put(b"", length=300), was_put(b"", length=300))
        stage.play(a1 >> "stops reading", client >> b"x" * 100)
        answer = Own(504, "upstream_stalled", closing=True)
        stage.play(passes(4.0), passes(1.0), client << answer, client << "end", a1 << "end")
        assert stage.plane.count(columns.UPSTREAM_STALLED) == 1

    def test_it_reads_slowly(self, wires: Wires) -> None:
        stage = asked(wires(limits=LIMITS), put(b"", length=100), was_put(b"", length=100))
        stage.play(a1 >> "stops reading", client >> b"x" * 99)
        for _ in range(5):
            stage.play(passes(4.0), a1 >> "reads 2", a1 << b"xx")
        stage.play(a1 >> "reads", a1 << b"x" * 89)

    def test_its_response_may_pause(self, wires: Wires) -> None:
        asked(wires(limits=LIMITS)).play(
            a1 >> ok(length=2), client << ok(length=2), passes(100.0), a1 >> b"xx", client << b"xx"
        )

    def test_it_does_not_accept(self, wires: Wires) -> None:
        stage = wires(limits=LIMITS)
        stage.play(
            client >> get(),
            a << "dialled",
            passes(3.0),
            a << "given up",
            client << Own(503, "connect_failed"),
        )
        assert stage.plane.count(columns.UPSTREAM_CONNECT_TIMEOUT) == 1

    def test_nobody_is_silent_while_a_layer_waits(self, wires: Wires) -> None:
        gate = Gate()

        async def wait(request: Request, handler: Handler) -> Response:
            await gate()
            return await handler(request)

        wires(limits=LIMITS, layers=[("rule", layer(wait))]).play(
            client >> get(), passes(100.0), gate.opens, a << "dialled"
        )


class TestIdle:
    """`svc.mesh/idle-timeout`: nothing has moved for this long, whichever side had to act."""

    def test_before_an_answer(self, wires: Wires) -> None:
        asked(wires(limits=LIMITS, annotations=IDLE)).play(
            passes(6.0), passes(1.0), client << Own(504, "idle_timeout"), a1 << "end"
        )

    def test_within_a_response(self, wires: Wires) -> None:
        asked(wires(limits=LIMITS, annotations=IDLE)).play(
            a1 >> ok(length=3),
            client << ok(length=3),
            passes(6.0),
            a1 >> b"x",
            client << b"x",
            passes(6.0),
            passes(1.0),
            a1 << "end",
            client << "reset",
        )

    def test_in_a_tunnel(self, wires: Wires) -> None:
        request = http("GET / HTTP/1.1", HOST, FROM, *UPGRADE)
        asked(wires(limits=LIMITS, annotations=IDLE), get("/", *UPGRADE), request).play(
            a1 >> TestTunnel.SWITCHED,
            client << TestTunnel.SWITCHED,
            passes(6.0),
            client >> b"x",
            a1 << b"x",
            passes(6.0),
            a1 >> b"y",
            client << b"y",
            passes(7.0),
            a1 << "reset",
            client << "reset",
        )

    def test_without_it_a_tunnel_has_all_the_time(self, wires: Wires) -> None:
        request = http("GET / HTTP/1.1", HOST, FROM, *UPGRADE)
        asked(wires(limits=LIMITS), get("/", *UPGRADE), request).play(
            a1 >> TestTunnel.SWITCHED,
            client << TestTunnel.SWITCHED,
            passes(500.0),
            client >> b"x",
            a1 << b"x",
        )


class TestTunnelEnds:
    def begin(self, wires: Wires) -> Http1Stage:
        request = http("GET / HTTP/1.1", HOST, FROM, *UPGRADE)
        stage = asked(wires(limits=LIMITS), get("/", *UPGRADE), request)
        stage.play(a1 >> TestTunnel.SWITCHED, client << TestTunnel.SWITCHED)
        return stage

    def test_last_bytes_for_an_endpoint_that_does_not_read(self, wires: Wires) -> None:
        stage = self.begin(wires)
        stage.play(a1 >> "stops reading", client >> b"last", client >> "ends", a1 >> "ends", client << "end")
        stage.play(passes(29.0), passes(1.0), a1 << "reset")

    def test_last_bytes_for_a_client_that_does_not_read(self, wires: Wires) -> None:
        stage = self.begin(wires)
        stage.play(client >> "stops reading", a1 >> b"last", a1 >> "ends", client >> "ends", a1 << "end")
        stage.play(passes(5.0), passes(2.0), client << "reset")


class TestDrain:
    def test_an_idle_client_is_let_go(self, wires: Wires) -> None:
        stage = asked(wires(limits=LIMITS))
        stage.play(a1 >> ok(), client << ok())
        stage.plane.runtime.draining = True
        stage.play(passes(1.0), client << "end")

    def test_a_busy_one_is_answered_and_let_go(self, wires: Wires) -> None:
        stage = asked(wires(limits=LIMITS))
        stage.plane.runtime.draining = True
        stage.play(passes(3.0), a1 >> ok(), client << ok(b"", CLOSE), client << "end")

    @pytest.mark.parametrize("again", [False, True])
    def test_its_service_leaves(self, wires: Wires, again: bool) -> None:
        stage = asked(wires(limits=LIMITS))
        listeners = stage.plane.listeners

        def leaves() -> None:
            listeners.apply((), [stage.plane.spec.key])
            if again:
                listeners.apply([(stage.plane.spec, 2)], ())

        answer = ok(b"", CLOSE)
        stage.play(leaves, a1 >> ok(), client << answer, client << "end")


class TestQueue:
    def test_too_long(self, wires: Wires) -> None:
        asked(wires(limits=LIMITS)).play(
            client2 >> get(), passes(3.0), passes(2.0), client2 << Own(503, "pool_timeout")
        )
