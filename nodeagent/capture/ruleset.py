"""The nftables text of a capture. Pure: values in, a script for `nft -f -` out.

The table has the name `svcmesh` and touches packets to the mesh range only. Its chains:

`steer` (from `prerouting` for pods, from `output` for the node itself) decides where a new connection goes:
DNS to the agent, a mapped `(address, port)` to the workers, *everything else to the sink*. The sink is why
a NodePort or hostPort rule of somebody else, which matches every local address, never sees a connection to
the mesh: the first NAT decision is final, and our chains come first (priority -105, others use -100; nft
1.0.6 does not accept the keyword `dstnat` in an output chain).

`input` lets in what `steer` sent to the workers or to DNS and refuses every other new connection, so that
neither a listener on 0.0.0.0 nor the workers' own address can be reached through the mesh range. Only new
connections are refused: replies to the node's own clients come through here too. Invalid packets are
dropped, because they were not translated and the reset they would draw could kill a good connection.

`owner-TOKEN-RANGE` is an empty chain: its name says which agent made the table. A script that begins with
`flush chain` of the owner is refused as a whole when another agent has replaced the table, so comparing and
changing is one transaction.

255.255.255.255 lies in 240.0.0.0/4 and is left alone: it is everybody's broadcast address.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping

import msgspec

from nodeagent.plan.model import ListenerKey
from nodeagent.settings import DNS_PORT, WORKER_PORTS, Settings, dns_address, worker_address

TABLE = "svcmesh"
BROADCAST = ipaddress.IPv4Address("255.255.255.255")
OWNER_PREFIX = "owner-"


class Layout(msgspec.Struct, frozen=True):
    """Everything of the table that does not change while an agent lives."""

    token: str
    """Names the agent that made the table; no other agent has the same."""
    mesh_range: str
    sink: str
    """Where connections go that `input` refuses."""
    worker: tuple[str, int]
    dns: tuple[str, int]
    """Where the agent's DNS listens; its clients use port 53 of the same address."""

    @property
    def owner(self) -> str:
        """The name of the chain that says which agent the table belongs to."""
        return f"{OWNER_PREFIX}{self.token}-{self.mesh_range}"

    @property
    def addresses(self) -> str:
        """The mesh addresses as nft writes a range; without the limited broadcast address."""
        network = ipaddress.IPv4Network(self.mesh_range)
        last = network.broadcast_address
        return f"{network.network_address}-{last - 1 if last == BROADCAST else last}"


def layout_of(settings: Settings, token: str) -> Layout:
    """Return the layout of the table an agent with these settings makes."""
    return layout_for(settings.network, token, settings.worker_port)


def layout_for(network: ipaddress.IPv4Network, token: str, worker_port: int) -> Layout:
    """Return the layout of the table for a mesh range."""
    return Layout(
        token=token,
        mesh_range=str(network),
        sink=str(network.network_address),
        worker=(worker_address(network), worker_port),
        dns=(dns_address(network), DNS_PORT),
    )


def chains_of(layout: Layout) -> Mapping[str, tuple[str, ...]]:
    """Return the rules of each chain; the first line of a base chain is its hook, which is not a rule."""
    jump = f"ip daddr {layout.addresses} jump steer"
    (worker, _), (dns, dns_port) = layout.worker, layout.dns
    ours = f"ct status dnat ct original ip daddr {layout.addresses} ip daddr"
    dns_ports = f"{dns} . tcp . {dns_port}, {dns} . udp . {dns_port}"
    # All the ports, because a connection may be on its way to the predecessor's workers.
    ports = f"{WORKER_PORTS.start}-{WORKER_PORTS.stop - 1}"
    return {
        layout.owner: (),
        "steer": (
            f"ip daddr {dns} udp dport 53 dnat to {dns}:{dns_port}",
            f"ip daddr {dns} tcp dport 53 dnat to {dns}:{dns_port}",
            "dnat ip to ip daddr . tcp dport map @workers",
            f'dnat to {layout.sink} comment "not in the mesh: refused in input"',
        ),
        "prerouting": ("type nat hook prerouting priority -105; policy accept;", jump),
        "output": ("type nat hook output priority -105; policy accept;", jump),
        "input": (
            "type filter hook input priority filter; policy accept;",
            f"ip daddr != {layout.addresses} return",
            "ct state established,related return",
            "ct state invalid drop",
            f"{ours} {worker} tcp dport {ports} return",
            f"{ours} . meta l4proto . th dport {{ {dns_ports} }} return",
            "meta l4proto tcp reject with tcp reset",
            "reject with icmp type port-unreachable",
        ),
    }


def rules_of(layout: Layout) -> Mapping[str, int]:
    """Return the number of rules that each chain has if nobody has changed the table."""
    return {
        name: sum(not line.startswith("type ") for line in lines) for name, lines in chains_of(layout).items()
    }


def check_keys(layout: Layout, keys: Iterable[ListenerKey]) -> None:
    """Make sure that every key is an address of the mesh range and a port.

    nft would resolve anything else as a host name, and the script runs with privileges.

    Raises:
        ValueError: names the key.
    """
    network = ipaddress.IPv4Network(layout.mesh_range)
    first, last = int(network.network_address), int(network.broadcast_address)
    for address, port in keys:
        try:
            inside = first <= int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big") <= last
        except OSError:
            inside = False
        if not inside or not 0 < port < 65536:
            raise ValueError(f"{address}:{port} is not an address of {layout.mesh_range} with a port")


def render_table(layout: Layout, keys: Iterable[ListenerKey]) -> str:
    """Return the script that replaces the table, whatever it is now, by one with exactly these keys."""
    lines = [f"table ip {TABLE} {{}}", f"delete table ip {TABLE}", f"table ip {TABLE} {{"]
    lines += ["\tmap workers {", "\t\ttype ipv4_addr . inet_service : ipv4_addr . inet_service"]
    elements = _mappings(layout, keys)
    if elements:
        lines.append(f"\t\telements = {{ {elements} }}")
    lines.append("\t}")
    for name, rules in chains_of(layout).items():
        lines += [f"\tchain {name} {{", *(f"\t\t{rule}" for rule in rules), "\t}"]
    return "\n".join([*lines, "}", ""])


def render_change(layout: Layout, added: Iterable[ListenerKey], removed: Iterable[ListenerKey]) -> str:
    """Return the script that changes the map; refused as a whole if the table is not this agent's."""
    lines = [_guard(layout)]
    gone = ", ".join(f"{address} . {port}" for address, port in sorted(removed))
    if gone:
        lines.append(f"delete element ip {TABLE} workers {{ {gone} }}")
    new = _mappings(layout, added)
    if new:
        lines.append(f"add element ip {TABLE} workers {{ {new} }}")
    return "\n".join([*lines, ""])


def render_removal(layout: Layout) -> str:
    """Return the script that deletes the table; refused if it is not this agent's."""
    return f"{_guard(layout)}\ndelete table ip {TABLE}\n"


def _guard(layout: Layout) -> str:
    return f"flush chain ip {TABLE} {layout.owner}"


def _mappings(layout: Layout, keys: Iterable[ListenerKey]) -> str:
    worker, worker_port = layout.worker
    return ", ".join(f"{address} . {port} : {worker} . {worker_port}" for address, port in sorted(keys))
