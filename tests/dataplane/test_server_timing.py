"""`Server-Timing` between real sockets: for HTTP/1.1, and for callers and servers of gRPC by its library."""

from __future__ import annotations

import re

import grpc
import pytest

from tests.dataplane.harness import Mesh
from tests.dataplane.test_grpc import Handlers, channel_to, serving
from tests.dataplane.test_resilience import GET_CLOSE, closed_port
from tests.dataplane.test_told import saying

ON = {"svc.mesh/server-timing": "on"}
DUR = r"dur=[0-9]+\.[0-9][0-9]"
ANSWERED = rf"mesh;{DUR}, connect;{DUR}, (?:client;{DUR}, )?endpoint;{DUR}, total;{DUR}"


def told(answer: bytes) -> str:
    """Return the field in an answer, which has one."""
    (field,) = re.findall(r"\r\nServer-Timing: ([^\r]*)\r\n", answer.decode())
    return str(field)


async def test_an_endpoint_answers(mesh: Mesh) -> None:
    await mesh.serve(await mesh.endpoint(saying(b"200 OK")), annotations=ON)
    field = told(await mesh.ask(GET_CLOSE))
    assert re.fullmatch(ANSWERED, field)
    *parts, total = (float(one) for one in re.findall(r"dur=([0-9.]+)", field))
    assert sum(parts) == pytest.approx(total, abs=0.05)


async def test_an_endpoint_that_accepts_nothing_is_told_without_its_address(mesh: Mesh) -> None:
    await mesh.serve(closed_port(), await mesh.endpoint(saying(b"200 OK")), annotations=ON)
    fields = [told(await mesh.ask(GET_CLOSE)) for _ in range(2)]
    assert all("127.0.0" not in field for field in fields)
    assert any(
        re.fullmatch(
            rf'mesh;{DUR}, connect;{DUR};desc="try 1 of 2: connect_failed", connect;{DUR};desc="try 2 of 2",'
            rf' endpoint;{DUR};desc="try 2 of 2: 200", total;{DUR}',
            field,
        )
        for field in fields
    )


async def test_a_service_without_endpoints(mesh: Mesh) -> None:
    await mesh.serve(annotations=ON)
    assert re.fullmatch(rf'mesh;{DUR};desc="no_endpoint", total;{DUR}', told(await mesh.ask(GET_CLOSE)))


async def test_calls_of_grpc(mesh: Mesh) -> None:
    async with serving(Handlers()) as endpoint, channel_to(mesh, endpoint, server_timing="on") as channel:
        call = channel.unary_unary("/test/Unary")(b"abc")
        assert await call == b"cba"
        assert re.fullmatch(ANSWERED, dict(await call.initial_metadata())["server-timing"])
        assert "server-timing" not in dict(await call.trailing_metadata())


async def test_a_call_that_reaches_nobody(mesh: Mesh) -> None:
    async with channel_to(mesh, closed_port(), server_timing="on") as channel:
        call = channel.unary_unary("/test/Unary")(b"abc")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        fields = {**dict(raised.value.initial_metadata()), **dict(raised.value.trailing_metadata())}
        assert 'desc="connect_failed"' in fields["server-timing"]
