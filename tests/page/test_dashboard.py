"""`meshctl dashboard`: the sums of all agents in the same page, below a secret path, for one machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from hack.kit.waiting import until_async
from nodeagent.control.tap import TapFilter
from nodeagent.meshctl.asking import Agents, Answer, WhichAgents, open_agents
from nodeagent.meshctl.clustertap import NONE_LEFT, ClusterTap
from nodeagent.meshctl.commands.agents import SELECTOR
from nodeagent.meshctl.dashboard import FRESH, REMEMBERED, Dashboard, serve_dashboard
from nodeagent.meshctl.failures import LEAST_EACH, SHARED, share_of
from nodeagent.meshctl.watching import watch_agents
from nodeagent.stats.failures import FailureLine, FailureMemory
from tests.cli.stats import counted, node_stats
from tests.cli.test_status import put_agent
from tests.discovery.kube.fake_api import FakeApi, raw
from tests.page.browser import Page
from tests.page.shown import ANSWERED, Shown


def failed(second: int, reason: str) -> FailureLine:
    fields = {"time": f"2026-01-01T00:00:{second:02}Z", "reason": reason, "service": "shop/cart"}
    return FailureLine("shop/cart", json.dumps(fields).encode())


def put_page(api: FakeApi, agent: str, path: str, body: bytes) -> None:
    api.pages[f"{agent}:15000", path] = raw(200, body, "application/json")


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    api = FakeApi()
    await api.start()
    yield api
    await api.stop()


@pytest.fixture
async def agents(shop: Shown, api: FakeApi, tmp_path: Path) -> AsyncIterator[Agents]:
    """The shop's agent and another one, behind an API server; a third one does not run."""
    await shop.server.close()
    stats = msgspec.json.encode(shop.now)
    other = node_stats("node-2", {"shop/cart:80": {"shop/deployment/front": counted(good=1000)}})
    plan = await shop.server._view.plan("")
    for number, body in ((1, stats), (2, msgspec.json.encode(other))):
        put_agent(api, f"agent-{number}", f"node-{number}")
        api.pages[f"agent-{number}:15000", "stats"] = raw(200, body, "application/json")
        api.pages[f"agent-{number}:15000", "plan"] = raw(200, plan.body, "application/json")
    put_agent(api, "agent-3", "node-3", phase="Pending")
    async with open_agents(WhichAgents(kubeconfig=api.write_kubeconfig(tmp_path / "config"))) as opened:
        yield opened


async def fetch(url: str, **headers: str) -> tuple[int, bytes, str]:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, await response.read(), response.headers.get("ETag", "")


async def test_sums_of_all_agents(agents: Agents) -> None:
    async with serve_dashboard(agents) as address:
        status, body, _ = await fetch(f"{address}live?window=10s")
        live = json.loads(body)
        cart = next(one for one in live["services"] if one["service"] == "cart")
        assert (status, live["scope"], live["answered"], live["total"]) == (200, "cluster", 2, 3)
        assert (cart["nodes"], cart["signals"]["requests"], cart["signals"]["failed"]) == (2, 2000, 30)
        assert ("front", "cart") in {(one["source_service"], one["service"]) for one in live["edges"]}
        one = json.loads((await fetch(f"{address}live?agent=agent-2"))[1])
        assert [(row["service"], row["signals"]["requests"]) for row in one["services"]] == [("cart", 1000)]
        plan = address.removesuffix("ui/") + "plan"
        status, body, tag = await fetch(plan)
        assert (status, "shop/cart" in json.loads(body)["services"]) == (200, True)
        assert (await fetch(plan, **{"If-None-Match": tag}))[:2] == (304, b"")
        assert (await fetch(f"{plan}?agent=agent-3"))[0] == 502
        assert (await fetch(f"{address}live?window=forever"))[0] == 400
        assert (await fetch(f"{address}none.js"))[0] == 404
        assert (await fetch(f"{address}..%2fserver.py"))[0] == 404


async def test_nobody_else_is_answered(agents: Agents) -> None:
    async with serve_dashboard(agents) as address, serve_dashboard(agents) as other:
        assert (await fetch(address))[0] == 200
        assert (await fetch(address, Host="evil.example"))[0] == 403
        root = address.split("/ui/")[0].rpartition("/")[0]
        for path in ("/", "/ui/", "/plan", "/ui/live", "/x/ui/live"):
            assert (await fetch(root + path))[0] == 404
        assert address.split("/")[3] != other.split("/")[3]
        assert len(address.split("/")[3]) >= 32


async def test_failures_of_all_agents(agents: Agents, api: FakeApi) -> None:
    for number, reason in ((1, "no_endpoint"), (2, "pool_full")):
        memory = FailureMemory(f"node-{number}", 5.0 + number)
        memory.heard([failed(number, reason)], [("shop/cart", number)])
        put_page(api, f"agent-{number}", "failures", msgspec.json.encode(memory.show()))
    async with serve_dashboard(agents) as address:
        failures = address.removesuffix("ui/") + "failures"
        status, body, tag = await fetch(f"{failures}?service=shop/cart&limit=5")
        page = json.loads(body)
        assert (status, page["seen"], page["left_out"], page["since"]) == (200, 2, 3, 6)
        assert [one["reason"] for one in page["failures"]] == ["pool_full", "no_endpoint"]
        again = await fetch(f"{failures}?service=shop/cart&limit=5", **{"If-None-Match": tag})
        assert again[:2] == (304, b"")
        one = json.loads((await fetch(f"{failures}?agent=agent-1"))[1])
        assert [failure["reason"] for failure in one["failures"]] == ["no_endpoint"]
        assert (await fetch(f"{failures}?limit=x"))[0] == 400


async def test_an_agent_that_keeps_no_failures_is_named(page: Page, api: FakeApi, agents: Agents) -> None:
    memory = FailureMemory("node-1", 6.0)
    put_page(api, "agent-1", "failures", msgspec.json.encode(memory.show()))
    api.pages["agent-2:15000", "failures"] = raw(404, b"there is no /failures here", "text/plain")
    async with serve_dashboard(agents) as address:
        await page.open(f"{address}#/failures")
        await page.until("document.body.innerText.includes('node-2: it does not keep failures')")
        said = await page.run("document.getElementById('failures').innerText")
        assert "node-3: the pod is Pending" in said
        assert "✓" not in said
        memory.heard([failed(1, "no_endpoint")], [])
        put_page(api, "agent-1", "failures", msgspec.json.encode(memory.show()))
        await page.until("document.getElementById('failures').innerText.includes('1 shown')")
        assert "node-2: it does not keep" in await page.run("document.getElementById('failures').innerText")


@given(st.integers(1, SHARED), st.integers(0, 5000))
def test_many_agents_are_asked_for_few_failures_each(limit: int, agents: int) -> None:
    each = share_of(limit, agents)
    assert min(limit, LEAST_EACH) <= each <= limit
    assert each * agents <= max(SHARED, LEAST_EACH * agents)
    if agents * limit <= SHARED:
        assert each == limit


async def test_hundreds_of_agents_are_asked_for_500_failures_together() -> None:
    many = Many(400)
    dashboard = Dashboard(many, now=lambda: 0.0)  # type: ignore[arg-type]
    runner = web.AppRunner(dashboard.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    failures = f"http://127.0.0.1:{runner.addresses[0][1]}/{dashboard.secret}/failures?limit=200"
    try:
        assert json.loads((await fetch(failures))[1])["each"] == 5
        many.count = 3
        assert json.loads((await fetch(f"{failures}&service=shop/cart"))[1])["each"] == 5
        assert json.loads((await fetch(f"{failures}&service=shop/pay"))[1])["each"] == 166
        assert "each" not in json.loads((await fetch(f"{failures}&agent=agent-7"))[1])
        assert many.limits == ["5", "5", "166", "200"]
    finally:
        await runner.cleanup()


class Many:
    """Agents that note how many failures they are asked for."""

    none = "no agents"

    def __init__(self, count: int) -> None:
        self.count = count
        self.limits: list[str] = []

    async def ask(self, path: str, query: Mapping[str, str], one: str = "") -> list[Answer]:
        assert path == "/failures"
        self.limits.append(query["limit"])
        page = msgspec.json.encode(FailureMemory("n", 1.0).show()).decode()
        return [Answer("n", one, page)] if one else [Answer("n", "a", page)] * self.count

    async def names(self) -> list[str]:
        return ["a"] * self.count


async def test_an_explanation_comes_from_the_agent_that_has_one(agents: Agents, api: FakeApi) -> None:
    unknown = b"'shop/x' is neither an IPv4 address nor a pod that is known: NAMESPACE/POD"
    api.pages["agent-1:15000", "explain"] = raw(400, unknown, "text/plain")
    put_page(api, "agent-2", "explain", b'{"url": "x"}')
    async with serve_dashboard(agents) as address:
        explain = address.removesuffix("ui/") + "explain"
        assert (await fetch(f"{explain}?url=a&from=shop/x"))[:2] == (200, b'{"url": "x"}')
        assert (await fetch(f"{explain}?url=a"))[:2] == (400, unknown)
        assert (await fetch(f"{explain}?url=a&agent=agent-2"))[0] == 200
        status, text, _ = await fetch(f"{explain}?url=a&agent=agent-3")
        assert (status, text) == (400, b"the pod is Pending")


class Counting:
    """Agents that count how often they are asked."""

    none = "no agents"

    def __init__(self) -> None:
        self.asked = 0

    async def ask(self, path: str, query: object, one: str = "") -> list[object]:
        self.asked += path == "/stats"
        return []

    async def names(self) -> list[str]:
        return []


async def test_many_windows_ask_agents_once() -> None:
    counting, now = Counting(), [0.0]
    dashboard = Dashboard(counting, now=lambda: now[0])  # type: ignore[arg-type]
    runner = web.AppRunner(dashboard.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    live = f"http://127.0.0.1:{runner.addresses[0][1]}/{dashboard.secret}/ui/live"
    try:
        await asyncio.gather(*(fetch(live) for _ in range(10)))
        assert counting.asked == 1
        now[0] += FRESH["live"]
        await fetch(live)
        assert counting.asked == 2
        for number in range(REMEMBERED + 10):
            await fetch(f"{live}?agent=agent-{number}")
        assert len(dashboard._lives._made) == len(dashboard._lives._making) == REMEMBERED
    finally:
        await runner.cleanup()


@pytest.fixture
async def tapped(api: FakeApi, agents: Agents, shop: Shown, tmp_path: Path) -> ClusterTap:
    """Live requests: agent-1 has some, agent-2 refuses, agent-3 does not run."""
    await shop.server.start()
    api.forwards["agent-1"] = shop.server.address
    api.forwards["agent-2"] = 403
    which = WhichAgents(kubeconfig=str(tmp_path / "config"), selector=SELECTOR)
    return ClusterTap(partial(watch_agents, which))


async def test_live_requests_of_all_agents(
    page: Page, api: FakeApi, agents: Agents, shop: Shown, tapped: ClusterTap
) -> None:
    async with serve_dashboard(agents, tap=tapped) as address:
        await page.open(f"{address}#/service/shop/cart")
        await page.until("document.body.innerText.includes('Watch requests')")
        button = "document.querySelector('#view-service .watch button')"
        await page.run(f"{button}.click()")
        await until_async(is_watched(shop, 1))
        shop.tell(ANSWERED, dropped=3)
        await page.until("document.body.innerText.includes('1 request came; 1 shown')")
        said = await page.run("document.body.innerText")
        assert "▲ 3 more were left out" in said
        assert "▲ node-2 is not watched: port forwarding to" in said
        assert "▲ node-3 is not watched: the pod is Pending" in said
        await page.run("document.querySelector('#view-service .failures summary').click()")
        await page.until("document.querySelector('#view-service .facts').innerText.includes('node-1')")
        await page.run("location.hash = '#/map'")
        await until_async(is_watched(shop, 0), 30.0)
        assert page.complaints == []
        assert tapped._tasks == {}


async def test_one_agent_is_watched_if_it_is_chosen(agents: Agents, shop: Shown, tapped: ClusterTap) -> None:
    async with serve_dashboard(agents, tap=tapped) as address, aiohttp.ClientSession() as session:
        tap = address.removesuffix("ui/") + "tap"
        asked = {"service": "shop/cart", "status": "5xx", "agent": "node-3"}
        async with session.get(tap, params=asked) as response:
            lines = [json.loads(await response.content.readline()) for _ in range(2)]
        assert lines == [{"node": "node-3", "error": "the pod is Pending"}, {"ended": NONE_LEFT}]
        async with session.get(tap, params={**asked, "agent": "agent-1"}):
            await until_async(is_watched(shop, 1))
            (watch,) = shop.watchers.watches
            assert watch.filter == TapFilter("shop/cart", status="5xx")
        await until_async(is_watched(shop, 0), 30.0)
        assert (await fetch(f"{tap}?service=cart"))[0] == 400


def is_watched(shop: Shown, times: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return len(shop.watchers.watches) == times

    return look


async def test_in_a_browser(page: Page, agents: Agents) -> None:
    async with serve_dashboard(agents) as address:
        await page.open(f"{address}#/map")
        await page.until("document.body.innerText.includes('2 of 3 agents answered')")
        await page.until("document.body.innerText.includes('200/s 98.50 %')")
        assert "the pod is Pending" not in await page.run("document.getElementById('map').innerText")
        await page.run("location.hash = '#/nodes'")
        await page.until("document.body.innerText.includes('✖ the pod is Pending')")
        await page.run(
            "(() => { const one = document.getElementById('agent'); one.value = 'agent-2';"
            " one.dispatchEvent(new Event('change')); })()"
        )
        await page.run("location.hash = '#/service/shop/cart'")
        await page.until("document.body.innerText.includes('100/s')")
        assert page.complaints == []
