"""`meshctl` on a person's own machine: none of the agent's packages, and not necessarily Linux."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from nodeagent.cli.needs import AGENT_PACKAGES, unmet
from nodeagent.meshctl.main import main as meshctl
from tests.cli.test_meshctl import BAD
from tests.cli.test_status import put_agent, put_pages
from tests.discovery.kube.fake_api import FakeApi
from tests.discovery.kube.objects import endpoint_slice, service
from tests.packaging.elsewhere import AGENT_ONLY, ROOT, run

EXTRA = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["agent"]
OLD = """\
apiVersion: v1
kind: Service
metadata:
  name: cart
  namespace: shop
  annotations: {mesh.traefik.io/retry-attempts: "3"}
spec:
  clusterIP: 10.96.0.10
  ports: [{port: 80}]
"""


def commands(group: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*words, name))


@pytest.mark.parametrize("words", list(commands(meshctl)), ids=" ".join)
def test_every_command_shows_its_help_on_any_system(words: tuple[str, ...]) -> None:
    done = run("meshctl", *words, "--help", foreign=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(" ".join(("Usage: meshctl", *words)))


def test_check_reads_files_on_any_system(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(BAD)
    here = run("meshctl", "check", str(tmp_path))
    assert (here.returncode, here.stderr) == (1, "")
    assert "effect:" in here.stdout
    there = run("meshctl", "check", str(tmp_path), foreign=True)
    assert (there.returncode, there.stdout, there.stderr) == (1, here.stdout, "")


def test_migrate_reads_files_on_any_system(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(OLD)
    done = run("meshctl", "migrate", str(tmp_path), foreign=True)
    assert done.returncode == 0, done.stderr
    assert "svc.mesh/retry-attempts=2" in done.stdout


def test_clusters_are_read_on_any_system(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    api.put(service("cart"))
    api.put(endpoint_slice("cart-1"))
    put_agent(api, "svcmesh-agent-1", "node-1")
    put_pages(api, "svcmesh-agent-1")
    checked = run("meshctl", "check", "--cluster", "--services", "--kubeconfig", kubeconfig, foreign=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    whole = ("check", "--cluster", "--kubeconfig", kubeconfig)
    here, there = run("meshctl", *whole), run("meshctl", *whole, foreign=True)
    assert (there.returncode, there.stdout, there.stderr) == (here.returncode, here.stdout, "")
    assert "the API server answers" in there.stdout
    status = run("meshctl", "status", "--kubeconfig", kubeconfig, foreign=True)
    assert (status.returncode, status.stderr) == (0, "")
    assert "1 of 1 agents in order" in status.stdout


@pytest.mark.parametrize("words", ["run --source file:. --capture loopback", "node-check"])
def test_the_agent_says_what_to_install(words: str) -> None:
    done = run("nodeagent", *words.split())
    assert done.returncode == 2
    assert done.stderr == (
        "Error: the agent needs Python packages that are not installed "
        "(asyncinotify, pylsqpack, pyroute2, uvloop); install svcmesh with its extra, as in: "
        f"pip install 'svcmesh-{version('svcmesh')}-py3-none-any.whl[agent]'\n"
    )


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_the_agent_says_that_it_needs_linux(platform: str) -> None:
    done = run("nodeagent", "run", foreign=True, before=f"sys.platform = {platform!r}")
    assert done.returncode == 2
    assert done.stderr == (
        f"Error: the agent needs Linux, and this is {platform}; meshctl works here, and the agent does "
        "in a Linux container or virtual machine\n"
    )


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("version",)], ids=" ".join)
def test_the_agent_shows_help_and_version_on_any_system(words: tuple[str, ...]) -> None:
    done = run("nodeagent", *words, foreign=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_is_unmet_where_everything_is_there() -> None:
    assert unmet("linux", lambda name: True) == ""
    assert "not installed (uvloop);" in unmet("linux", lambda name: name != "uvloop")


def test_what_is_looked_for_is_what_the_extra_installs() -> None:
    names = {requirement.partition(">=")[0] for requirement in EXTRA}
    assert names == set(AGENT_PACKAGES) == set(AGENT_ONLY)
