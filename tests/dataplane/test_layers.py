"""What layers can do, on a real data plane: limits, heads, replies, backends, gates, bodies, ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from middleware import registry
from middleware.contract import (
    Annotation,
    Connection,
    Context,
    Ended,
    Handler,
    Middleware,
    Rejected,
    Reply,
    Request,
    Response,
    Scope,
)
from nodeagent.plan.model import LayerSpec
from nodeagent.proxy.backend import Backend
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, answering, read_head, sweeping, until
from tests.dataplane.test_resilience import reset_on_close

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"


class Options(msgspec.Struct, frozen=True):
    """No options."""


Serve = Callable[[Request, Handler], Any]
Wrap = Callable[[Serve], LayerSpec]


@pytest.fixture
def wrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LayerSpec]]:
    """Return what makes a middleware of a plain function, installed for this test."""
    added: list[Middleware] = []

    def install(serve: Any, scope: Scope = "rule", name: str = "") -> LayerSpec:
        name = name or f"test-{len(added)}"

        def build(_options: Options, _context: Context) -> Any:
            if scope == "connection":
                return serve

            def layer(handler: Handler) -> Handler:
                async def run(request: Request) -> Response:
                    response: Response = await serve(request, handler)
                    return response

                return run

            return layer

        annotation = Annotation(f"svc.mesh/{name}", "", "", "", "")
        added.append(Middleware(name, (annotation,), Options, lambda _: None, build, scope=scope))
        installed = registry.Installed((*registry.MIDDLEWARES, *added))
        monkeypatch.setattr(registry, "installed", lambda: installed)
        return LayerSpec(name, Options())

    return install  # type: ignore[return-value]


def backend_of(mesh: Mesh) -> Backend:
    """Return the backend of the only rule."""
    assert mesh.listener is not None
    listener = mesh.proxy.listeners.get(mesh.listener.key)
    assert listener is not None
    assert listener.rule is not None
    assert listener.rule.backend is not None
    return listener.rule.backend


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await reader.read(1)


async def echoing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the head it got."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX-Internal: a\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))


class TestTimes:
    async def test_a_request_over_its_time_is_answered_with_504(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(silent), annotations={"svc.mesh/timeout": "50ms"})
        answer = await mesh.ask(GET_CLOSE)
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"request_timeout" in answer
        assert mesh.count(columns.UPSTREAM_TIMEOUT) == 1
        await until(lambda: all(peer.is_closing() for peer in mesh.peers))

    async def test_the_limit_holds_for_the_body_too_and_breaks_it_off(self, mesh: Mesh) -> None:
        async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning")
            await reader.read(1)

        await mesh.serve(await mesh.endpoint(endless), annotations={"svc.mesh/timeout": "50ms"})
        reader, writer = await mesh.connect()
        writer.write(GET)
        await read_head(reader)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(100)

    async def test_a_try_over_its_time_is_tried_elsewhere(self, mesh: Mesh) -> None:
        annotations = {"svc.mesh/per-try-timeout": "50ms", "svc.mesh/retry-attempts": "2"}
        await mesh.serve(
            await mesh.endpoint(silent), await mesh.endpoint(answering()), annotations=annotations
        )
        for _ in range(4):
            assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 200 ")
        assert mesh.metric("retry", "svcmesh_retries") >= 1

    async def test_the_requests_own_limit_ends_all_tries(self, mesh: Mesh) -> None:
        annotations = {
            "svc.mesh/timeout": "100ms",
            "svc.mesh/per-try-timeout": "40ms",
            "svc.mesh/retry-attempts": "10",
        }
        await mesh.serve(await mesh.endpoint(silent), annotations=annotations)
        answer = await mesh.ask(GET_CLOSE)
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"request_timeout" in answer

    async def test_a_limit_that_passes_while_connecting_ends_that(self, mesh: Mesh) -> None:
        await mesh.serve(mesh.unreachable(), annotations={"svc.mesh/timeout": "50ms"})
        answer = await mesh.ask(GET_CLOSE)
        assert b"request_timeout" in answer
        (target,) = backend_of(mesh).targets
        assert target.pool is not None
        assert target.pool.open == 0

    async def test_connecting_over_its_time(self, mesh: Mesh) -> None:
        await mesh.serve(mesh.unreachable(), annotations={"svc.mesh/connect-timeout": "50ms"})
        answer = await mesh.ask(GET_CLOSE)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"timed out" in answer
        assert mesh.count(columns.UPSTREAM_CONNECT_TIMEOUT) == 1

    @pytest.mark.parametrize("limits", [Limits(response_time=0.05)])
    async def test_an_owner_may_allow_more_than_the_default(self, mesh: Mesh) -> None:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.2)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        async with sweeping(mesh):
            await mesh.serve(await mesh.endpoint(slow))
            assert b"response_timeout" in await mesh.ask(GET_CLOSE)
            await mesh.serve(await mesh.endpoint(slow), annotations={"svc.mesh/timeout": "1m"})
            assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
            await mesh.serve(await mesh.endpoint(slow), annotations={"svc.mesh/idle-timeout": "1m"})
            assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")

    async def test_nothing_moves(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(silent), annotations={"svc.mesh/idle-timeout": "1s"})
        async with sweeping(mesh):
            answer = await mesh.ask(GET_CLOSE)
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"idle_timeout" in answer

    async def test_nothing_moves_on_a_tcp_port(self, mesh: Mesh) -> None:
        async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)

        await mesh.serve(
            await mesh.endpoint(quiet), protocol="tcp", annotations={"svc.mesh/idle-timeout": "1s"}
        )
        reader, _ = await mesh.connect()
        async with sweeping(mesh), asyncio.timeout(10):
            with pytest.raises(ConnectionResetError):
                await reader.read(1)


class TestHeads:
    async def test_fields_of_requests_and_responses_are_changed(self, mesh: Mesh) -> None:
        annotations = {
            "svc.mesh/request-headers": "set x-env=prod; add via-mesh=yes; remove x-secret",
            "svc.mesh/response-headers": "remove x-internal; set x-served-by=mesh",
        }
        await mesh.serve(await mesh.endpoint(echoing), annotations=annotations)
        request = b"GET / HTTP/1.1\r\nHost: web\r\nX-Env: dev\r\nX-SECRET: s\r\nConnection: close\r\n\r\n"
        head, _, seen = (await mesh.ask(request)).partition(b"\r\n\r\n")
        assert b"x-env: prod\r\n" in seen
        assert b"via-mesh: yes\r\n" in seen
        assert b"dev" not in seen
        assert b"secret" not in seen.lower()
        assert b"X-Internal" not in head
        assert b"x-served-by: mesh" in head

    async def test_method_and_target(self, mesh: Mesh, wrap: Any) -> None:
        async def rewrite(request: Request, handler: Handler) -> Response:
            request.method, request.target = "PUT", "/v2" + request.target
            return await handler(request)

        await mesh.serve(await mesh.endpoint(echoing), layers=[wrap(rewrite)])
        assert b"\r\n\r\nPUT /v2/ HTTP/1.1\r\n" in await mesh.ask(GET_CLOSE)

    @pytest.mark.parametrize(
        ("field", "value"), [("target", "nonsense"), ("target", "/a b"), ("method", "g t")]
    )
    async def test_nonsense_is_refused(self, mesh: Mesh, wrap: Any, field: str, value: str) -> None:
        async def rewrite(request: Request, handler: Handler) -> Response:
            setattr(request, field, value)
            return await handler(request)

        await mesh.serve(await mesh.endpoint(echoing), layers=[wrap(rewrite)])
        assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 500 ")


class TestReplies:
    async def test_a_layer_answers_by_itself(self, mesh: Mesh, wrap: Any) -> None:
        async def teapot(_request: Request, _handler: Handler) -> Reply:
            return Reply(418, [("X-Pot", "tea")], b"short and stout", "teapot")

        await mesh.serve(await mesh.endpoint(echoing), layers=[wrap(teapot)])
        reader, writer = await mesh.connect()
        for _ in range(2):
            writer.write(GET)
            head = await read_head(reader)
            assert head.startswith(b"HTTP/1.1 418 ")
            assert b"X-Pot: tea\r\n" in head
            assert b'Proxy-Status: svc.mesh; details="teapot"' in head
            assert await reader.readexactly(15) == b"short and stout"
        assert mesh.count(columns.MESH_RESPONSES) == 2
        assert mesh.peers == []

    async def test_in_place_of_a_response(self, mesh: Mesh, wrap: Any) -> None:
        async def hide(request: Request, handler: Handler) -> Response:
            response = await handler(request)
            response.discard()
            return Reply(200, body=b"nothing to see")

        await mesh.serve(await mesh.endpoint(echoing), layers=[wrap(hide)])
        assert (await mesh.ask(GET_CLOSE)).endswith(b"nothing to see")

    async def test_to_head_without_a_body(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(echoing), annotations={"svc.mesh/fault": "abort 503"})
        reader, writer = await mesh.connect()
        for _ in range(2):
            writer.write(b"HEAD / HTTP/1.1\r\nHost: web\r\n\r\n")
            head = await read_head(reader)
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"Content-Length: " in head

    async def test_a_delay_holds_the_request_up(self, mesh: Mesh) -> None:
        await mesh.serve(await mesh.endpoint(answering()), annotations={"svc.mesh/fault": "delay 50ms"})
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
        assert loop.time() - started >= 0.04


class TestBodies:
    @pytest.mark.parametrize("chunked", [False, True])
    @pytest.mark.parametrize("pieces", [1, 3])
    async def test_a_small_body_is_read_and_still_passes(
        self, mesh: Mesh, wrap: Any, chunked: bool, pieces: int
    ) -> None:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 6"
                writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
                for number in range(pieces):
                    await asyncio.sleep(0.001)
                    size = 6 // pieces
                    data = b"abcdef"[number * size : (number + 1) * size]
                    writer.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
                if chunked:
                    writer.write(b"0\r\n\r\n")

        seen: list[bytes | None] = []

        async def look(request: Request, handler: Handler) -> Response:
            response = await handler(request)
            seen.append(await response.read(100))
            response.headers.set("X-Seen", "yes")
            return response

        await mesh.serve(await mesh.endpoint(speak), layers=[wrap(look)])
        reader, writer = await mesh.connect()
        for _ in range(2):
            writer.write(GET)
            assert b"X-Seen: yes\r\n" in await read_head(reader)
            body = await (reader.readuntil(b"0\r\n\r\n") if chunked else reader.readexactly(6))
            assert b"".join(body.split(b"\r\n")[1::2])[:6] == b"abcdef" if chunked else body == b"abcdef"
        assert seen == [b"abcdef"] * 2
        assert len(mesh.peers) == 1

    async def test_one_that_is_too_large_passes_unread(self, mesh: Mesh, wrap: Any) -> None:
        async def look(request: Request, handler: Handler) -> Response:
            response = await handler(request)
            assert await response.read(10) is None
            return response

        await mesh.serve(await mesh.endpoint(answering(b"x" * 500_000)), layers=[wrap(look)])
        assert (await mesh.ask(GET_CLOSE)).endswith(b"x" * 500_000)

    async def test_one_that_breaks_off(self, mesh: Mesh, wrap: Any) -> None:
        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            await writer.drain()

        async def look(request: Request, handler: Handler) -> Response:
            response = await handler(request)
            await response.read(100)
            return response

        await mesh.serve(await mesh.endpoint(cut), layers=[wrap(look)])
        assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 502 ")


class TestBackends:
    async def test_requests_are_split_by_weight(self, mesh: Mesh) -> None:
        backends = {
            "v1": [await mesh.endpoint(answering(b"v-one"))],
            "v2": [await mesh.endpoint(answering(b"v-two"))],
        }
        await mesh.serve(annotations={"svc.mesh/split": "v1=3 v2=1"}, backends=backends)
        answers = [(await mesh.ask(GET_CLOSE)).rpartition(b"\r\n\r\n")[2] for _ in range(8)]
        assert sorted(answers) == [b"v-one"] * 6 + [b"v-two"] * 2

    async def test_one_that_is_not_there_is_a_503(self, mesh: Mesh) -> None:
        own = await mesh.endpoint(answering(b"own"))
        await mesh.serve(own, annotations={"svc.mesh/split": "v1=1"}, backends={"v1": ()})
        answer = await mesh.ask(GET_CLOSE)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"default/v1 has no ready endpoint" in answer

    async def test_one_that_nobody_named_is_a_bug(self, mesh: Mesh, wrap: Any) -> None:
        async def stray(request: Request, handler: Handler) -> Response:
            request.backend = "somewhere"
            return await handler(request)

        await mesh.serve(await mesh.endpoint(answering()), layers=[wrap(stray)])
        assert (await mesh.ask(GET_CLOSE)).startswith(b"HTTP/1.1 500 ")

    async def test_a_backends_own_layers_see_what_is_sent_to_it(self, mesh: Mesh, wrap: Any) -> None:
        seen: list[str] = []

        def noting(name: str) -> Serve:
            async def note(request: Request, handler: Handler) -> Response:
                seen.append(name)
                return await handler(request)

            return note

        specs = [wrap(noting(scope), scope) for scope in ("try", "backend", "rule", "listener")]
        await mesh.serve(await mesh.endpoint(answering()), layers=specs)
        assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
        assert seen == ["listener", "rule", "backend", "try"]
        seen.clear()
        listener = mesh.listener
        assert listener is not None
        plain = msgspec.structs.replace(listener.rules[0], layers=())
        mesh.apply(msgspec.structs.replace(listener, layers=(), rules=(plain,)))
        assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
        assert seen == ["backend"]


class TestGates:
    async def test_a_gate_refuses_a_connection(self, mesh: Mesh, wrap: Any) -> None:
        class Stranger(Rejected):
            reason = "stranger"

        arrived: list[str] = []

        def gate(connection: Connection) -> None:
            arrived.append(connection.source)
            raise Stranger("not from here")

        for protocol in ("http", "tcp"):
            await mesh.serve(
                await mesh.endpoint(answering()), protocol=protocol, layers=[wrap(gate, "connection")]
            )
            reader, _ = await mesh.connect()
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        assert arrived == ["127.0.0.1"] * 2
        assert mesh.peers == []

    async def test_a_gate_with_a_bug_refuses_too(self, mesh: Mesh, wrap: Any) -> None:
        def gate(_connection: Connection) -> None:
            raise ZeroDivisionError

        await mesh.serve(await mesh.endpoint(answering()), layers=[wrap(gate, "connection")])
        reader, _ = await mesh.connect()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)


class TestEnds:
    async def test_a_layer_hears_of_every_ending_once(self, mesh: Mesh, wrap: Any) -> None:
        ended: list[Ended] = []

        async def hear(request: Request, handler: Handler) -> Response:
            request.at_end(ended.append)
            return await handler(request)

        await mesh.serve(await mesh.endpoint(answering()), await mesh.endpoint(silent), layers=[wrap(hear)])
        reader, writer = await mesh.connect()
        writer.write(GET)
        await read_head(reader)
        await until(lambda: ended)
        assert (ended[0].status, ended[0].error, ended[0].method) == (200, None, "GET")
        assert ended[0].sent > 0
        assert ended[0].received == len(GET)
        writer.write(GET)
        await until(lambda: len(mesh.peers) == 2)
        reset_on_close(writer)
        writer.close()
        await until(lambda: len(ended) == 2)
        assert ended[1].status == 0
        assert mesh.count(columns.REQUESTS_2XX) == 1
        assert mesh.count(columns.REQUESTS_NONE) == 1

    async def test_a_bug_in_what_hears_of_it_costs_nothing(self, mesh: Mesh, wrap: Any) -> None:
        def fail(_: Ended) -> None:
            raise ZeroDivisionError

        async def hear(request: Request, handler: Handler) -> Response:
            request.at_end(fail)
            return await handler(request)

        await mesh.serve(await mesh.endpoint(answering()), layers=[wrap(hear)])
        assert (await mesh.ask(GET_CLOSE)).endswith(b"ok")
