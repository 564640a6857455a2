"""Looks at a node as an agent would find it, and changes nothing: `nodeagent node-check`."""

from __future__ import annotations

import asyncio
import ipaddress
import platform
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from nodeagent.capture.nft import NftError, run_nft
from nodeagent.capture.node_facts import Listening, NodeFacts, Transport, parse_listening, within
from nodeagent.capture.observed import read_table
from nodeagent.capture.privileges import CAP_NET_ADMIN, has_capability
from nodeagent.capture.route import PROTOCOL
from nodeagent.capture.ruleset import layout_for, render_table
from nodeagent.settings import WORKER_PORTS

PROC = Path("/proc/net")
FAMILIES: tuple[tuple[Transport, str], ...] = (
    ("tcp", "tcp"),
    ("tcp", "tcp6"),
    ("udp", "udp"),
    ("udp", "udp6"),
)


def look_at_node(mesh_range: str, version: str) -> NodeFacts:
    """Return what is to be known of the node whose network namespace this process is in.

    Blocks, and is not to be called in a loop.

    Raises:
        OSError: netlink refused even to read.
    """
    network = ipaddress.IPv4Network(mesh_range)
    with IPRoute(strict_check=True) as kernel:
        routes = tuple(sorted(_routes(kernel, network)))
        addresses = tuple(sorted(_addresses(kernel, network)))
    return NodeFacts(
        version=version,
        kernel=platform.release(),
        net_admin=has_capability(CAP_NET_ADMIN),
        ruleset=_try_ruleset(network),
        table=_table(),
        routes=routes,
        addresses=addresses,
        listening=tuple(sorted(_listening(PROC))),
    )


def _try_ruleset(network: ipaddress.IPv4Network) -> str:
    """Have the kernel check the agent's table, with an element in its map, without putting it in force."""
    layout = layout_for(network, "node-check", WORKER_PORTS.start)
    try:
        asyncio.run(run_nft(render_table(layout, [(str(network.network_address + 256), 80)]), check=True))
    except NftError as error:
        return str(error)
    return ""


def _table() -> str:
    try:
        table = read_table()
    except OSError as error:
        # Without the privilege to look nobody knows; that is said by `net_admin`.
        return "" if isinstance(error, PermissionError) or error.errno == 1 else "unknown"
    return "" if table is None else table.owner or "unknown"


def _routes(kernel: Any, network: ipaddress.IPv4Network) -> Iterator[str]:
    """Yield the routes into the range that are not an agent's; wider ones, the default too, harm nobody."""
    for route in kernel.get_routes(family=socket.AF_INET):
        target = route.get_attr("RTA_DST")
        if target and route["proto"] != PROTOCOL and within(network, f"{target}/{route['dst_len']}"):
            yield f"{target}/{route['dst_len']}"


def _addresses(kernel: Any, network: ipaddress.IPv4Network) -> Iterator[str]:
    for address in kernel.get_addr(family=socket.AF_INET):
        found = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
        if found and within(network, f"{found}/32"):
            yield found


def _listening(folder: Path) -> Iterator[Listening]:
    for transport, name in FAMILIES:
        try:
            table = (folder / name).read_text(encoding="ascii", errors="replace")
        except OSError:
            continue  # a kernel without IPv6
        yield from parse_listening(transport, table)
