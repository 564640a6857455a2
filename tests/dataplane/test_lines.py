"""What a Service's own `svc.mesh/access-log` has the data plane tell, and with what: stages and the trace."""

from __future__ import annotations

import asyncio

import grpc
import msgspec
import pytest

from nodeagent.plan.model import LineChoice
from tests.dataplane.harness import Mesh
from tests.dataplane.test_grpc import Handlers, channel_to, serving
from tests.dataplane.test_resilience import GET_CLOSE, closed_port
from tests.dataplane.test_told import Told, echo, saying, watch

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = (
    b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n"
    b"TraceParent: 00-" + TRACE.encode() + b"-00f067aa0ba902b7-01\r\n\r\n"
)


def choose(mesh: Mesh, choice: LineChoice | None) -> None:
    """Have the Service that is served choose its lines."""
    assert mesh.listener is not None
    mesh.listener = msgspec.structs.replace(mesh.listener, access_log=choice)
    mesh.apply(mesh.listener)


async def ok(mesh: Mesh, status: bytes = b"200 OK", choice: LineChoice | None = None) -> Told:
    told = watch(mesh)
    await mesh.serve(await mesh.endpoint(saying(status)))
    choose(mesh, choice)
    return told


@pytest.mark.parametrize(
    "choice", [LineChoice(all=True), LineChoice(slow=60.0), LineChoice(share=1)], ids=["all", "slow", "share"]
)
async def test_everything_is_told_where_any_request_may_have_a_line(mesh: Mesh, choice: LineChoice) -> None:
    told = await ok(mesh, choice=choice)
    await mesh.ask(TRACED)
    (ended,) = told.ends
    assert ended.trace_id == TRACE
    assert ended.journey is not None
    assert ended.journey.tries == 1
    assert [stage.outcome for stage in ended.journey.stages if stage.kind == "try"] == ["200"]


async def test_only_failures_are_told_where_only_these_have_lines(mesh: Mesh) -> None:
    told = await ok(mesh, choice=LineChoice(errors=True))
    await mesh.ask(GET_CLOSE)
    assert told.ends == []
    mesh.endpoints(mesh.listener, await mesh.endpoint(saying(b"503 No")))  # type: ignore[arg-type]
    await mesh.ask(GET_CLOSE)
    assert [(ended.status, ended.journey is not None) for ended in told.ends] == [(503, True)]


async def test_no_journey_is_kept_for_a_service_that_says_nothing_or_off(mesh: Mesh) -> None:
    told = await ok(mesh, b"500 No")
    await mesh.ask(TRACED)
    assert [(ended.journey, ended.trace_id) for ended in told.ends] == [(None, TRACE)]
    choose(mesh, LineChoice())
    await mesh.ask(GET_CLOSE)
    assert [ended.journey for ended in told.ends] == [None, None], "what fails is told: it is remembered"
    mesh.endpoints(mesh.listener, await mesh.endpoint(saying(b"200 OK")))  # type: ignore[arg-type]
    await mesh.ask(GET_CLOSE)
    assert len(told.ends) == 2


async def test_the_endpoints_that_were_tried_in_vain_are_named(mesh: Mesh) -> None:
    told = watch(mesh)
    closed = closed_port()
    good = await mesh.endpoint(saying(b"200 OK"))
    await mesh.serve(closed, good)
    choose(mesh, LineChoice(all=True))
    for _ in range(2):
        await mesh.ask(GET_CLOSE)
    tries = [ended.journey for ended in told.ends if ended.journey is not None and ended.journey.tries == 2]
    assert tries
    assert next(stage.outcome for stage in tries[0].stages if stage.kind == "connect") == "connect_failed"


@pytest.mark.parametrize(
    "value",
    [b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01", b"x" * 9000, b"<script>", b"\xff\xfe"],
    ids=["zero", "enormous", "markup", "bytes"],
)
async def test_a_malformed_trace_is_none(mesh: Mesh, value: bytes) -> None:
    told = await ok(mesh, choice=LineChoice(all=True))
    await mesh.ask(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\nTraceparent: %b\r\n\r\n" % value)
    assert [ended.trace_id for ended in told.ends] == [""]


async def test_a_call_of_grpc_is_told_of_once(mesh: Mesh) -> None:
    told = watch(mesh)
    async with serving(Handlers()) as endpoint, channel_to(mesh, endpoint) as channel:
        for choice, expected in ((LineChoice(all=True), 2), (LineChoice(errors=True), 1), (LineChoice(), 1)):
            choose(mesh, choice)
            told.ends.clear()
            await channel.unary_unary("/test/Unary")(b"abc")
            with pytest.raises(grpc.RpcError):
                await channel.unary_unary("/test/Nothing")(b"")
            assert len(told.ends) == expected


async def test_connections_are_told_where_any_may_have_a_line(mesh: Mesh) -> None:
    told = watch(mesh)
    await mesh.serve(await mesh.endpoint(echo), protocol="tcp")
    choose(mesh, LineChoice(slow=60.0))
    reader, writer = await mesh.connect()
    writer.write(b"abc")
    assert await reader.readexactly(3) == b"abc"
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await asyncio.wait_for(writer.wait_closed(), 20)
    async with asyncio.timeout(20):
        while not told.closes:  # noqa: ASYNC110 nothing else tells
            await asyncio.sleep(0.01)
    assert [closed.reason for closed in told.closes] == ["client_closed"]


async def test_a_service_that_is_watched_tells_everything_until_nobody_watches(mesh: Mesh) -> None:
    told = await ok(mesh)
    mesh.proxy.tap({"default/web": 0})
    await mesh.ask(TRACED)
    assert [(ended.status, ended.journey is not None) for ended in told.ends] == [(200, True)]
    choose(mesh, LineChoice())
    await mesh.ask(GET_CLOSE)
    assert len(told.ends) == 2, "also after a change of the plan, and whatever the access log wants"
    mesh.proxy.tap({"default/other": 0})
    await mesh.ask(GET_CLOSE)
    assert len(told.ends) == 2


async def test_a_port_that_comes_while_its_service_is_watched_tells_too(mesh: Mesh) -> None:
    mesh.proxy.tap({"default/web": 0})
    told = await ok(mesh)
    await mesh.ask(GET_CLOSE)
    assert len(told.ends) == 1


async def test_who_watches_failures_is_told_of_these_alone(mesh: Mesh) -> None:
    told = await ok(mesh)
    choose(mesh, LineChoice())
    mesh.proxy.tap({"default/web": 500})
    await mesh.ask(GET_CLOSE)
    assert told.ends == []
    await mesh.serve()
    await mesh.ask(GET_CLOSE)
    assert [(ended.status, ended.journey is not None) for ended in told.ends] == [(503, True)]
