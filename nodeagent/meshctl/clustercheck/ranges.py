"""Checks that addresses which are in use are not mesh addresses. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

import msgspec

from nodeagent.meshctl.clustercheck.nodes import NodeFact
from nodeagent.meshctl.clustercheck.result import Check, Result, Unknown
from nodeagent.plan.addresses import RESERVED, address_range

SEE = "docs/meshctl.md#addresses"
SERVICE_RANGE = Check("range-services", "Services' addresses fit the mesh range", SEE)
POD_RANGE = Check("range-pods", "pods' addresses are outside of the mesh range", SEE)
NODE_RANGE = Check("range-nodes", "nodes' addresses are outside of the mesh range", SEE)
OTHER_RANGE = "choose another range (Helm: --set agent.meshRange=...; here: --mesh-range)"


class ServiceAddresses(msgspec.Struct, frozen=True):
    """Where Services' addresses come from: the ranges where the API server tells them, and those in use."""

    ranges: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


def check_services(mesh_range: str, found: ServiceAddresses | Unknown) -> Result:
    """Judge the ranges of ClusterIPs, or else the ClusterIPs that there are."""

    def decide(known: ServiceAddresses) -> Result:
        return _services(ipaddress.IPv4Network(mesh_range), known)

    return SERVICE_RANGE.judge(found, decide)


def check_pods(mesh_range: str, nodes: Sequence[NodeFact] | Unknown, pods: Sequence[str] | Unknown) -> Result:
    """Judge the pod ranges of the nodes; where none has one, the addresses of the pods that there are."""

    def decide(known: Sequence[NodeFact]) -> Result:
        ranges = sorted({one for node in known for one in node.pod_ranges})
        if ranges:
            return _apart(POD_RANGE, mesh_range, ranges)
        return POD_RANGE.judge(pods, lambda addresses: _apart(POD_RANGE, mesh_range, sorted(set(addresses))))

    return POD_RANGE.judge(nodes, decide)


def check_node_addresses(mesh_range: str, nodes: Sequence[NodeFact] | Unknown) -> Result:
    """Judge the addresses of the nodes."""
    return NODE_RANGE.judge(
        nodes,
        lambda known: _apart(
            NODE_RANGE, mesh_range, sorted({one for node in known for one in node.addresses})
        ),
    )


def _services(mesh: ipaddress.IPv4Network, found: ServiceAddresses) -> Result:
    from_ranges = bool(found.ranges)
    networks = _networks(found.ranges or found.addresses)
    if not networks:
        if not (found.ranges or found.addresses):
            return SERVICE_RANGE.not_checked("there is no Service with a ClusterIP to tell the range from")
        return SERVICE_RANGE.failed("Services have no IPv4 addresses here, and the mesh needs them")
    inside = [_short(network) for network in networks if network.overlaps(mesh)]
    if inside:
        return SERVICE_RANGE.of_problems(inside, "", f"in the mesh range {mesh}; {OTHER_RANGE}")
    wider = [str(network) for network in networks if network.prefixlen < mesh.prefixlen]
    if wider:
        return SERVICE_RANGE.of_problems(
            wider,
            "",
            f"larger than the mesh range {mesh}: two Services may claim one mesh address; {OTHER_RANGE}",
            "warning",
        )
    odd = [str(network) for network in networks if _maps_badly(mesh, network)]
    told = ", ".join(map(str, networks)) if from_ranges else f"{len(networks)} ClusterIPs, none in {mesh}"
    return SERVICE_RANGE.of_problems(
        odd,
        told,
        f"maps into the part of {mesh} that is the mesh's own: such Services get another mesh address than "
        f"their ClusterIP says, which works; for plain addresses {OTHER_RANGE}",
        "warning",
    )


def _maps_badly(mesh: ipaddress.IPv4Network, services: ipaddress.IPv4Network) -> bool:
    """Whether ClusterIPs map to addresses that the mesh keeps for itself or for Services without one."""
    host = int(services.network_address) & int(mesh.hostmask)
    mapped = ipaddress.IPv4Network((int(mesh.network_address) | host, services.prefixlen))
    own = ipaddress.IPv4Network((int(mesh.network_address), 32 - (RESERVED - 1).bit_length()))
    return mapped.overlaps(own) or mapped.overlaps(address_range(str(mesh)).hashed)


def _apart(check: Check, mesh_range: str, prefixes: Sequence[str]) -> Result:
    mesh = ipaddress.IPv4Network(mesh_range)
    networks = _networks(prefixes)
    inside = (_short(network) for network in networks if network.overlaps(mesh))
    told = ", ".join(_short(network) for network in networks[:3]) + (" ..." if len(networks) > 3 else "")
    return check.of_problems(inside, told, f"in the mesh range {mesh}; {OTHER_RANGE}")


def _short(network: ipaddress.IPv4Network) -> str:
    """Return a network in CIDR form, and a single address without its length."""
    return str(network).removesuffix("/32")


def _networks(prefixes: Iterable[str]) -> list[ipaddress.IPv4Network]:
    """Return the IPv4 ones among prefixes and addresses; others are none of our business."""
    found = []
    for prefix in prefixes:
        try:
            network = ipaddress.ip_network(prefix, strict=False)
        except ValueError:
            continue
        if isinstance(network, ipaddress.IPv4Network):
            found.append(network)
    return found
