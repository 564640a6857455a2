"""Which agents a command asks: the same options everywhere, and agents at addresses without any cluster."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from nodeagent.admin.plan_page import PlanPage
from nodeagent.admin.server import AdminServer
from nodeagent.agent.explain_page import ExplainPage
from nodeagent.agent.tapping import TapDoor
from nodeagent.control.tap import Watchers
from nodeagent.meshctl.main import main
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.model import EMPTY_PLAN
from nodeagent.plan.render import InForce, in_force_document, service_document
from tests.admin.test_server import Agent
from tests.cli.test_output import commands
from tests.discovery.kube.fake_api import FakeApi, answer, status
from tests.plan.builders import SETTINGS, make_service, snapshot_of

PAGES = (
    "cache stat",
    "dashboard",
    "endpoints",
    "explain",
    "failures",
    "graph",
    "page",
    "routes",
    "stat",
    "tap",
    "top",
)
"""Commands that ask agents for pages."""
PODS = ("logs", "status")
"""Commands that need the agents' pods."""
TO_ASK = (
    ("routes", "web"),
    ("endpoints", "web"),
    ("explain", "http://web.default.svc.mesh/"),
    ("page", "/plan"),
    ("cache", "stat"),
    ("tap", "web"),
    ("stat",),
    ("failures",),
    ("graph",),
    ("top",),
)
OPTIONS = ("--kubeconfig", "--context", "--node", "--agents-namespace", "--selector")
COMMANDS = dict(commands())


def option_of(command: str, name: str) -> click.Option:
    (found,) = [
        one
        for one in COMMANDS[f"meshctl {command}"].params
        if isinstance(one, click.Option) and name in one.opts
    ]
    return found


@pytest.mark.parametrize("name", [*OPTIONS, "--agent"])
def test_each_command_that_asks_agents_has_the_options(name: str) -> None:
    model = option_of("stat", name)
    for command in PAGES if name == "--agent" else (*PAGES, *PODS):
        option = option_of(command, name)
        assert (option.help, option.default, option.metavar) == (model.help, model.default, model.metavar)


def test_no_other_command_has_options_of_its_own_for_that() -> None:
    having = {
        name.removeprefix("meshctl ")
        for name, command in COMMANDS.items()
        if any("--selector" in one.opts or "--agents-namespace" in one.opts for one in command.params)
    }
    assert having == {*PAGES, *PODS}


@pytest.fixture
def address() -> Iterator[str]:
    """The address of an agent's real admin server, on a loop of its own."""
    shown = InForce(compile_plan(snapshot_of(make_service("web")), EMPTY_PLAN, SETTINGS))
    view = msgspec.structs.replace(
        Agent().view,
        plan=PlanPage(lambda: shown, in_force_document, service_document).page,
        explain=ExplainPage(lambda: shown, dict, SETTINGS).body,
        tap=TapDoor(Watchers(lambda _: None), lambda service: service == "default/web"),
    )
    server = AdminServer(("127.0.0.1", 0), view)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    yield "http://{}:{}".format(*server.address)
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def meshctl(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_an_agent_at_an_address_is_asked_without_a_cluster(address: str) -> None:
    result = meshctl("routes", "web", "--agent", address, "-o", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["service"] == "default/web"
    result = meshctl("endpoints", "web", "--agent", address)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f"health and ejections of {address}\n")
    result = meshctl("explain", "http://web.default.svc.mesh/", "--agent", address)
    assert result.exit_code == 0, result.output
    assert "answer    that of the endpoint" in result.stdout
    result = meshctl("page", "/plan?service=default/web", "--agent", address)
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.stdout)["services"]) == ["default/web"]
    result = meshctl("page", "/nothing", "--agent", address)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no /nothing here" in result.stderr


def test_an_address_where_nobody_answers() -> None:
    nobody = "http://127.0.0.1:1"
    for command, code in (
        (("routes", "web"), 2),
        (("endpoints", "web"), 2),
        (("explain", "http://web.default.svc.mesh/"), 2),
        (("page", "/plan"), 1),
        (("cache", "stat"), 1),
        (("tap", "web"), 1),
        (("stat",), 1),
    ):
        result = meshctl(*command, "--agent", nobody)
        assert result.exit_code == code, (command, result.output)
        assert "http://127.0.0.1:1" in result.output
        assert "connection refused" in result.output
        assert "Usage" not in result.output, "the command was used rightly"


def test_a_tap_at_an_address_says_what_the_agent_says(address: str) -> None:
    result = meshctl("tap", "nothing", "--agent", address)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{address}: it answers 404: ")


@pytest.mark.parametrize("command", [("stat",), ("routes", "web"), ("page", "/plan"), ("tap", "web")])
def test_an_address_and_a_cluster_do_not_go_together(command: tuple[str, ...]) -> None:
    result = meshctl(*command, "--agent", "http://127.0.0.1:1", "--node", "node-1")
    assert result.exit_code == 2
    assert "--agent asks no cluster" in result.output


@pytest.mark.parametrize("command", [("logs", "web"), ("status",), *TO_ASK])
def test_whoever_may_not_list_pods_is_told_what_helps(
    api: FakeApi, tmp_path: Path, command: tuple[str, ...]
) -> None:
    for _ in range(2):
        api.script("list", "Pod", answer(403, status(403, "Forbidden", "pods is forbidden")))
    result = meshctl(*command, "--kubeconfig", api.write_kubeconfig(tmp_path / "config"))
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "pods is forbidden; if you may see the agents' namespace only" in result.stderr
    assert "--agents-namespace NAME" in result.stderr
    assert "Usage" not in result.stderr


@pytest.mark.parametrize("command", [("logs", "web"), ("status",), *TO_ASK])
def test_no_agent_is_said_in_the_same_words(api: FakeApi, tmp_path: Path, command: tuple[str, ...]) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    result = meshctl(*command, "--node", "node-9", "--kubeconfig", kubeconfig)
    assert result.exit_code in (1, 2)
    assert "no agents: no pod in any namespace on node-9 matches app" in result.stderr
