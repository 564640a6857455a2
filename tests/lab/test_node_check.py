"""`nodeagent node-check` in a real kernel: what it finds on a node, and that it leaves nothing there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hack.lab.lab import Lab
from hack.lab.node import Node
from nodeagent.capture.node_facts import Listening, NodeFacts

pytestmark = pytest.mark.lab
HERE = Path(__file__).parent


@pytest.fixture
def node(lab: Lab) -> Node:
    return lab.node(1)


def look(node: Node, *before: str) -> NodeFacts:
    done = node.run([*before, sys.executable, "-m", "nodeagent", "node-check"], check=True)
    return msgspec.json.decode(done.stdout, type=NodeFacts)


def state(node: Node) -> tuple[str, str]:
    rules = node.run(["nft", "list", "ruleset"], check=True).stdout
    return rules, node.run(["ip", "-4", "route", "show", "table", "all"], check=True).stdout


def test_a_node_with_nothing_in_the_way(node: Node) -> None:
    before = state(node)
    found = look(node)
    assert found.net_admin
    assert (found.ruleset, found.table, found.routes, found.addresses) == ("", "", (), ())
    assert found.listening == ()
    assert state(node) == before, "it changes nothing"


def test_whatever_is_in_the_way_is_found(node: Node) -> None:
    node.run(["nft", "-f", "-"], stdin="table ip svcmesh { chain x { }; }", check=True)
    for command in (
        "ip address add 241.1.1.1/24 dev lo",
        "ip route add 242.0.0.0/8 dev lo",
        "ip route add 0.0.0.0/1 dev lo",
    ):
        node.run(command.split(), check=True)
    process = node.start([sys.executable, str(HERE / "busy.py")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    found = look(node)
    assert found.table == "unknown"
    assert found.addresses == ("241.1.1.1",)
    assert set(found.routes) >= {"241.1.1.1/32", "242.0.0.0/8"}
    assert "0.0.0.0/1" not in found.routes, "ours is more specific"
    assert set(found.listening) >= {
        Listening("tcp", "0.0.0.0", 15000),
        Listening("udp", "0.0.0.0", 15053),
        Listening("tcp", "::", 15001),
    }


def test_an_agent_s_own_table_is_told_apart(node: Node) -> None:
    script = "table ip svcmesh { chain owner-0badcafe-240.0.0.0/4 { }; }"
    node.run(["nft", "-f", "-"], stdin=script, check=True)
    node.run(["ip", "route", "add", "local", "240.0.0.0/4", "dev", "lo", "proto", "240"], check=True)
    found = look(node)
    assert found.table == "owner-0badcafe-240.0.0.0/4"
    assert found.routes == ()
    assert found.ruleset == ""


def test_without_the_privilege(node: Node) -> None:
    found = look(node, "setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
    assert not found.net_admin
    assert "not permitted" in found.ruleset
