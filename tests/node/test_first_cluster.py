"""docs/first-cluster.md, run: the commands from installing to taking away, as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from hack.kube.one_node import ROOT, OneNode
from tests.manifests.tools import tool
from tests.node.installation import MESHCTL, Installation

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]
PAGE = ROOT / "docs" / "first-cluster.md"


def commands() -> Iterator[str]:
    """Yield what follows a `$` in the sections that need no more than a cluster, continued lines as one."""
    text = PAGE.read_text()
    for block in re.findall(r"```console\n(.*?)```", text[text.index("\n## 3.") :], re.DOTALL):
        yield from re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)


def run(node: OneNode, command: str) -> str:
    """Run a command in a shell, in the folder of the tree; whoever is asked says yes."""
    path = f"{MESHCTL.parent}:{tool('helm').parent}:$PATH"
    done = node.run("sh", "-c", f"cd {ROOT} && PATH={path} && {command}", text="y\n")
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_page(node: OneNode) -> None:
    Installation(node, tool("helm")).uninstall_if_there()
    said = {command: run(node, command) for command in commands()}
    (asked,) = [text for command, text in said.items() if command.startswith("kubectl exec caller")]
    assert re.fullmatch(r"hello-\w+-\w+\s+", asked)
    assert said["meshctl status"].endswith("1 of 1 agents in order\n")
    assert said["meshctl check --cluster"].splitlines()[-1].endswith("0 problems")
    assert "Done: " in said["meshctl dns install"]
    left = node.kubectl("get", "clusterrole,clusterrolebinding,namespace,pod", "-o", "name")
    assert not {"svcmesh", "svcmesh-agent", "caller"} & {name.partition("/")[2] for name in left.split()}
