"""Outlier detection, zones and failover, end to end: what clients get, and who is asked for it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from discovery.model import Endpoint, ServiceKey
from nodeagent.plan.model import BackendKey, BackendSpec, Locality, OutlierDetection
from nodeagent.plan.outlier_detection import ALL
from nodeagent.stats import columns
from nodeagent.stats.columns import FIRST_SLOT
from tests.dataplane.harness import Handler, Mesh, answering
from tests.dataplane.test_grpc import Handlers, channel_to, fails, serving
from tests.dataplane.test_resilience import GET_CLOSE, closed_port, reset_unanswered
from tests.dataplane.test_told import saying

THREE = OutlierDetection(ALL, consecutive=3)
STANDBY = BackendKey(ServiceKey("default", "standby"), 80)


def closing(body: bytes) -> Handler:
    """A server that says this after a request, and closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    return handle


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """A server that never answers."""
    await reader.read(-1)


async def until_only(mesh: Mesh, body: bytes, requests: int = 40) -> None:
    """Ask until six answers in a row end so."""
    streak = 0
    for _ in range(requests):
        answer = await mesh.ask(GET_CLOSE)
        streak = streak + 1 if answer.endswith(body) else 0
        if streak == 6:
            return
    raise AssertionError(f"the last answers were not {body!r} alone")


def ejected(mesh: Mesh) -> int:
    return mesh.count(columns.OUTLIER_EJECTIONS)


async def garbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that answers something that is not HTTP."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"220 ready\r\n\r\n")


@pytest.mark.parametrize("bad", [saying(b"500 Oops"), saying(b"503 Unwell"), reset_unanswered, garbling])
async def test_an_endpoint_that_fails_leaves_circulation(mesh: Mesh, bad: Handler) -> None:
    mesh.more = {"outlier_detection": THREE}
    await mesh.serve(await mesh.endpoint(bad), await mesh.endpoint(answering()))
    await until_only(mesh, b"\r\n\r\nok")
    assert ejected(mesh) == 1


async def test_one_that_does_not_answer_leaves_too(mesh: Mesh) -> None:
    mesh.more = {"outlier_detection": OutlierDetection(("timeout",), consecutive=2)}
    timeout = {"svc.mesh/timeout": "50ms"}
    await mesh.serve(await mesh.endpoint(silent), await mesh.endpoint(answering()), annotations=timeout)
    await until_only(mesh, b"\r\n\r\nok")
    assert ejected(mesh) == 1


async def test_it_sees_every_try_of_a_retry(mesh: Mesh) -> None:
    mesh.more = {"outlier_detection": THREE}
    retry = {"svc.mesh/retry-attempts": "2", "svc.mesh/retry-on": "5xx"}
    bad, good = await mesh.endpoint(saying(b"503 Unwell")), await mesh.endpoint(answering())
    await mesh.serve(bad, good, annotations=retry)
    answers = [await mesh.ask(GET_CLOSE) for _ in range(12)]
    assert all(answer.endswith(b"ok") for answer in answers)
    assert ejected(mesh) == 1


async def test_answers_that_are_not_counted_do_no_harm(mesh: Mesh) -> None:
    mesh.more = {"outlier_detection": OutlierDetection(("gateway-error",), consecutive=1)}
    await mesh.serve(await mesh.endpoint(saying(b"500 Oops")), await mesh.endpoint(saying(b"404 No")))
    for _ in range(8):
        await mesh.ask(GET_CLOSE)
    assert ejected(mesh) == 0


async def test_calls_count_with_the_status_that_they_end_with(mesh: Mesh) -> None:
    mesh.more = {"outlier_detection": THREE}
    handlers, good = Failing(), Handlers()
    async with serving(handlers) as bad, serving(good) as well, channel_to(mesh, bad, well) as channel:
        codes = []
        for _ in range(16):
            try:
                await channel.unary_unary("/test/Unary")(b"abc")
                codes.append("OK")
            except grpc.aio.AioRpcError as error:
                codes.append(error.code().name)
    assert codes.count("INTERNAL") == 3
    assert codes[-6:] == ["OK"] * 6
    assert ejected(mesh) == 1


class Failing(Handlers):
    """Begins to answer, and ends with INTERNAL."""

    def service(self, details: Any) -> Any:
        async def fails_late(_request: bytes, context: Any) -> Any:
            yield b"some"
            await context.abort(grpc.StatusCode.INTERNAL, "at the end")

        return grpc.unary_stream_rpc_method_handler(fails_late)


async def test_calls_that_fail_for_their_callers_reasons_do_no_harm(mesh: Mesh) -> None:
    mesh.more = {"outlier_detection": OutlierDetection(ALL, consecutive=1)}
    async with serving(Handlers()) as a, serving(Handlers()) as b, channel_to(mesh, a, b) as channel:
        for _ in range(4):
            code = await fails(channel.unary_unary("/test/Refuses")(b""))
            assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert ejected(mesh) == 0


async def test_tcp_endpoints_that_refuse_are_ejected(mesh: Mesh) -> None:
    mesh.more = {"outlier_detection": OutlierDetection(("connect-failure",), consecutive=1)}
    await mesh.serve(closed_port(), await mesh.endpoint(closing(b"ok")), protocol="tcp")
    for _ in range(4):
        assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
    assert ejected(mesh) == 1


async def test_requests_stay_in_the_zone(mesh: Mesh) -> None:
    mesh.more = {"locality": Locality("prefer")}
    mesh.proxy.backends.locate("node", "here")
    near, far = await mesh.endpoint(answering(b"near")), await mesh.endpoint(answering(b"far"))
    await mesh.serve(_in(near, "here"), _in(far, "there"))
    assert {(await mesh.ask(GET_CLOSE))[-4:] for _ in range(6)} == {b"near"}
    await mesh.serve(_in(closed_port(), "here"), _in(far, "there"))
    for _ in range(6):
        assert (await mesh.ask(GET_CLOSE)).endswith(b"far")
    assert mesh.count(columns.UPSTREAM_CONNECT_FAILED) == 1


def _in(endpoint: Endpoint, zone: str) -> Endpoint:
    return Endpoint(endpoint.address, endpoint.port, zone=zone)


async def failing_over(mesh: Mesh, *endpoints: Endpoint, **how: Any) -> None:
    standby = await mesh.endpoint(closing(b"standby"))
    mesh.proxy.apply(backends=[(BackendSpec(STANDBY, (standby,)), FIRST_SLOT)])
    mesh.more = {**mesh.more, "failover": STANDBY}
    await mesh.serve(*endpoints, **how)


@pytest.mark.parametrize("protocol", ["http", "tcp"])
async def test_another_service_answers_when_none_of_ours_accepts(mesh: Mesh, protocol: Any) -> None:
    await failing_over(mesh, closed_port(), protocol=protocol)
    for _ in range(4):
        assert (await mesh.ask(GET_CLOSE)).endswith(b"standby")
    assert mesh.count(columns.FAILOVERS) == 4
    assert mesh.count(columns.UPSTREAM_CONNECT_FAILED) == 1


@pytest.mark.parametrize("protocol", ["http", "tcp"])
async def test_another_service_answers_when_there_is_none_of_ours(mesh: Mesh, protocol: Any) -> None:
    await failing_over(mesh, protocol=protocol)
    assert (await mesh.ask(GET_CLOSE)).endswith(b"standby")
    assert mesh.count(columns.UPSTREAM_NO_ENDPOINT) == 0


async def test_another_service_answers_when_all_of_ours_are_ejected(mesh: Mesh) -> None:
    mesh.more = {"outlier_detection": OutlierDetection(ALL, consecutive=3, share=100)}
    await failing_over(mesh, await mesh.endpoint(saying(b"500 Oops")))
    await until_only(mesh, b"standby")


@pytest.mark.parametrize("protocol", ["http", "tcp"])
async def test_if_the_other_has_none_either_ours_are_tried(mesh: Mesh, protocol: Any) -> None:
    mesh.more = {"failover": STANDBY}
    ours = await mesh.endpoint(closing(b"ours"))
    listener = await mesh.serve(ours, protocol=protocol)
    backend = mesh.proxy.backends.acquire(BackendKey(listener.service, listener.port))
    backend.set_condition([(ours.address, ours.port)])
    assert (await mesh.ask(GET_CLOSE)).endswith(b"ours")
    assert mesh.count(columns.FAILOVERS) == 0


async def test_it_works_with_layers(mesh: Mesh) -> None:
    await failing_over(mesh, closed_port(), annotations={"svc.mesh/retry-attempts": "2"})
    assert (await mesh.ask(GET_CLOSE)).endswith(b"standby")


async def test_while_ours_answer_nothing_goes_elsewhere(mesh: Mesh) -> None:
    await failing_over(mesh, await mesh.endpoint(saying(b"503 Unwell")))
    for _ in range(4):
        assert b" 503 " in await mesh.ask(GET_CLOSE)
    assert mesh.count(columns.FAILOVERS) == 0
