from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import aiohttp
import pytest
import structlog

from hack.kit.waiting import until_async
from nodeagent.admin import server as server_module
from nodeagent.admin.plan_page import PlanPage
from nodeagent.admin.readiness import Readiness
from nodeagent.admin.resolve import NotOurs, Resolution
from nodeagent.admin.server import PAGES, AdminListenError, AdminServer, AdminView, NoExplanation


class Agent:
    """What the server shows, to be changed by a test."""

    def __init__(self) -> None:
        self.readiness = Readiness()
        self.document: dict[str, Any] = {"version": 7}
        self.notes: list[str] = []
        self.plans = 0
        """How often one was written."""
        self.pieces: list[bytes] = [b"a 1\n", b"", b"b 2\n"]
        self.plan_page = PlanPage(lambda: self.document, self.plan).body
        self.view = AdminView(
            self.readiness, self.metrics, self.plan_page, self.resolve, lambda: self.notes, self.explain
        )
        self.server = AdminServer(("127.0.0.1", 0), self.view)

    @property
    def connections(self) -> int:
        runner = self.server._runner
        assert runner is not None
        assert runner.server is not None
        return len(runner.server.connections)

    def metrics(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if piece == b"error":
                raise ValueError(piece)
            yield piece

    async def explain(self, query: Mapping[str, Sequence[str]]) -> bytes:
        if "url" not in query:
            raise NoExplanation("url= is missing")
        return b'{"url": "%s", "header": %d}' % (query["url"][0].encode(), len(query.get("header", ())))

    async def resolve(self, name: str) -> Resolution:
        if not f".{name}".endswith(".svc.mesh"):
            raise NotOurs("only names of svc.mesh are answered here")
        return Resolution(name, "A", "240.0.0.53:53", "NOERROR", ("250.96.0.10",))

    def plan(self, document: dict[str, Any]) -> dict[str, Any]:
        if not document:
            raise ValueError("no plan")
        self.plans += 1
        return document


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    made = Agent()
    await made.server.start()
    yield made
    await made.server.close()


async def fetch(agent: Agent, path: str, method: str = "GET") -> tuple[int, str, str]:
    host, port = agent.server.address
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{host}:{port}{path}") as got,
    ):
        return got.status, got.headers.get("Content-Type", ""), await got.text()


async def test_healthz(agent: Agent) -> None:
    assert await fetch(agent, "/healthz") == (200, "text/plain; charset=utf-8", "ok\n")


async def test_readyz_follows_the_tokens(agent: Agent) -> None:
    source, workers = agent.readiness.register("source"), agent.readiness.register("workers")
    assert (await fetch(agent, "/readyz"))[::2] == (503, "not ready: source, workers\n")
    source.release()
    assert (await fetch(agent, "/readyz?verbose"))[::2] == (503, "[+] source\n[-] workers\nnot ready\n")
    workers.release()
    assert (await fetch(agent, "/readyz"))[::2] == (200, "ready\n")
    agent.notes = ["source: stale"]
    assert (await fetch(agent, "/readyz"))[::2] == (200, "ready\n"), "staleness is no reason to stop serving"
    assert (await fetch(agent, "/readyz?verbose"))[::2] == (
        200,
        "[+] source\n[+] workers\nsource: stale\nready\n",
    )
    agent.readiness.drain()
    assert (await fetch(agent, "/readyz"))[::2] == (503, "not ready: draining\n")
    assert (await fetch(agent, "/healthz"))[0] == 200


async def test_metrics_are_streamed(agent: Agent) -> None:
    assert await fetch(agent, "/metrics") == (200, "text/plain; version=0.0.4; charset=utf-8", "a 1\nb 2\n")


async def test_plan_is_json(agent: Agent) -> None:
    assert await fetch(agent, "/plan") == (200, "application/json", '{\n  "version": 7\n}\n')


async def test_explain_is_json_and_says_what_is_wrong_with_a_question(agent: Agent) -> None:
    found = await fetch(agent, "/explain?url=http://a.shop.svc.mesh/&header=a:b&header=c:d")
    assert (found[0], found[2]) == (200, '{"url": "http://a.shop.svc.mesh/", "header": 2}')
    assert (await fetch(agent, "/explain"))[::2] == (400, "url= is missing\n")


async def test_resolve_is_json_and_says_no_to_names_of_others(agent: Agent) -> None:
    status, kind, text = await fetch(agent, "/resolve?name=cart.shop.svc.mesh")
    assert (status, kind) == (200, "application/json")
    assert json.loads(text) == {
        "name": "cart.shop.svc.mesh",
        "type": "A",
        "server": "240.0.0.53:53",
        "rcode": "NOERROR",
        "addresses": ["250.96.0.10"],
        "error": "",
    }
    assert await fetch(agent, "/resolve?name=example.com") == (
        400,
        "text/plain; charset=utf-8",
        "only names of svc.mesh are answered here\n",
    )


async def test_the_index_and_404_name_the_paths(agent: Agent) -> None:
    for path, status in (("/", 200), ("/debug/pprof", 404), ("/plan/x", 404)):
        got, _, text = await fetch(agent, path)
        assert got == status
        assert all(page in text for page in ("/healthz", "/readyz", "/metrics", "/plan", "/resolve"))


WITHOUT_QUERY = sorted(PAGES.keys() - {"/resolve", "/explain"})


@pytest.mark.parametrize("path", ["/", *WITHOUT_QUERY, "/resolve?name=a.svc.mesh", "/explain?url=a"])
async def test_head_has_no_body_and_nothing_else_is_allowed(agent: Agent, path: str) -> None:
    assert (await fetch(agent, path, "HEAD"))[::2] == (200, "")
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert (await fetch(agent, path, method))[0] == 405


async def test_a_page_that_fails_harms_no_other(agent: Agent) -> None:
    agent.document = {}
    assert (await fetch(agent, "/plan"))[0] == 500
    agent.pieces = [b"a 1\n", b"error"]
    with pytest.raises(aiohttp.ClientError):
        await fetch(agent, "/metrics")
    assert (await fetch(agent, "/healthz"))[0] == 200


async def test_a_port_in_use_says_so(agent: Agent) -> None:
    second = AdminServer(agent.server.address, agent.view)
    with pytest.raises(
        AdminListenError, match=r"127\.0\.0\.1:\d+ .*[Aa]ddress already in use.*--admin-listen"
    ):
        await second.start()
    await second.close()


async def test_an_address_that_is_not_here_says_so(agent: Agent) -> None:
    second = AdminServer(("192.0.2.1", 0), agent.view)
    with pytest.raises(AdminListenError, match="192"):
        await second.start()


async def test_silent_connections_give_way_to_new_ones(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 4)
    silent = []
    for _ in range(8):
        silent.append(await asyncio.open_connection(*agent.server.address))
        assert (await fetch(agent, "/healthz"))[0] == 200
    assert await asyncio.wait_for(silent[0][0].read(), 10) == b"", "the oldest was closed"
    for _, writer in silent:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_client_that_does_not_read_is_left(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "RESPONSE_TIME", 0.05)
    agent.pieces = [b"x" * 1_000_000] * 64
    with socket.create_connection(agent.server.address) as client:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        await until_async(lambda: agent.connections == 1)
        await until_async(lambda: agent.connections == 0)
    assert (await fetch(agent, "/healthz"))[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
    ],
)
async def test_large_or_broken_requests_are_refused(agent: Agent, head: bytes) -> None:
    reader, writer = await asyncio.open_connection(*agent.server.address)
    writer.write(head)
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.split()[1] == b"400"
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    assert (await fetch(agent, "/healthz"))[0] == 200


async def test_close_ends_idle_connections(agent: Agent) -> None:
    reader, writer = await asyncio.open_connection(*agent.server.address)
    await fetch(agent, "/healthz")
    await agent.server.close()
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await writer.wait_closed()
    await agent.server.close()


async def send_raw(agent: Agent, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*agent.server.address)
    writer.write(request)
    answer = await reader.read(4096)
    writer.close()
    return answer


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization : Bearer s3cr3t\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nX: s3cr3t\x00\r\n\r\n",
        b"GET /" + b"s3cr3t" * 2000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["no HTTP", "token", "second request", "long line"],
)
async def test_broken_requests_are_one_line_without_what_was_sent(
    agent: Agent, request_: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with structlog.testing.capture_logs() as events:
        for _ in range(20):
            await send_raw(agent, request_)
        await until_async(lambda: agent.server.malformed == 20)
    (event,) = events
    assert (event["event"], event["source"]) == ("admin_malformed_request", "127.0.0.1")
    assert "s3cr3t" not in str(events)
    assert capfd.readouterr().err == ""


async def test_a_plan_is_written_once_for_all_who_ask(agent: Agent) -> None:
    answers = await asyncio.gather(*(fetch(agent, "/plan") for _ in range(20)))
    assert {status for status, _, _ in answers} == {200}
    assert agent.plans == 1
    agent.document = {"version": 8}
    assert '"version": 8' in (await fetch(agent, "/plan"))[2]
    assert agent.plans == 2
