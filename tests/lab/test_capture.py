"""The nftables capture in a real kernel: one node with its pods, listeners in place of workers and DNS."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hack.lab.lab import Lab
from hack.lab.namespace import LabProcess, NetworkNamespace
from hack.lab.node import Node
from hack.lab.sandbox import find_mode

pytestmark = pytest.mark.lab

HERE = Path(__file__).parent
WHOAMI = ("250.96.0.10", 80)
OTHER = ("250.96.0.11", 80)
ROUTES = 28

FOREIGN = """
table ip nodeports {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    fib daddr type local tcp dport 8080 dnat to 10.244.1.12:8080
  }
  chain output {
    type nat hook output priority -100;
    fib daddr type local tcp dport 8080 dnat to 10.244.1.12:8080
  }
}
table inet firewall {
  chain input { type filter hook input priority filter; policy accept; tcp dport 9 drop; }
}
"""


class Answer(NamedTuple):
    said: str
    milliseconds: float


def talk(process: LabProcess, line: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, process.log.read_text() if process.log else ""
    return answer.strip()


class Driver:
    """A capture in a process of its own on the node."""

    def __init__(self, node: Node) -> None:
        self.process = node.start(
            [sys.executable, str(HERE / "capture_driver.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(self, *command: Any, error: str = "") -> Any:
        answer = json.loads(talk(self.process, json.dumps(command)))
        assert re.search(error, answer["error"]) if error else not answer["error"], answer
        return answer


def probe(client: NetworkNamespace, *attempts: tuple[Any, ...]) -> list[Answer]:
    done = client.run([sys.executable, str(HERE / "probe.py"), json.dumps(attempts)], timeout=60, check=True)
    return [Answer(*result) for result in json.loads(done.stdout)]


def said(client: NetworkNamespace, *attempts: tuple[Any, ...]) -> list[str]:
    return [answer.said for answer in probe(client, *attempts)]


def hold(client: NetworkNamespace, address: str, port: int) -> LabProcess:
    """Open a connection that stays; its first line has been read."""
    process = client.start(
        [sys.executable, str(HERE / "probe.py"), "hold", address, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())[1:] == [address, port]
    return process


def listen(node: Node) -> None:
    process = node.start([sys.executable, str(HERE / "listeners.py")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n", process.log.read_text() if process.log else ""


def nft(node: Node, *command: str) -> str:
    return node.run(["nft", *command], check=True).stdout


def load_foreign(node: Node) -> None:
    node.run(["nft", "-f", "-"], stdin=FOREIGN, check=True)


def tables(node: Node) -> str:
    """Every table but ours."""
    text = nft(node, "list", "ruleset")
    return re.sub(r"^table ip svcmesh \{\n.*?^\}\n?", "", text, flags=re.MULTILINE | re.DOTALL)


def routes(node: Node) -> list[str]:
    """Those of IPv4: the mesh makes no others, and the kernel adds IPv6's own when an interface is ready."""
    return node.run(["ip", "-4", "route", "show", "table", "all"], check=True).stdout.splitlines()


def our_routes(node: Node) -> list[str]:
    return node.run(["ip", "route", "show", "table", "local", "proto", "240"]).stdout.splitlines()


def elements(node: Node) -> list[tuple[str, int]]:
    found = re.findall(
        r"([\d.]+) \. (\d+) : 240\.0\.0\.1 \. 15001", nft(node, "list", "map", "ip", "svcmesh", "workers")
    )
    return sorted((address, int(port)) for address, port in found)


@pytest.fixture
def node(lab: Lab) -> Node:
    return lab.node(1)


@pytest.fixture
def capture(node: Node) -> Driver:
    """A started capture with one key, and something that listens at its far ends."""
    driver = Driver(node)
    driver("start")
    listen(node)
    driver("apply", [WHOAMI])
    return driver


def test_a_connection_arrives_with_source_and_destination(node: Node, capture: Driver) -> None:
    pod = node.pods[0]
    assert json.loads(said(pod, ("tcp", *WHOAMI))[0]) == [pod.address, *WHOAMI]
    assert json.loads(said(node, ("tcp", *WHOAMI))[0]) == ["127.0.0.1", *WHOAMI]


def test_one_source_port_towards_two_addresses(node: Node, capture: Driver) -> None:
    """Both become the same connection to the kernel; it changes the source port of the second."""
    capture("apply", [WHOAMI, OTHER])
    for client, source in ((node.pods[0], node.pods[0].address), (node, "127.0.0.1")):
        answers = said(client, ("tcp", *WHOAMI, "0.0.0.0", 40000), ("tcp", *OTHER, "0.0.0.0", 40000))
        assert [json.loads(answer) for answer in answers] == [[source, *WHOAMI], [source, *OTHER]]


def test_what_is_not_in_the_mesh_is_refused_at_once(node: Node, capture: Driver) -> None:
    attempts = [
        ("tcp", WHOAMI[0], 81),
        ("tcp", *OTHER),
        ("udp", *WHOAMI),
        ("udp", *OTHER),
        ("tcp", WHOAMI[0], 2222),
        ("tcp", "240.0.0.0", 2222),
        ("tcp", "255.255.255.254", 2222),
        ("udp", WHOAMI[0], 9999),
        ("tcp", "240.0.0.1", 15001),
        ("tcp", "240.0.0.53", 15053),
        ("udp", "240.0.0.53", 15053),
        ("tcp", "240.0.0.53", 2222),
    ]
    for client in (node.pods[0], node):
        answers = probe(client, *attempts)
        assert [answer.said for answer in answers] == ["ECONNREFUSED"] * len(attempts)
        slowest = max(answer.milliseconds for answer in answers)
        print(f"refused from {client.name}: slowest {slowest:.2f} ms of {len(answers)}")
        assert slowest < 1000


def test_the_nodes_own_listeners_stay_reachable_elsewhere(node: Node, capture: Driver) -> None:
    assert said(node.pods[0], ("tcp", node.address, 2222), ("udp", node.spec.gateway, 9999)) == [
        "node",
        f"node {node.pods[0].address}",
    ]


def test_dns_is_reached_at_port_53(node: Node, capture: Driver) -> None:
    attempts = (("udp", "240.0.0.53", 53), ("tcp", "240.0.0.53", 53))
    assert said(node.pods[0], *attempts) == [f"dns {node.pods[0].address}", "dns tcp"]
    assert said(node, *attempts) == ["dns 127.0.0.1", "dns tcp"]


def test_rules_of_others_for_local_addresses_do_not_see_mesh_addresses(node: Node, capture: Driver) -> None:
    """NodePort and hostPort rules match every local address, and the mesh range is local."""
    load_foreign(node)
    pod, backend = node.pods
    backend.wait_listening(8080, backend.start([sys.executable, "-c", _GREETER]))
    assert said(pod, ("tcp", node.address, 8080)) == ["backend"]
    assert said(pod, ("tcp", WHOAMI[0], 8080)) == ["ECONNREFUSED"]
    assert said(node, ("tcp", WHOAMI[0], 8080)) == ["ECONNREFUSED"]


_GREETER = """
import socket
server = socket.create_server(("", 8080))
while True:
    connection, _ = server.accept()
    connection.sendall(b"backend")
    connection.close()
"""


def test_a_pod_cannot_pretend_to_be_a_mesh_address(node: Node, capture: Driver) -> None:
    pod = node.pods[0]
    pod.run(["ip", "addr", "add", "240.0.0.1/32", "dev", "lo"], check=True)
    own, borrowed = ("udp", "240.0.0.53", 53, pod.address, 0), ("udp", "240.0.0.53", 53, "240.0.0.1", 0)
    assert said(pod, own, borrowed) == [f"dns {pod.address}", "timeout"]


def test_removal_refuses_new_connections_and_spares_open_ones(node: Node, capture: Driver) -> None:
    pod = node.pods[0]
    from_pod, from_node = hold(pod, *WHOAMI), hold(node, *WHOAMI)
    capture("apply", [OTHER])
    assert said(pod, ("tcp", *WHOAMI)) == ["ECONNREFUSED"]
    assert said(node, ("tcp", *WHOAMI)) == ["ECONNREFUSED"]
    assert json.loads(said(pod, ("tcp", *OTHER))[0])[1:] == [*OTHER]
    assert talk(from_pod, "still here") == "still here"
    assert talk(from_node, "still here") == "still here"


def test_replacing_the_table_spares_open_connections(node: Node, capture: Driver) -> None:
    held = hold(node.pods[0], *WHOAMI)
    successor = Driver(node)
    successor("start")
    successor("apply", [WHOAMI])
    capture("close")
    assert talk(held, "still here") == "still here"


def test_close_leaves_nothing_and_others_untouched(node: Node) -> None:
    load_foreign(node)
    node.run(["ip", "route", "add", "local", "240.1.0.0/16", "dev", "lo"], check=True)
    tables_before, routes_before = nft(node, "list", "ruleset"), routes(node)
    broadcast = ["ip", "route", "get", "255.255.255.255"]
    way_of_broadcasts = node.run(broadcast, check=True).stdout
    capture = Driver(node)
    capture("start")
    capture("apply", [WHOAMI])
    capture("apply", [WHOAMI, OTHER])
    capture("apply", [OTHER])
    assert elements(node) == [OTHER]
    assert tables(node) == tables_before
    assert len(our_routes(node)) == ROUTES
    assert [route for route in routes(node) if "proto 240" not in route] == routes_before
    assert node.run(broadcast, check=True).stdout == way_of_broadcasts
    capture("close")
    capture("close")
    assert nft(node, "list", "ruleset") == tables_before
    assert routes(node) == routes_before


def test_leftovers_of_a_killed_predecessor_are_healed(node: Node, capture: Driver) -> None:
    capture.process.kill()
    capture.process.wait(10)
    assert elements(node) == [WHOAMI]
    successor = Driver(node)
    successor("start")
    assert json.loads(said(node.pods[0], ("tcp", *WHOAMI))[0])[1:] == [*WHOAMI], "served until we can"
    successor("apply", [OTHER])
    assert elements(node) == [OTHER]
    assert len(our_routes(node)) == ROUTES
    successor("close")
    assert "svcmesh" not in nft(node, "list", "tables")
    assert our_routes(node) == []


def test_a_predecessor_leaves_its_successor_alone(node: Node, capture: Driver) -> None:
    successor = Driver(node)
    successor("start")
    capture("apply", [OTHER])
    assert elements(node) == [OTHER], "until the successor has something to serve, the predecessor goes on"
    successor("apply", [WHOAMI])
    assert capture("apply", [OTHER, WHOAMI])["events"] == ["capture_superseded"]
    assert capture("verify")["events"] == []
    assert elements(node) == [WHOAMI]
    capture("close")
    assert elements(node) == [WHOAMI]
    assert len(our_routes(node)) == ROUTES
    assert json.loads(said(node.pods[0], ("tcp", *WHOAMI))[0])[1:] == [*WHOAMI]


def test_a_predecessor_that_closes_early_leaves_no_gap(node: Node, capture: Driver) -> None:
    successor = Driver(node)
    successor("start")
    assert capture("close")["events"] == ["capture_handed_over"]
    assert elements(node) == [WHOAMI]
    successor("apply", [OTHER])
    assert elements(node) == [OTHER]


def test_a_predecessor_takes_over_again(node: Node, capture: Driver) -> None:
    successor = Driver(node)
    successor("start")
    successor("apply", [OTHER])
    capture("verify")
    successor("close")
    assert capture("verify")["events"] == ["capture_healed", "capture_healed"]
    assert elements(node) == [WHOAMI]
    assert json.loads(said(node.pods[0], ("tcp", *WHOAMI))[0])[1:] == [*WHOAMI]


@pytest.mark.parametrize(
    "damage",
    [
        ("nft", "flush", "table", "ip", "svcmesh"),
        ("nft", "delete", "table", "ip", "svcmesh"),
        ("nft", "flush", "ruleset"),
        ("ip", "route", "flush", "table", "local", "proto", "240"),
    ],
)
def test_verify_heals(node: Node, capture: Driver, damage: tuple[str, ...]) -> None:
    assert capture("verify")["events"] == []
    node.run(damage, check=True)
    assert capture("verify")["events"] == ["capture_healed"]
    assert json.loads(said(node.pods[0], ("tcp", *WHOAMI))[0])[1:] == [*WHOAMI]
    assert said(node.pods[0], ("tcp", WHOAMI[0], 2222)) == ["ECONNREFUSED"]
    assert capture("verify")["events"] == []


@pytest.mark.parametrize(
    "damage", [("delete", "table", "ip", "svcmesh"), ("flush", "map", "ip", "svcmesh", "workers")]
)
def test_a_change_heals(node: Node, capture: Driver, damage: tuple[str, ...]) -> None:
    nft(node, *damage)
    assert capture("apply", [OTHER])["events"] == ["capture_healed"]
    assert elements(node) == [OTHER]


def test_a_bad_key_changes_nothing(node: Node, capture: Driver) -> None:
    capture("apply", [OTHER, ("10.0.0.1", 80)], error=r"10\.0\.0\.1:80 is not an address of 240\.0\.0\.0/4")
    assert elements(node) == [WHOAMI]
    assert capture("apply", [OTHER])["events"] == []
    assert elements(node) == [OTHER]


def test_without_the_privilege(node: Node) -> None:
    powerless = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    process = node.start(
        [*powerless, sys.executable, str(HERE / "capture_driver.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    answer = json.loads(talk(process, '["start"]'))
    assert "capture of 240.0.0.0/4 by nftables was not set up" in answer["error"]
    assert "Operation not permitted" in answer["error"]


def test_twenty_thousand_elements(node: Node, capture: Driver) -> None:
    """One transaction is one netlink message; only real root may send one larger than `net.core.wmem_max`."""
    many = 1_000 if find_mode() else 20_000
    loaded = capture("apply_many", many)["seconds"]
    one_less = capture("apply_many", many - 1)["seconds"]
    nothing = capture("apply_many", many - 1)["seconds"]
    looked = capture("verify")["seconds"]
    print(f"{many} elements loaded in {loaded:.3f} s, one removed in {one_less * 1000:.1f} ms, ", end="")
    print(f"no change {nothing * 1000:.1f} ms, verified in {looked * 1000:.1f} ms")
    assert len(elements(node)) == many - 1
    successor = Driver(node)
    successor("start")
    print(f"a successor replaced all of them in {successor('apply_many', many)['seconds']:.3f} s")
    assert len(elements(node)) == many
