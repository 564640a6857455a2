"""`meshctl tap` against the real admin page of an agent, by port forwarding through an API server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result

from nodeagent.admin.formats import TextFormat
from nodeagent.admin.plan_page import PlanText
from nodeagent.admin.readiness import Readiness
from nodeagent.admin.resolve import Resolution
from nodeagent.admin.server import AdminServer, AdminView
from nodeagent.agent.tapping import TapDoor
from nodeagent.control.tap import TappedLine, Watch, Watchers
from nodeagent.meshctl.asking import WhichAgents
from nodeagent.meshctl.commands.agents import SELECTOR
from nodeagent.meshctl.main import main
from nodeagent.meshctl.tapline import text_line
from nodeagent.meshctl.watching import watch_agents
from nodeagent.stats.signals import NodeStats
from tests.cli.test_agent_access import put_agent
from tests.cli.test_table import in_terminal
from tests.discovery.kube.fake_api import FakeApi

REQUEST = {
    "time": "2026-11-28T19:02:21.442246Z",
    "method": "GET",
    "path": "/items",
    "status": 503,
    "took_ms": 12.5,
    "endpoint": "10.1.0.12:8080",
    "source": "10.1.0.9",
    "source_workload": "shop/deployment/web",
    "queue_ms": 0.0,
    "upstream_ms": 11.0,
    "reason": "upstream_status",
    "detail": "10.1.0.12:8080 answered 503",
}


TARGET = "/tap?service=shop%2Fcart"


class Agent:
    """An admin server whose every watch gets the same lines at once, on a loop of its own."""

    def __init__(self, lines: int, dropped: int = 0) -> None:
        self.lines, self.dropped = lines, dropped
        self.asked: list[Watch] = []
        self.watchers = Watchers(self._changed)
        door = TapDoor(self.watchers, lambda service: service == "shop/cart")
        view = AdminView(Readiness(), self.metrics, self.plan, self.resolve, self.stats, tap=door)
        self.server = AdminServer(("127.0.0.1", 0), view)

    def _changed(self, watches: tuple[Watch, ...]) -> None:
        for watch in watches:
            self.asked.append(watch)
            lines = [TappedLine((watch.number,), msgspec.json.encode(REQUEST))] * self.lines
            dropped = [(watch.number, self.dropped)]
            asyncio.get_running_loop().call_soon(self.watchers.heard, lines, dropped)

    def metrics(self, form: TextFormat) -> Iterator[bytes]:
        raise AssertionError

    async def plan(self, _: str = "") -> PlanText:
        raise AssertionError

    async def resolve(self, name: str) -> Resolution:
        raise AssertionError(name)

    async def stats(self, seconds: float) -> NodeStats:
        raise AssertionError(seconds)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join(10)
    made.close()


@pytest.fixture
def agents(api: FakeApi, loop: asyncio.AbstractEventLoop) -> Iterator[list[Agent]]:
    made = [Agent(2), Agent(3, dropped=7)]
    for name, agent in zip("ab", made, strict=True):
        asyncio.run_coroutine_threadsafe(agent.server.start(), loop).result(10)
        put_agent(api, name, f"node-{name}")
        api.forwards[name] = agent.server.address
    yield made
    for agent in made:
        asyncio.run_coroutine_threadsafe(agent.server.close(), loop).result(10)


def tap(api: FakeApi, tmp_path: Path, *arguments: str) -> Result:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    return CliRunner().invoke(main, ["tap", *arguments, "--kubeconfig", kubeconfig])


def test_requests_of_all_agents(api: FakeApi, agents: list[Agent], tmp_path: Path) -> None:
    given = ("cart", "-n", "shop", "--from", "web", "--status", "5XX", "--path", "/i?&", "--method", "get")
    result = tap(api, tmp_path, *given, "--max", "5", "-o", "json")
    assert result.exit_code == 0, result.output
    found = [msgspec.json.decode(line) for line in result.stdout.splitlines()]
    assert sorted(line["node"] for line in found) == ["node-a"] * 2 + ["node-b"] * 3
    assert all({**line, "node": ""} == {**REQUEST, "node": ""} for line in found)
    for agent in agents:
        wanted = agent.asked[0].filter
        assert (wanted.service, wanted.workload, wanted.status) == ("shop/cart", "web", "5xx")
        assert (wanted.path, wanted.method) == ("/i?&", "GET")


def test_more_agents_than_requests_to_the_api_server_at_once(
    api: FakeApi, agents: list[Agent], tmp_path: Path
) -> None:
    for name in "cde":
        put_agent(api, name, f"node-{name}")
        api.forwards[name] = agents[0].server.address
    which = WhichAgents(kubeconfig=api.write_kubeconfig(tmp_path / "config"), selector=SELECTOR)

    async def seen() -> set[str]:
        nodes: set[str] = set()
        async with asyncio.timeout(30), contextlib.aclosing(watch_agents(which, TARGET)) as lines:
            async for line in lines:
                nodes.add(line.node)
                if len(nodes) == 5:
                    break
        return nodes

    assert asyncio.run(seen()) == {f"node-{name}" for name in "abcde"}


def test_what_is_left_out_is_said(api: FakeApi, agents: list[Agent], tmp_path: Path) -> None:
    result = tap(api, tmp_path, "cart", "-n", "shop", "--node", "node-b", "--max", "3")
    agents[1].lines = 4
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [text_line(REQUEST)] * 3


def test_a_service_that_is_nowhere(api: FakeApi, agents: list[Agent], tmp_path: Path) -> None:
    result = tap(api, tmp_path, "none", "-n", "shop")
    assert result.exit_code == 1
    said = 'no Service "shop/none" is in the mesh on this node'
    assert sorted(result.stderr.splitlines()) == [f"node-a: {said}", f"node-b: {said}"]


def test_no_agents_and_no_right(api: FakeApi, tmp_path: Path) -> None:
    assert tap(api, tmp_path, "cart").exit_code == 1
    put_agent(api, "a", "node-a")
    api.forwards["a"] = 403
    result = tap(api, tmp_path, "cart")
    assert result.exit_code == 1
    assert "it needs `get` and `create` on pods/portforward" in result.stderr


def test_a_line_for_people() -> None:
    assert text_line(REQUEST) == (
        "19:02:21.442 shop/deployment/web GET /items 503 12.5ms 10.1.0.12:8080 upstream=11.0ms"
        "  upstream_status; 10.1.0.12:8080 answered 503"
    )


@pytest.mark.parametrize("path", ["/\x1b[2J", "/\u202etxt", "/" + "x" * 10_000, None, 7])
def test_no_request_writes_to_the_terminal_as_it_likes(path: Any) -> None:
    fields: Mapping[str, Any] = {**REQUEST, "path": path}
    line = text_line(fields)
    assert line.isprintable()
    assert len(line) < 500


def test_an_agent_at_an_address_is_watched_without_a_cluster(agents: list[Agent]) -> None:
    addresses = ["http://{}:{}".format(*agent.server.address) for agent in agents]
    given = [word for address in addresses for word in ("--agent", address)]
    result = CliRunner().invoke(main, ["tap", "cart", "-n", "shop", *given, "--max", "5", "-o", "yaml"])
    assert result.exit_code == 0, result.output
    found = list(yaml.safe_load_all(result.stdout))
    assert sorted(line["node"] for line in found) == sorted([addresses[0]] * 2 + [addresses[1]] * 3)
    assert all({**line, "node": ""} == {**REQUEST, "node": ""} for line in found)


def test_in_a_terminal_of_60_columns_lines_are_broken_between_words(agents: list[Agent]) -> None:
    address = "http://{}:{}".format(*agents[0].server.address)
    said = in_terminal(60, "tap", "shop/cart", "--agent", address, "--max", "1")
    assert all(len(line) <= 60 for line in said.splitlines()), said
    assert " ".join(said.split()) == " ".join(text_line(REQUEST).split())
