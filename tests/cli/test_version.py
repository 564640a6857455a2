"""`meshctl version` and `meshctl completion`: with a cluster, without one, and in a real shell."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from nodeagent.meshctl.main import main
from tests.cli.test_status import LABELS, put_agent, put_pages
from tests.discovery.kube.fake_api import FakeApi, answer, status

OWN = importlib.metadata.version("svcmesh")
AGENT = {**LABELS, "app.kubernetes.io/component": "agent"}


def meshctl(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout


def test_versions_of_agents_in_any_namespace(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    put_agent(api, "agent-1", "node-1", namespace="mesh", metadata={"labels": AGENT})
    put_agent(api, "agent-2", "node-2", namespace="mesh", phase="Pending", metadata={"labels": AGENT})
    put_pages(api, "agent-1")
    code, output = meshctl("version", "--kubeconfig", kubeconfig)
    assert code == 0
    assert output.splitlines()[0].startswith(f"meshctl {OWN} (Python ")
    assert output.splitlines()[1:] == [
        "agent 0.1.0 on node-1 (agent-1)",
        "agent (does not say) on node-2 (agent-2)",
    ]
    document = json.loads(meshctl("version", "--kubeconfig", kubeconfig, "-o", "json")[1])
    assert document["client"]["version"] == OWN
    assert document["reason"] == ""
    assert document["agents"] == [
        {"node": "node-1", "pod": "agent-1", "version": "0.1.0"},
        {"node": "node-2", "pod": "agent-2", "version": ""},
    ]


def test_a_cluster_that_cannot_be_asked_is_no_failure(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    assert meshctl("version", "--kubeconfig", kubeconfig)[1].splitlines()[1] == "agents: none"
    api.script("list", "Pod", *[answer(403, status(403, "Forbidden", "not for you"))] * 2)
    code, output = meshctl("version", "--kubeconfig", kubeconfig)
    assert (code, output.splitlines()[1]) == (0, "agents not asked: status 403: not for you")
    document = json.loads(meshctl("version", "--kubeconfig", kubeconfig, "-o", "json")[1])
    assert (document["agents"], document["reason"]) == (None, "status 403: not for you")
    code, output = meshctl("version", "--kubeconfig", str(tmp_path / "nothing"))
    assert (code, len(output.splitlines())) == (0, 2)


def test_the_client_alone(api: FakeApi, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "config")
    assert len(meshctl("version", "--client", "--kubeconfig", kubeconfig)[1].splitlines()) == 1
    assert api.requests == []
    assert OWN in meshctl("--version")[1]


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A PATH on which `meshctl` is that of the tree."""
    script = tmp_path / "bin" / "meshctl"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {os.getcwd()!r})\n"
        "from nodeagent.meshctl.main import main\nmain()\n"
    )
    script.chmod(0o755)
    return f"{script.parent}:{os.environ['PATH']}"


COMPLETE = """
set -eu
source <(meshctl completion bash)
complete -p meshctl > /dev/null
complete_line() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    $(complete -p meshctl | sed -E 's/.*-F ([^ ]+) .*/\\1/') meshctl
    echo "${COMPREPLY[@]}"
}
complete_line meshctl statu
complete_line meshctl check --probe
complete_line meshctl dns re
"""


def test_bash_completes_commands_and_options(program: str) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    done = subprocess.run(
        [bash, "--norc", "-c", COMPLETE],
        env={"PATH": program, "HOME": "/"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["status", "--probe-nodes", "remove"], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script_that_it_can_read(shell: str, tmp_path: Path) -> None:
    code, output = meshctl("completion", shell)
    assert code == 0
    assert "_MESHCTL_COMPLETE=" in output
    program = shutil.which(shell)
    if program is not None:
        file = tmp_path / "script"
        file.write_text(output)
        subprocess.run([program, "-n", file], check=True)


def test_another_shell_has_none() -> None:
    assert meshctl("completion", "csh")[0] == 2
