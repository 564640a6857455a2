"""Which endpoints of a backend get requests: those that are well, not ejected, and in the right zone. Pure.

Health and ejections never make a Service unreachable: if nothing is left, all are used, unless there is
another Service to fail over to.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, Protocol, TypeVar

from discovery.model import Endpoint
from nodeagent.plan.model import Locality
from nodeagent.proxy.locality import enough, near


class Placed(Protocol):
    """An endpoint of a backend."""

    endpoint: Endpoint


T = TypeVar("T", bound=Placed)


class Circulation(Generic[T]):
    """Where requests go.

    `well` are all that are healthy and not ejected, of all zones. Requests go to `used`; if that is empty, to
    the failover, or nowhere; and to `wider` if fewer than `fewest` of `used` accept connections. `spare` is
    where they go rather than nowhere.
    """

    __slots__ = ("fewest", "spare", "used", "well", "wider")

    def __init__(
        self,
        well: tuple[T, ...],
        used: tuple[T, ...],
        wider: tuple[T, ...],
        spare: tuple[T, ...],
        fewest: int,
    ) -> None:
        self.well = well
        self.used = used
        self.wider = wider
        self.spare = spare
        self.fewest = fewest


def circulation_of(
    targets: tuple[T, ...],
    unhealthy: Collection[tuple[str, int]],
    ejected: Collection[T],
    locality: Locality | None,
    zone: str,
    fails_over: bool,
) -> Circulation[T]:
    """Return where requests go, given the addresses that fail their health checks, those that are ejected,
    and the node's zone (empty: not known).
    """
    well = targets
    if unhealthy:
        well = tuple(one for one in well if (one.endpoint.address, one.endpoint.port) not in unhealthy)
    if ejected:
        well = tuple(one for one in well if one not in ejected) or (() if fails_over else well)
    near_well, spare, wider, fewest = well, targets, None, 1
    if locality is not None and zone:
        places = near([one.endpoint for one in targets], zone)
        here = tuple(one for one, is_near in zip(targets, places, strict=True) if is_near)
        inside = frozenset(here)
        inside_well = tuple(one for one in well if one in inside)
        if locality.kind == "strict":
            near_well, spare = inside_well, here
        elif len(inside_well) >= (most := enough(len(here), locality.healthy)):
            near_well, wider, fewest = inside_well, well, most
    used = near_well or (() if fails_over else spare)
    return Circulation(well, used, used if wider is None else wider, spare, fewest)
