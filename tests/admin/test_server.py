from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import structlog

from hack.kit.waiting import until_async
from nodeagent.admin import server as server_module
from nodeagent.admin.formats import OPEN_METRICS, PLAIN, TextFormat
from nodeagent.admin.plan_page import PlanPage
from nodeagent.admin.readiness import Readiness
from nodeagent.admin.resolve import NotOurs, Resolution
from nodeagent.admin.server import PAGES, AdminListenError, AdminServer, AdminView, NoExplanation
from nodeagent.stats.failures import FailureLine, FailureMemory
from nodeagent.stats.signals import NodeStats

STATIC = Path(server_module.__file__).with_name("static")


class Agent:
    """What the server shows, to be changed by a test."""

    def __init__(self) -> None:
        self.readiness = Readiness()
        self.document: dict[str, Any] = {"version": 7}
        self.notes: list[str] = []
        self.form: TextFormat | None = None
        """In which metrics were last asked for."""
        self.plans = 0
        """How often one was written."""
        self.pieces: Iterable[bytes] = [b"a 1\n", b"", b"b 2\n"]
        self.memory = FailureMemory("here", 0.0)
        self.plan_page = PlanPage(lambda: self.document, self.plan).page
        self.view = AdminView(
            self.readiness,
            self.metrics,
            self.plan_page,
            self.resolve,
            self.stats,
            lambda: self.notes,
            explain=self.explain,
            failures=self.memory.show,
        )
        self.server = AdminServer(("127.0.0.1", 0), self.view)

    @property
    def connections(self) -> int:
        runner = self.server._runner
        assert runner is not None
        assert runner.server is not None
        return len(runner.server.connections)

    async def stats(self, seconds: float) -> NodeStats:
        return NodeStats("here", seconds, [], 0)

    def metrics(self, form: TextFormat) -> Iterator[bytes]:
        self.form = form
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


async def test_metrics_come_in_the_format_that_the_scraper_prefers(agent: Agent) -> None:
    host, port = agent.server.address
    url = f"http://{host}:{port}/metrics"
    for accept, form in (
        (["application/openmetrics-text;version=1.0.0", "text/plain;q=0.5"], OPEN_METRICS),
        (["text/plain", "application/openmetrics-text;q=0.5"], PLAIN),
        (["application/openmetrics-text," + "a" * 2000], PLAIN),
    ):
        for method in ("GET", "HEAD"):
            fields = [("Accept", one) for one in accept]
            async with (
                aiohttp.ClientSession() as session,
                session.request(method, url, headers=fields) as got,
            ):
                assert (got.status, got.headers["Vary"]) == (200, "Accept")
                assert got.headers["Content-Type"] == form.content_type
        assert agent.form is form


async def test_metrics_are_streamed(agent: Agent) -> None:
    assert await fetch(agent, "/metrics") == (200, "text/plain; version=0.0.4; charset=utf-8", "a 1\nb 2\n")


async def test_plan_is_json(agent: Agent) -> None:
    assert await fetch(agent, "/plan") == (200, "application/json", '{\n  "version": 7\n}\n')


async def test_stats_are_json_for_a_window_of_seconds(agent: Agent) -> None:
    status, kind, text = await fetch(agent, "/stats?window=1m")
    assert (status, kind) == (200, "application/json")
    assert msgspec.json.decode(text, type=NodeStats) == NodeStats("here", 60.0, [], 0)
    assert msgspec.json.decode((await fetch(agent, "/stats"))[2], type=NodeStats).window == 10.0


async def test_failures_are_json_and_sent_again_only_if_there_are_more(agent: Agent) -> None:
    agent.memory.heard([FailureLine("shop/cart", b'{"reason":"no_endpoint"}')], [("shop/cart", 2)])
    status, kind, text = await fetch(agent, "/failures?service=shop/cart&limit=5")
    assert (status, kind) == (200, "application/json")
    assert json.loads(text) == {
        "node": "here",
        "since": 0,
        "seen": 1,
        "left_out": 2,
        "kept": 1,
        "failures": [{"reason": "no_endpoint"}],
        "services": [],
    }
    host, port = agent.server.address
    url = f"http://{host}:{port}/failures"
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as first:
            tag = first.headers["ETag"]
        async with session.get(url, headers={"If-None-Match": tag}) as again:
            assert (again.status, await again.read()) == (304, b"")
        agent.memory.heard([FailureLine("shop/pay", b"{}")], [])
        async with session.get(url, headers={"If-None-Match": tag}) as more:
            assert (more.status, len((await more.json())["failures"])) == (200, 2)


@pytest.mark.parametrize(
    "query",
    [
        *("service=cart", "service=a/b/c", "service=/", "service=shop/", f"service=shop/{'x' * 3000}"),
        *("limit=0", "limit=501", "limit=x", "limit=", "limit=-1", "limit=1e2", "limit=%D9%A1", "limit=9999"),
    ],
)
async def test_failures_that_cannot_be_asked_for(agent: Agent, query: str) -> None:
    status, kind, text = await fetch(agent, f"/failures?{query}")
    assert (status, kind) == (400, "text/plain; charset=utf-8")
    assert query.partition("=")[0] in text


ODD_WINDOWS = (
    *("0", "10", "2m", "a%20minute", "", "-1s", "nan", "inf", "1e1s", "0.9s", "%D9%A1s", "%00"),
    *("61s", "9" * 400 + "s", "%3Cscript%3E"),
)


@pytest.mark.parametrize("service", ["%00/x", "%3Cscript%3E/x", "shop/nosuch", "%F0%9F%98%80/x"])
async def test_failures_of_a_service_that_is_nowhere_are_none(agent: Agent, service: str) -> None:
    status, kind, text = await fetch(agent, f"/failures?service={service}")
    assert (status, kind, json.loads(text)["failures"]) == (200, "application/json", [])


@pytest.mark.parametrize("window", ODD_WINDOWS)
async def test_a_window_that_cannot_be_had(agent: Agent, window: str) -> None:
    status, kind, text = await fetch(agent, f"/stats?window={window}")
    assert (status, kind) == (400, "text/plain; charset=utf-8")
    assert "expected a duration from 1s to 1m" in text


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


WITHOUT_QUERY = sorted(PAGES.keys() - {"/resolve", "/explain", "/tap"})


@pytest.mark.parametrize("path", ["/", *WITHOUT_QUERY, "/resolve?name=a.svc.mesh", "/explain?url=a"])
async def test_head_has_no_body_and_nothing_else_is_allowed(agent: Agent, path: str) -> None:
    assert (await fetch(agent, path, "HEAD"))[::2] == (200, "")
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert (await fetch(agent, path, method))[0] == 405


@pytest.mark.parametrize("path", [*PAGES, "/%3Cscript%3Ealert(1)%3C/script%3E", "/tap?service=%3Cb%3E"])
async def test_no_page_is_taken_for_another_kind_than_it_says(agent: Agent, path: str) -> None:
    host, port = agent.server.address
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}{path}") as got:
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert got.content_type != "text/html" or got.headers["Content-Security-Policy"]


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


class Endless:
    """Metrics that are made until they are ended."""

    def __init__(self) -> None:
        self.asked = 0
        self.ended = False

    def __iter__(self) -> Iterator[bytes]:
        self.asked += 1
        while not self.ended:
            yield b""
        yield b"a 1\n"


async def test_scrapers_without_pause_leave_room_for_other_pages(agent: Agent) -> None:
    endless = agent.pieces = Endless()
    scrapes = [asyncio.create_task(fetch(agent, "/metrics")) for _ in range(10)]
    await until_async(lambda: endless.asked == 10)
    for path in ("/healthz", "/plan", "/stats"):
        assert (await asyncio.wait_for(fetch(agent, path), 30))[0] == 200
    assert not any(scrape.done() for scrape in scrapes)
    endless.ended = True
    assert {(status, text) for status, _, text in await asyncio.gather(*scrapes)} == {(200, "a 1\n")}


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


async def ask(agent: Agent, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    host, port = agent.server.address
    url = f"http://{host}:{port}{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers, allow_redirects=False) as got,
    ):
        return got.status, got.headers, await got.read()


async def test_a_plan_that_the_client_has_is_not_sent_again(agent: Agent) -> None:
    status, headers, body = await ask(agent, "/plan")
    tag = headers["ETag"]
    assert (status, body) == (200, b'{\n  "version": 7\n}\n')
    assert (await ask(agent, "/plan", **{"If-None-Match": tag}))[::2] == (304, b"")
    assert (await ask(agent, "/plan", **{"If-None-Match": f'"other", {tag}'}))[::2] == (304, b"")
    agent.document = {"version": 8}
    status, headers, body = await ask(agent, "/plan", **{"If-None-Match": tag})
    assert (status, b"8" in body, headers["ETag"] == tag) == (200, True, False)


async def test_the_page_and_its_files(agent: Agent) -> None:
    status, headers, body = await ask(agent, "/ui")
    assert (status, headers["Location"]) == (307, "ui/"), "so that it works behind a proxy with any path"
    status, headers, body = await ask(agent, "/ui/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ")
    assert headers["X-Content-Type-Options"] == "nosniff"
    named = {*re.findall(rb'(?:href|src)="([\w.]+\.(?:js|css))"', body)}
    assert named == {path.name.encode() for path in STATIC.iterdir() if path.suffix in (".js", ".css")}
    for name in named:
        status, headers, _ = await ask(agent, f"/ui/{name.decode()}")
        assert status == 200
        assert (await ask(agent, f"/ui/{name.decode()}", **{"If-None-Match": headers["ETag"]}))[0] == 304
    for path in ("/ui/none.js", "/ui/..%2fserver.py", "/ui/%2e%2e/server.py", "/ui/static/app.js"):
        assert (await ask(agent, path))[0] == 404


async def test_what_the_page_asks_for(agent: Agent) -> None:
    status, _, body = await ask(agent, "/ui/live?window=5s")
    assert (status, json.loads(body)) == (
        200,
        {
            "scope": "node",
            "window": 5.0,
            "services": [],
            "edges": [],
            "left_out": 0,
            "agents": [{"node": "here", "agent": "", "reason": ""}],
            "total": 1,
            "answered": 1,
        },
    )
    assert (await ask(agent, "/ui/live?window=x"))[0] == 400


def test_no_file_of_the_page_names_another_place_or_makes_markup() -> None:
    for path in STATIC.iterdir():
        text = path.read_text()
        assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}, path
        forbidden = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|\son\w+=|style="
        assert not re.search(forbidden, text), path


async def test_long_pages_are_compressed_for_those_who_take_it(agent: Agent) -> None:
    agent.document = {"version": 7, "text": "many words " * 1000}
    host, port = agent.server.address
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        url = f"http://{host}:{port}/plan"
        async with session.get(url, headers={"Accept-Encoding": "gzip"}) as got:
            body = await got.read()
            assert (got.headers["Content-Encoding"], len(body) < 1000) == ("gzip", True)
            assert json.loads(gzip.decompress(body)) == agent.document
        async with session.get(url, headers={"Accept-Encoding": "identity"}) as got:
            assert "Content-Encoding" not in got.headers
            assert json.loads(await got.read()) == agent.document
