"""How meshctl reaches agents: by port forwarding, else by the pod proxy; agents and meshctl of two ages."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from discovery.kube.commands.agents import PAGE_BYTES
from nodeagent.admin.access import Asker, advice, refusal
from nodeagent.admin.formats import TextFormat
from nodeagent.admin.plan_page import PlanText
from nodeagent.admin.readiness import Readiness
from nodeagent.admin.resolve import Resolution
from nodeagent.admin.server import AdminServer
from nodeagent.meshctl.main import main
from tests.admin.test_server import Agent as Shown
from tests.cli.test_status import METRICS, put_pages
from tests.cli.test_status import put_agent as put_pod
from tests.discovery.kube.fake_api import FakeApi, answer, raw, status

REASON = refusal("/resolve", Asker("10.0.0.1", "10.0.0.2", "10.0.0.2:15000"))
REFUSED = f"/resolve is not shown here: {REASON}. {advice(15000)}\n"
NO_RIGHT = answer(403, status(403, "Forbidden", "pods/proxy is forbidden"))


def put_agent(api: FakeApi, name: str, node: str) -> None:
    labels = {"app.kubernetes.io/name": "svcmesh", "app.kubernetes.io/component": "agent"}
    put_pod(api, name, node, metadata={"labels": labels})


class Agent:
    """An agent's real admin server, on a loop of its own."""

    def __init__(self) -> None:
        self.more = b""
        view = msgspec.structs.replace(
            Shown().view, metrics=self.metrics, plan=self.plan, resolve=self.resolve, readiness=Readiness()
        )
        self.server = AdminServer(("127.0.0.1", 0), view)

    def metrics(self, form: TextFormat) -> Iterator[bytes]:
        yield METRICS.format(stale=0.0).encode()
        yield self.more

    async def plan(self, _: str = "") -> PlanText:
        return PlanText(b"{}", "")

    async def resolve(self, name: str) -> Resolution:
        return Resolution(name or "svc.mesh", "SOA", "240.0.0.53:53", "NOERROR")


@pytest.fixture
def agent() -> Iterator[Agent]:
    made, loop = Agent(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(made.server.start(), loop).result(10)
    yield made
    asyncio.run_coroutine_threadsafe(made.server.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def meshctl(api: FakeApi, tmp_path: Path, *arguments: str) -> tuple[int, str]:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    result = CliRunner().invoke(main, [*arguments, "--kubeconfig", kubeconfig])
    return result.exit_code, result.stdout


def resolve_check(api: FakeApi, tmp_path: Path) -> tuple[str, str]:
    """Return result and message of the check that reads a guarded page."""
    _, output = meshctl(api, tmp_path, "check", "--cluster", "--installed", "-o", "json")
    (found,) = [one for one in json.loads(output)["checks"] if one["id"] == "agents-resolve"]
    return found["result"], found["message"]


def test_by_port_forwarding_all_pages_are_there(api: FakeApi, agent: Agent, tmp_path: Path) -> None:
    put_agent(api, "a", "node-a")
    api.forwards["a"] = agent.server.address
    code, output = meshctl(api, tmp_path, "status")
    assert (code, output.splitlines()[-1]) == (0, "1 of 1 agents in order")
    assert resolve_check(api, tmp_path) == ("ok", "svc.mesh on 1 of 1 nodes")
    assert [query["ports"] for query in api.queries("forward", "Pod")] == ["15000", "15000"], (
        "one for all pages"
    )


def test_a_page_that_is_long(api: FakeApi, agent: Agent, tmp_path: Path) -> None:
    put_agent(api, "a", "node-a")
    api.forwards["a"] = agent.server.address
    agent.more = b"# nothing\n" * (PAGE_BYTES // 5)
    assert meshctl(api, tmp_path, "status")[0] == 0


def test_without_the_right_health_and_metrics_come_by_the_pod_proxy(api: FakeApi, tmp_path: Path) -> None:
    for name in ("a", "b"):
        put_agent(api, name, f"node-{name}")
        put_pages(api, name)
        api.forwards[name] = 403
        api.pages[f"{name}:15000", "resolve"] = raw(403, REFUSED.encode(), "text/plain")
    code, output = meshctl(api, tmp_path, "status")
    assert (code, output.splitlines()[-1]) == (0, "2 of 2 agents in order")
    result, message = resolve_check(api, tmp_path)
    assert result == "not-checked"
    assert "it needs `get` and `create` on pods/portforward; by the pod proxy the agent says" in message
    assert "shown on the node itself only" in message


def test_a_right_that_is_lacking_is_tried_once(api: FakeApi, tmp_path: Path) -> None:
    for number in range(40):
        put_agent(api, f"a{number}", f"node-{number}")
        put_pages(api, f"a{number}")
        api.forwards[f"a{number}"] = 403
    assert meshctl(api, tmp_path, "status")[0] == 0
    assert api.count("forward", "Pod") <= 16, "those that were under way when the first answer came"


def test_an_older_agent_at_another_address_shows_all_by_the_pod_proxy(api: FakeApi, tmp_path: Path) -> None:
    put_agent(api, "a", "node-a")
    put_pages(api, "a")
    api.forwards["a"] = ("127.0.0.1", 1)  # nothing listens at its loopback address
    found = Resolution("svc.mesh", "SOA", "240.0.0.53:53", "NOERROR")
    document = {name: getattr(found, name) for name in found.__struct_fields__}
    api.pages["a:15000", "resolve"] = answer(200, document)
    assert meshctl(api, tmp_path, "status")[0] == 0
    assert resolve_check(api, tmp_path) == ("ok", "svc.mesh on 1 of 1 nodes")


def test_with_no_right_at_all_both_are_named(api: FakeApi, tmp_path: Path) -> None:
    put_agent(api, "a", "node-a")
    api.forwards["a"] = 403
    api.pages["a:15000", "readyz"] = api.pages["a:15000", "metrics"] = NO_RIGHT
    code, output = meshctl(api, tmp_path, "status")
    assert code == 1
    assert (
        "it needs `get` and `create` on pods/portforward; by the pod proxy: pods/proxy is forbidden" in output
    )


def test_an_older_meshctl_is_told_what_to_do() -> None:
    """It asks by the pod proxy, and shows what the agent answers: the first 200 characters."""
    shown = " ".join(REFUSED.split())[:200]
    assert shown.startswith("/resolve is not shown here: it is shown on the node itself only")
    assert "meshctl" in shown


def test_a_page_of_one_node(api: FakeApi, agent: Agent, tmp_path: Path) -> None:
    put_agent(api, "a", "node-a")
    api.forwards["a"] = agent.server.address
    assert meshctl(api, tmp_path, "page", "/plan") == (0, "{}")
    code, output = meshctl(api, tmp_path, "page", "/resolve?name=cart.shop.svc.mesh")
    assert (code, json.loads(output)["name"]) == (0, "cart.shop.svc.mesh")
    assert "/resolve" in meshctl(api, tmp_path, "page", "/")[1]
    assert meshctl(api, tmp_path, "page", "/nothing") == (1, "")
    for bad in ("plan", "/plan x", "/plan\r\nX: y", "/é"):
        assert meshctl(api, tmp_path, "page", bad)[0] == 2
    put_agent(api, "b", "node-b")
    assert meshctl(api, tmp_path, "page", "/plan") == (1, "")
    assert meshctl(api, tmp_path, "page", "/plan", "--node", "node-a") == (0, "{}")
    assert meshctl(api, tmp_path, "page", "/plan", "--node", "node-c") == (1, "")
