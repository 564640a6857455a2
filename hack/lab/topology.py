"""The network of a lab, as values and as the shell script that builds it. Pure.

    pod n1p1 10.244.1.11 ─┐                                           ┌─ pod n2p1 10.244.2.11
    pod n1p2 10.244.1.12 ─┴─ node n1 172.30.0.1 ── fabric ── node n2 172.30.0.2 ─┴─ ...

Every node and pod is a network namespace. A pod has one /32 address and sends everything to its node; nodes
forward, and know each other's pod ranges. The fabric is a bridge in a namespace of its own with the address
172.30.0.254, which is the nodes' default gateway and forwards nothing: it stands for all that is outside.
"""

from __future__ import annotations

import msgspec

FABRIC = "fabric"
FABRIC_ADDRESS = "172.30.0.254"
MAX_NODES = 250
MAX_PODS = 240


class PodSpec(msgspec.Struct, frozen=True):
    """A pod: the name of its namespace and its address."""

    name: str
    address: str


class NodeSpec(msgspec.Struct, frozen=True):
    """A node: the name of its namespace, its address, and the pods on it."""

    name: str
    number: int
    address: str
    pod_range: str
    gateway: str
    """The node's address as its pods see it."""
    pods: tuple[PodSpec, ...]


def plan_nodes(nodes: int, pods: int) -> tuple[NodeSpec, ...]:
    """Return `nodes` nodes with `pods` pods each.

    Raises:
        ValueError: more than the address plan has room for, or less than one node.
    """
    if not 1 <= nodes <= MAX_NODES or not 0 <= pods <= MAX_PODS:
        raise ValueError(f"a lab has 1 to {MAX_NODES} nodes and 0 to {MAX_PODS} pods on each")
    return tuple(
        NodeSpec(
            name=f"n{n}",
            number=n,
            address=f"172.30.0.{n}",
            pod_range=f"10.244.{n}.0/24",
            gateway=f"10.244.{n}.1",
            pods=tuple(PodSpec(f"n{n}p{p}", f"10.244.{n}.{10 + p}") for p in range(1, pods + 1)),
        )
        for n in range(1, nodes + 1)
    )


def render_script(nodes: tuple[NodeSpec, ...]) -> str:
    """Return the `sh` script that builds the network in an empty mount and network namespace."""
    lines = [
        "set -e",
        f"ip netns add {FABRIC}",
        f"ip -n {FABRIC} link set lo up",
        f"ip -n {FABRIC} link add br0 type bridge",
        f"ip -n {FABRIC} addr add {FABRIC_ADDRESS}/24 dev br0",
        f"ip -n {FABRIC} link set br0 up",
    ]
    for node in nodes:
        lines += _node(node)
        lines += [
            f"ip -n {node.name} route add {other.pod_range} via {other.address}"
            for other in nodes
            if other is not node
        ]
        for pod in node.pods:
            lines += _pod(node, pod)
    return "\n".join([*lines, ""])


def _node(node: NodeSpec) -> list[str]:
    here = f"ip -n {node.name}"
    return [
        f"ip netns add {node.name}",
        f"{here} link set lo up",
        f"{here} link add eth0 type veth peer name {node.name} netns {FABRIC}",
        f"ip -n {FABRIC} link set {node.name} master br0 up",
        f"{here} addr add {node.address}/24 dev eth0",
        f"{here} link set eth0 up",
        f"{here} route add default via {FABRIC_ADDRESS}",
        f"ip -n {FABRIC} route add {node.pod_range} via {node.address}",
        f"nsenter --net=/run/netns/{node.name} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'",
    ]


def _pod(node: NodeSpec, pod: PodSpec) -> list[str]:
    outside, inside = f"ip -n {node.name}", f"ip -n {pod.name}"
    return [
        f"ip netns add {pod.name}",
        f"{inside} link set lo up",
        f"{inside} link add eth0 type veth peer name {pod.name} netns {node.name}",
        f"{inside} addr add {pod.address}/32 dev eth0",
        f"{inside} link set eth0 up",
        f"{outside} addr add {node.gateway}/32 dev {pod.name}",
        f"{outside} link set {pod.name} up",
        f"{outside} route add {pod.address} dev {pod.name}",
        f"{inside} route add {node.gateway} dev eth0 scope link",
        f"{inside} route add default via {node.gateway}",
    ]
