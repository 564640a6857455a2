"""What the access log is told of: exchanges that failed, tcp connections, and who was refused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import grpc
import msgspec
import pytest

from middleware.contract import Ended, Reply
from middleware.grpc import GrpcStatus
from nodeagent.proxy.accept import Accepted
from nodeagent.proxy.observer import ALL, FAILURES, Circulation, Closed, Refused
from tests.dataplane.harness import Handler, Mesh, sweeping, until
from tests.dataplane.peers import limited
from tests.dataplane.test_grpc import Handlers, channel_to, serving
from tests.dataplane.test_resilience import GET_CLOSE, closed_port, reset_on_close


class Told:
    """Notes what it is told."""

    def __init__(self, everything: bool) -> None:
        self.wants_all = everything
        self.from_status = ALL if everything else FAILURES
        self.ends: list[Ended] = []
        self.closes: list[Closed] = []
        self.refusals: list[Refused] = []
        self.takes_replies = False
        self.offered: list[str] = []
        """Reasons of replies that it was asked about."""

    def ended(self, ended: Ended) -> None:
        self.ends.append(ended)

    def takes_reply(self, service: str, port: int, reason: str) -> bool:
        self.offered.append(reason)
        return self.takes_replies

    def closed(self, closed: Closed) -> None:
        self.closes.append(closed)

    def refused(self, refused: Refused) -> None:
        self.refusals.append(refused)

    def layer_failed(self, service: str, port: int, error: Exception) -> None:
        raise AssertionError from error

    def circulated(self, circulation: Circulation) -> None:
        raise AssertionError(circulation)


def watch(mesh: Mesh, everything: bool = False) -> Told:
    told = Told(everything)
    mesh.proxy.runtime.observer = told
    return told


def saying(status: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)

    return handle


class TestExchanges:
    @pytest.mark.parametrize("status", [b"500 No", b"503 No", b"599 No"])
    async def test_an_endpoints_own_5xx_is_a_failure(self, mesh: Mesh, status: bytes) -> None:
        told = watch(mesh)
        endpoint = await mesh.endpoint(saying(status))
        await mesh.serve(endpoint)
        await mesh.ask(GET_CLOSE)
        (ended,) = told.ends
        assert (ended.status, ended.error, ended.reply_reason) == (int(status[:3]), None, "")
        assert ended.endpoint == f"127.0.0.1:{endpoint.port}"
        assert ended.source_port == mesh.writers[0].get_extra_info("sockname")[1]

    @pytest.mark.parametrize("everything", [False, True])
    async def test_what_went_well_is_told_only_to_who_wants_all(self, mesh: Mesh, everything: bool) -> None:
        told = watch(mesh, everything)
        await mesh.serve(await mesh.endpoint(saying(b"404 Not here")))
        await mesh.ask(GET_CLOSE)
        assert [ended.status for ended in told.ends] == [404] * everything

    @pytest.mark.parametrize("taken", [False, True])
    async def test_who_wants_failures_is_asked_whether_it_takes_a_refusal(
        self, mesh: Mesh, taken: bool
    ) -> None:
        told = watch(mesh)
        told.takes_replies = taken
        listener = await mesh.serve(await mesh.endpoint(saying(b"200 OK")))
        running = mesh.proxy.listeners.get(listener.key)
        assert running is not None
        assert running.rule is not None
        reply = Reply(403, reason="not_yours")

        async def answers(_request: Any) -> Reply:
            return reply

        running.rule.handler = answers
        await mesh.ask(GET_CLOSE)
        assert told.offered == ["not_yours"]
        assert [ended.reply_reason for ended in told.ends] == ["not_yours"] * taken
        reply = Reply(301, reason="redirected")
        await mesh.ask(GET_CLOSE)
        assert told.offered == ["not_yours"], "an answer that refuses nothing is not offered"

    async def test_a_reply_of_a_middleware_has_its_reason(self, mesh: Mesh) -> None:
        told = watch(mesh)
        listener = await mesh.serve(await mesh.endpoint(saying(b"200 OK")))
        running = mesh.proxy.listeners.get(listener.key)
        assert running is not None
        assert running.rule is not None

        async def answers(_request: Any) -> Reply:
            return Reply(507, reason="no_room")

        running.rule.handler = answers
        await mesh.ask(GET_CLOSE)
        assert [(ended.status, ended.reply_reason) for ended in told.ends] == [(507, "no_room")]


class TestGrpc:
    async def test_a_status_that_is_a_failure_to_breakers_is_one_here(self, mesh: Mesh) -> None:
        told = watch(mesh)
        codes = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]

        async def fails(request: bytes, context: Any) -> bytes:
            await context.abort(codes[int(request)], "no")
            raise AssertionError

        class Failing(Handlers):
            def service(self, details: Any) -> Any:
                return grpc.unary_unary_rpc_method_handler(fails)

        async with serving(Failing()) as endpoint, channel_to(mesh, endpoint) as channel:
            for number in range(len(codes)):
                with pytest.raises(grpc.RpcError):
                    await channel.unary_unary("/test/Fails")(b"%d" % number)
        assert {ended.grpc_status for ended in told.ends} == {
            GrpcStatus.UNKNOWN,
            GrpcStatus.DEADLINE_EXCEEDED,
            GrpcStatus.UNIMPLEMENTED,
            GrpcStatus.INTERNAL,
            GrpcStatus.UNAVAILABLE,
            GrpcStatus.DATA_LOSS,
        }
        assert len(told.ends) == 6
        assert {(ended.status, ended.error) for ended in told.ends} == {(200, None)}

    async def test_a_call_is_told_of_once(self, mesh: Mesh) -> None:
        told = watch(mesh, everything=True)
        async with serving(Handlers()) as endpoint, channel_to(mesh, endpoint) as channel:
            await channel.unary_unary("/test/Unary")(b"abc")
            with pytest.raises(grpc.RpcError):
                await channel.unary_unary("/test/Nothing")(b"")
        assert [ended.grpc_status for ended in told.ends] == [GrpcStatus.OK, GrpcStatus.UNIMPLEMENTED]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)


class TestTcpConnections:
    async def test_one_that_ends_in_order_is_told_of_to_who_wants_all(self, mesh: Mesh) -> None:
        told = watch(mesh, everything=True)
        endpoint = await mesh.endpoint(echo)
        listener = await mesh.serve(endpoint, protocol="tcp")
        reader, writer = await mesh.connect()
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write_eof()
        assert await reader.read(-1) == b""
        await until(lambda: told.closes)
        (closed,) = told.closes
        assert msgspec.structs.replace(closed, took=0.0) == Closed(
            service="default/web",
            port=listener.port,
            source="127.0.0.1",
            source_port=writer.get_extra_info("sockname")[1],
            destination=f"127.64.0.10:{listener.port}",
            endpoint=f"127.0.0.1:{endpoint.port}",
            took=0.0,
            received=5,
            sent=5,
            reason="client_closed",
        )
        assert closed.took > 0

    async def test_one_that_ends_in_order_is_no_failure(self, mesh: Mesh) -> None:
        told = watch(mesh)
        await mesh.serve(await mesh.endpoint(echo), protocol="tcp")
        for _ in range(3):
            reader, writer = await mesh.connect()
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.write_eof()
            assert await reader.read(-1) == b""
        await until(lambda: not mesh.proxy.runtime.connections)
        assert told.closes == []

    async def test_the_endpoint_closes(self, mesh: Mesh) -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"bye")

        assert await self.end(mesh, greet) == ("endpoint_closed", False)

    async def test_the_endpoint_resets(self, mesh: Mesh) -> None:
        async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(5)
            reset_on_close(writer)

        assert await self.end(mesh, break_off, send=b"hello and more") == ("endpoint_reset", True)

    async def test_the_client_resets(self, mesh: Mesh) -> None:
        def leave(writer: asyncio.StreamWriter) -> None:
            reset_on_close(writer)
            writer.transport.abort()

        assert await self.end(mesh, echo, act=leave) == ("client_reset", False)

    async def test_no_endpoint(self, mesh: Mesh) -> None:
        assert await self.end(mesh, None) == ("no_endpoint", True)

    async def test_no_endpoint_that_accepts(self, mesh: Mesh) -> None:
        told = watch(mesh)
        refusing = closed_port()
        await mesh.serve(refusing, protocol="tcp")
        await mesh.connect()
        await until(lambda: told.closes)
        (closed,) = told.closes
        assert (closed.reason, closed.endpoint) == ("connect_failed", f"127.0.0.1:{refusing.port}")
        assert f"127.0.0.1:{refusing.port}" in closed.detail
        assert not told.refusals, "one line for one connection"

    async def test_nothing_moves(self, mesh: Mesh) -> None:
        idle = {"svc.mesh/idle-timeout": "1s"}
        async with sweeping(mesh):
            assert await self.end(mesh, echo, annotations=idle) == ("idle_timeout", True)

    async def test_the_mesh_breaks_it_off(self, mesh: Mesh) -> None:
        def end(writer: asyncio.StreamWriter) -> None:
            mesh.proxy.runtime.break_off("127.0.0.1")

        assert await self.end(mesh, echo, act=end) == ("broken_off", True)

    async def test_it_is_broken_off_before_there_is_an_endpoint(self, mesh: Mesh) -> None:
        told = watch(mesh)
        await mesh.serve(mesh.unreachable(), protocol="tcp")
        await mesh.connect()
        await until(lambda: mesh.proxy.runtime.connections)
        mesh.proxy.runtime.break_off("127.0.0.1")
        await until(lambda: told.closes)
        assert [closed.reason for closed in told.closes] == ["broken_off"]

    async def end(
        self,
        mesh: Mesh,
        handler: Handler | None,
        send: bytes = b"",
        act: Callable[[asyncio.StreamWriter], None] | None = None,
        annotations: dict[str, str] | None = None,
    ) -> tuple[str, bool]:
        """Have a connection, do what ends it, and return what is told: the reason, and if it failed."""
        told = watch(mesh, everything=True)
        endpoints = [await mesh.endpoint(handler)] if handler is not None else []
        await mesh.serve(*endpoints, protocol="tcp", annotations=annotations)
        _, writer = await mesh.connect()
        writer.write(send)
        if act is not None:
            await until(lambda: mesh.peers)
            act(writer)
        if handler is not None and act is None:
            await until(lambda: mesh.peers)
            await until(lambda: told.closes or mesh.peers[0].is_closing())
            if not told.closes:
                writer.write_eof()
        await until(lambda: told.closes)
        (closed,) = told.closes
        assert closed.failed or not closed.detail or closed.reason.endswith("_reset")
        return closed.reason, closed.failed


class TestRefusals:
    async def test_a_malformed_request_names_its_source(self, mesh: Mesh) -> None:
        told = watch(mesh)
        listener = await mesh.serve(await mesh.endpoint(saying(b"200 OK")))
        assert (await mesh.ask(b"GET / HTTP/1.1 \r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        (refused,) = told.refusals
        assert (refused.service, refused.port, refused.connection) == ("default/web", listener.port, False)
        assert refused.source == "127.0.0.1"
        assert refused.source_port == mesh.writers[0].get_extra_info("sockname")[1]
        assert refused.destination == f"127.64.0.10:{listener.port}"
        assert refused.error.status == 400

    async def test_a_connection_for_no_service(self, mesh: Mesh) -> None:
        told = watch(mesh)
        listener = await mesh.serve()
        mesh.apply(removed=(listener.key,))
        _, writer = await mesh.connect()
        source_port = writer.get_extra_info("sockname")[1]
        refused = await self.refusal(told)
        assert (refused.service, refused.error.reason) == ("", "no_route")
        assert (refused.source, refused.source_port) == ("127.0.0.1", source_port)
        assert refused.destination == f"127.64.0.10:{listener.port}"

    async def test_a_connection_that_the_kernel_did_not_redirect(self, mesh: Mesh) -> None:
        def not_redirected(_: socket.socket) -> tuple[str, int]:
            raise OSError

        told = watch(mesh)
        await mesh.serve()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Accepted(mesh.proxy.runtime, mesh.proxy.listeners, not_redirected), "127.0.0.1", 0
        )
        mesh.servers.append(server)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        refused = await self.refusal(told)
        assert (refused.error.reason, refused.destination) == ("not_redirected", "")
        assert refused.source_port == writer.get_extra_info("sockname")[1]
        writer.close()

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            (limited(connections_per_source=1), "limit"),
            (limited(connections=1), "full"),
        ],
        ids=["limit", "full"],
    )
    async def test_a_connection_too_many(self, mesh: Mesh, reason: str) -> None:
        told = watch(mesh)
        await mesh.serve(await mesh.endpoint(echo), protocol="tcp")
        await mesh.connect()
        await until(lambda: mesh.peers)
        await mesh.connect()
        refused = await self.refusal(told)
        assert (refused.service, refused.error.reason) == ("default/web", reason)
        assert "1 connections" in refused.error.detail

    @pytest.mark.parametrize("limits", [limited(streams=1)])
    async def test_a_stream_too_many(self, mesh: Mesh) -> None:
        told = watch(mesh)
        await mesh.serve(mesh.unreachable())
        _, writer = await mesh.connect()
        head = b"\x82\x86\x84\x41\x03web"  # GET http / of web
        frames = b"".join(
            len(head).to_bytes(3, "big") + b"\x01\x05" + stream.to_bytes(4, "big") + head for stream in (1, 3)
        )
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\0\0\0\0\0" + frames)
        await until(lambda: told.refusals)
        assert [(one.error.reason, one.connection) for one in told.refusals] == [("stream_refused", False)]

    async def test_a_connection_that_breaks_http2(self, mesh: Mesh) -> None:
        told = watch(mesh)
        await mesh.serve()
        _, writer = await mesh.connect()
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x09\0\0\0\0\0")
        refused = await self.refusal(told)
        assert refused.error.reason == "http2_fault"
        assert refused.error.detail
        assert refused.source_port == writer.get_extra_info("sockname")[1]

    async def refusal(self, told: Told) -> Refused:
        await until(lambda: told.refusals)
        (refused,) = told.refusals
        assert refused.connection
        return refused
