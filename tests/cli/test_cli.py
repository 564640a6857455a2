"""The command line of the daemon."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from nodeagent.cli.main import main, run
from nodeagent.settings import Settings

FLAGS = [
    "--source", "--capture", "--mesh-range", "--zone", "--alias-zone", "--dns-listen", "--admin-listen",
    "--workers", "--node-name", "--drain-timeout", "--log-level", "--log-format", "--access-log",
    "--access-log-format",
    "--compat", "--endpoints", "--node-zone",
]  # fmt: skip


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of the agents that were started; each of them ends with 7 at once."""
    settings: list[Settings] = []

    def run_agent(given: Settings, died: str) -> int:
        assert not died
        settings.append(given)
        return 7

    app = ModuleType("nodeagent.agent.run")
    app.__dict__["run_agent"] = run_agent
    monkeypatch.setitem(sys.modules, "nodeagent.agent.run", app)
    for flag in FLAGS:
        monkeypatch.delenv("SVCMESH_" + flag[2:].replace("-", "_").upper(), raising=False)
    return settings


def test_flags_reach_the_agent(started: list[Settings]) -> None:
    arguments = (
        "run --source file:shop --capture loopback --mesh-range 127.128.0.0/9 --zone mesh.test "
        "--alias-zone a.test --alias-zone b.test --dns-listen 127.0.0.1:53530 "
        "--admin-listen 127.0.0.1:15999 --workers 2 --node-zone eu-1a "
        "--node-name n1 --drain-timeout 1m --log-level debug --log-format json --access-log all "
        "--access-log-format {time}{path}"
    )
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 7, result.output
    (settings,) = started
    assert settings.source == "file:shop"
    assert settings.mesh_range == "127.128.0.0/9"
    assert (settings.zone, settings.alias_zones) == ("mesh.test", ("a.test", "b.test"))
    assert settings.dns_listen == ("127.0.0.1", 53530)
    assert settings.admin_listen == ("127.0.0.1", 15999)
    assert (settings.workers, settings.node_name, settings.drain_timeout) == (2, "n1", 60.0)
    assert settings.node_zone == "eu-1a"
    assert (settings.log_level, settings.log_format, settings.access_log) == ("debug", "json", "all")
    assert settings.access_log_format == "{time}{path}"


def test_the_environment_reaches_the_agent(started: list[Settings]) -> None:
    environment = {
        "SVCMESH_SOURCE": "file:shop",
        "SVCMESH_CAPTURE": "loopback",
        "SVCMESH_MESH_RANGE": "127.128.0.0/9",
        "SVCMESH_ZONE": "mesh.test",
        "SVCMESH_ALIAS_ZONE": "a.test b.test",
        "SVCMESH_DNS_LISTEN": "127.0.0.1:53530",
        "SVCMESH_ADMIN_LISTEN": "127.0.0.1:15999",
        "SVCMESH_WORKERS": "2",
        "SVCMESH_NODE_NAME": "n1",
        "SVCMESH_NODE_ZONE": "eu-1a",
        "SVCMESH_DRAIN_TIMEOUT": "1m",
        "SVCMESH_LOG_LEVEL": "debug",
        "SVCMESH_LOG_FORMAT": "console",
        "SVCMESH_ACCESS_LOG": "off",
        "SVCMESH_ACCESS_LOG_FORMAT": "{time} {path}",
        "SVCMESH_COMPAT": "traefik-mesh",
        "SVCMESH_ENDPOINTS": "web=127.0.0.1:1 web.shop:http=127.0.0.1:2,127.0.0.1:3",
    }
    assert {f"SVCMESH_{flag[2:].replace('-', '_').upper()}" for flag in FLAGS} == set(environment)
    result = CliRunner().invoke(main, ["run", "--workers", "5"], env=environment)
    assert result.exit_code == 7, result.output
    (settings,) = started
    assert settings.workers == 5, "the command line goes first"
    assert settings.alias_zones == ("a.test", "b.test", "traefik.mesh", "maesh")
    assert (settings.dns_listen, settings.drain_timeout) == (("127.0.0.1", 53530), 60.0)
    assert (settings.log_level, settings.log_format, settings.access_log) == ("debug", "console", "off")
    assert settings.access_log_format == "{time} {path}"
    assert [str(one) for one in settings.overrides] == [
        "web.default=127.0.0.1:1",
        "web.shop:http=127.0.0.1:2,127.0.0.1:3",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--mesh-range 10.0.0.0/24", "must be a /4 to a /16"),
        ("--source shop", "neither kube nor file:PATH"),
        ("--capture loopback --mesh-range 240.0.0.0/4", "must lie in 127.0.0.0/8"),
        ("--drain-timeout soon", "is not a duration"),
        ("--capture iptables", "iptables"),
        ("--access-log-format {stauts}", "{stauts} is no key of the access log; did you mean {status}?"),
        ("--access-log-format jsn", "did you mean json?"),
        ("--endpoints web=127.0.0.1:1", "--endpoints has a meaning with --source file:PATH only"),
        ("--source file:x --endpoints web", "'web' is not NAME[.NAMESPACE][:PORT]=ADDR:PORT"),
        ("--source file:x --endpoints =127.0.0.1:1", "'' is not NAME or NAME.NAMESPACE of a Service"),
        ("--source file:x --endpoints Web=127.0.0.1:1", "'Web' is not NAME or NAME.NAMESPACE"),
        ("--source file:x --endpoints web.=127.0.0.1:1", "'web.' is not NAME or NAME.NAMESPACE"),
        ("--source file:x --endpoints web.a.svc.mesh=127.0.0.1:1", "is not NAME or NAME.NAMESPACE"),
        ("--source file:x --endpoints web:=127.0.0.1:1", "'' is not the name or number of a port"),
        ("--source file:x --endpoints web:a:b=127.0.0.1:1", "'a:b' is not the name or number of a port"),
        ("--source file:x --endpoints web=", "'web=': is empty"),
        ("--source file:x --endpoints web=localhost:1", "'localhost' is a name"),
        ("--source file:x --endpoints web=127.0.0.1:99999", "'99999' is not a port from 1 to 65535"),
        ("--source file:x --endpoints web=[::1]:80", "names the IPv6 address"),
        ("--source file:x --endpoints web=127.0.0.1:1,127.0.0.1:1", "names 127.0.0.1:1 twice"),
        (
            "--source file:x --endpoints web=127.0.0.1:1 --endpoints web.default=127.0.0.1:2",
            "--endpoints is given twice for web.default",
        ),
    ],
)
def test_mistakes_are_named_and_start_nothing(arguments: str, message: str, started: list[Settings]) -> None:
    result = CliRunner().invoke(main, ["run", *arguments.split()])
    assert result.exit_code == 2
    assert message in result.output
    assert started == []


def test_every_flag_is_in_the_help_with_its_variable() -> None:
    result = CliRunner().invoke(main, ["run", "--help"], terminal_width=200)
    assert result.exit_code == 0
    words = result.output.split()
    for flag in FLAGS:
        assert flag in words
        assert f"SVCMESH_{flag[2:].replace('-', '_').upper()}" in result.output
    assert {option for parameter in run.params for option in parameter.opts} >= set(FLAGS)
    assert all(parameter.help for parameter in run.params if isinstance(parameter, click.Option))


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version_as_a_module(word: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "nodeagent", word], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("svc.mesh 0.")
