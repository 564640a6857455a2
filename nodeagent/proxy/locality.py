"""Which endpoints are near: those that are meant for this node's zone, or stand in it. Pure.

Hints count if every endpoint has one, as for kube-proxy: while they come and go some have none, and those
would get nothing. A worker is told its node's zone, or learns it from any endpoint on the node: slices name
the node and the zone of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from discovery.model import Endpoint


def near(endpoints: Sequence[Endpoint], zone: str) -> list[bool]:
    """Return for each endpoint whether it is near."""
    if endpoints and all(endpoint.hints for endpoint in endpoints):
        return [zone in endpoint.hints for endpoint in endpoints]
    return [endpoint.zone == zone for endpoint in endpoints]


def zone_of(node: str, endpoints: Iterable[Endpoint]) -> str:
    """Return the zone of a node as one of these endpoints has it; empty if none says it."""
    return next((one.zone for one in endpoints if one.node == node and one.zone), "")


def enough(count: int, percent: int) -> int:
    """Return how many of a zone's endpoints must be healthy for everything to be sent to them."""
    return max(1, -(-percent * count // 100))
