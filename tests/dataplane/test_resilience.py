"""Endpoints that refuse, close, or break: what is tried again, what is not, and what the client sees."""

from __future__ import annotations

import asyncio
import socket
import struct

from discovery.model import Endpoint
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, answering, read_head, until

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
POST_CLOSE = b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"


def closed_port() -> Endpoint:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Endpoint("127.0.0.1", probe.getsockname()[1])


async def once_then_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server whose keep-alive is a lie: it answers one request and closes."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    await writer.drain()


def reset_on_close(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def reset_unanswered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    reset_on_close(writer)


async def test_another_endpoint_when_one_accepts_no_connection(mesh: Mesh) -> None:
    await mesh.serve(closed_port(), await mesh.endpoint(answering()), closed_port())
    for request in (GET_CLOSE, GET_CLOSE, GET_CLOSE):
        assert (await mesh.ask(request)).startswith(b"HTTP/1.1 200 ")
    assert mesh.count(columns.REQUESTS_5XX) == 0
    assert mesh.count(columns.UPSTREAM_CONNECT_FAILED) >= 1


async def test_connect_failure_everywhere_is_a_503(mesh: Mesh) -> None:
    await mesh.serve(closed_port(), closed_port())
    answer = await mesh.ask(GET_CLOSE)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"error=connection_refused" in answer
    assert mesh.count(columns.UPSTREAM_CONNECT_FAILED) == 2


async def test_a_pooled_connection_that_was_closed_costs_no_error(mesh: Mesh) -> None:
    await mesh.serve(await mesh.endpoint(once_then_close))
    for _ in range(20):
        assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
    assert mesh.count(columns.REQUESTS_2XX) == 20


async def test_closed_while_the_request_is_on_its_way(mesh: Mesh) -> None:
    """The far side closes exactly when the second request arrives: it is sent again on a new connection."""
    connections = 0

    async def close_on_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if connections == 1:
            await reader.readuntil(b"\r\n\r\n")
        else:
            await answering()(reader, writer)

    await mesh.serve(await mesh.endpoint(close_on_second))
    for _ in range(2):
        assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 200 ")
    assert mesh.count(columns.RESENDS) == 1


async def test_a_post_that_may_have_been_processed_is_not_sent_again(mesh: Mesh) -> None:
    connections = 0

    async def close_on_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readexactly(len(b"body") + len(await reader.readuntil(b"\r\n\r\n")) * 0)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")

    await mesh.serve(await mesh.endpoint(close_on_second))
    assert (await mesh.ask(POST_CLOSE)).startswith(b"HTTP/1.1 200 ")
    answer = await mesh.ask(POST_CLOSE)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"error=connection_terminated" in answer
    assert connections == 1


async def test_a_post_finds_out_that_its_pooled_connection_was_closed(mesh: Mesh) -> None:
    endpoint = await mesh.endpoint(once_then_close)
    await mesh.serve(endpoint)
    assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 200 ")
    for _ in range(10):
        assert (await mesh.ask(POST_CLOSE)).startswith(b"HTTP/1.1 200 ")


async def test_endpoint_removed_from_the_plan_loses_its_idle_connections(mesh: Mesh) -> None:
    gone, stays = await mesh.endpoint(answering(b"gone")), await mesh.endpoint(answering(b"stay"))
    listener = await mesh.serve(gone)
    assert (await mesh.ask(GET_CLOSE)).endswith(b"gone")
    mesh.endpoints(listener, stays)
    assert (await mesh.ask(GET_CLOSE)).endswith(b"stay")
    await until(mesh.peers[0].is_closing)


async def test_retry_uses_another_endpoint(mesh: Mesh) -> None:
    await mesh.serve(
        await mesh.endpoint(reset_unanswered),
        await mesh.endpoint(answering()),
        annotations={"svc.mesh/retry-attempts": "2"},
    )
    assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 200 ")
    assert mesh.metric("retry", "svcmesh_retries") == 1


async def test_a_post_is_sent_again_if_the_owner_says_so(mesh: Mesh) -> None:
    bodies: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        bodies.append(await reader.readexactly(4))
        if len(bodies) == 1:
            reset_on_close(writer)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()

    annotations = {"svc.mesh/retry-attempts": "2", "svc.mesh/retry-methods": "POST"}
    await mesh.serve(await mesh.endpoint(take), await mesh.endpoint(take), annotations=annotations)
    assert (await mesh.ask(POST_CLOSE)).endswith(b"ok")
    assert bodies == [b"body", b"body"]
    assert mesh.metric("retry", "svcmesh_retries") == 1


async def test_an_endpoint_that_asks_for_a_pause(mesh: Mesh) -> None:
    """The pause is waited for if the owner allows that long; else the client learns of it."""
    pauses = [b"1", b"3600"]
    asked: list[float] = []
    loop = asyncio.get_running_loop()

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            asked.append(loop.time())
            if len(asked) % 2:
                pause = pauses.pop(0)
                writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % pause)
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    annotations = {
        "svc.mesh/retry-attempts": "2",
        "svc.mesh/retry-on": "503",
        "svc.mesh/retry-backoff": "1ms retry-after=2s",
    }
    await mesh.serve(await mesh.endpoint(busy), annotations=annotations)
    assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
    assert asked[1] - asked[0] >= 0.99
    answer = await mesh.ask(GET_CLOSE)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 3600\r\n" in answer
    assert len(asked) == 3
    assert mesh.metric("retry", "svcmesh_retries") == 1


async def test_retry_on_a_status_discards_the_first_answer(mesh: Mesh) -> None:
    async def unavailable(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")

    await mesh.serve(
        await mesh.endpoint(unavailable),
        await mesh.endpoint(answering()),
        annotations={"svc.mesh/retry-attempts": "1", "svc.mesh/retry-on": "5xx"},
    )
    reader, writer = await mesh.connect()
    for _ in range(3):
        writer.write(GET)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(2) == b"ok"
    assert len(mesh.peers) == 2


async def test_a_retried_request_carries_its_whole_body(mesh: Mesh) -> None:
    bodies: list[bytes] = []

    async def read_and_reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        bodies.append(await reader.readexactly(4))
        reset_on_close(writer)

    async def read_and_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        bodies.append(await reader.readexactly(4))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    await mesh.serve(
        await mesh.endpoint(read_and_reset),
        await mesh.endpoint(read_and_answer),
        annotations={"svc.mesh/retry-attempts": "2"},
    )
    answer = await mesh.ask(POST_CLOSE.replace(b"POST", b"PUT"))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert bodies == [b"body", b"body"]


async def test_rate_limit_answers_429(mesh: Mesh) -> None:
    await mesh.serve(
        await mesh.endpoint(answering()), annotations={"svc.mesh/rate-limit": "1/m burst=2 per=source"}
    )
    answers = [await mesh.ask(GET_CLOSE) for _ in range(4)]
    assert [answer.split(b" ")[1] for answer in answers] == [b"200", b"200", b"429", b"429"]
    assert b"Retry-After: " in answers[3]
    assert b"rate_limited" in answers[3]


async def test_rate_limit_keeps_a_pipelining_client_connected(mesh: Mesh) -> None:
    await mesh.serve(await mesh.endpoint(answering()), annotations={"svc.mesh/rate-limit": "1/m burst=1"})
    answer = await mesh.ask(GET + GET * 500 + GET_CLOSE)
    assert answer.count(b"HTTP/1.1 429 ") == 501


async def test_circuit_breaker_opens_and_stays_open_when_something_else_changes(mesh: Mesh) -> None:
    listener = await mesh.serve(
        closed_port(), annotations={"svc.mesh/circuit-breaker": "NetworkErrorRatio() > 0.5"}
    )

    async with asyncio.timeout(20):
        while b"circuit_open" not in await mesh.ask(GET_CLOSE):
            assert mesh.count(columns.REQUESTS_5XX) > 0
    mesh.endpoints(listener, await mesh.endpoint(answering()))
    assert b"circuit_open" in await mesh.ask(GET_CLOSE)


async def test_a_discarded_connection_serves_again_after_a_layer_has_waited(mesh: Mesh) -> None:
    """From the second retry on the layer sleeps before it discards: the connection was paused meanwhile."""

    async def unavailable(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")

    await mesh.serve(
        await mesh.endpoint(unavailable),
        annotations={"svc.mesh/retry-attempts": "3", "svc.mesh/retry-on": "5xx"},
    )
    reader, writer = await mesh.connect()
    for _ in range(3):
        writer.write(GET)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 503 ")
        async with asyncio.timeout(10):
            assert await reader.readexactly(4) == b"busy"
    assert len(mesh.peers) == 1


async def test_another_service_stands_in_while_the_circuit_is_open(mesh: Mesh) -> None:
    bodies: list[bytes] = []

    async def spare(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        bodies.append(await reader.readexactly(4))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nspare")
        await writer.drain()

    await mesh.serve(
        await mesh.endpoint(reset_unanswered),
        annotations={
            "svc.mesh/circuit-breaker": "NetworkErrorRatio() > 0.5",
            "svc.mesh/circuit-breaker-samples": "1",
            "svc.mesh/circuit-breaker-fallback": "spare",
            "svc.mesh/retry-attempts": "1",
        },
        backends={"spare": [await mesh.endpoint(spare)]},
    )
    assert b"connection_terminated" in await mesh.ask(POST_CLOSE)
    for _ in range(3):
        assert (await mesh.ask(POST_CLOSE)).endswith(b"spare")
    assert bodies == [b"body"] * 3
    assert mesh.metric("circuit-breaker", "svcmesh_circuit_breaker_fallback") == 3


async def test_a_circuit_that_is_forced_open(mesh: Mesh) -> None:
    seen: list[bytes] = []
    annotations = {"svc.mesh/circuit-breaker-force": "open", "svc.mesh/circuit-breaker-fallback": "429"}
    await mesh.serve(await mesh.endpoint(answering(seen=seen)), annotations=annotations)
    answer = await mesh.ask(GET_CLOSE)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"(circuit_open)" in answer
    assert seen == []
