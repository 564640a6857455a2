"""`svc.mesh/locality: prefer`: endpoints in the client's zone go before others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from middleware.contract import Annotation, Problem
from middleware.values import parse_choice
from nodeagent.plan.model import Locality
from nodeagent.plan.of_port import OfPort, parse_keys, parse_of_port, parse_percent
from nodeagent.plan.setting import Setting

LOCALITY: Final = "svc.mesh/locality"
LOCALITY_OF_PORT: Final = "svc.mesh/locality."
OFF: Final = "off"
_KINDS: Final = ("prefer", "strict", OFF)


def parse_locality(annotations: Mapping[str, str]) -> OfPort[Locality] | Problem | None:
    """Read `svc.mesh/locality` and those of single ports."""
    return parse_of_port(annotations, LOCALITY, _parse)


def _parse(value: str) -> Locality | None:
    first, *parts = value.split() or [""]
    kind = parse_choice(first, _KINDS)
    settings = parse_keys(parts, {"healthy": parse_percent} if kind == "prefer" else {}, kind)
    return Locality(cast("Any", kind), **settings) if kind != OFF else None


LOCALITIES: Final = Setting(
    name="locality",
    annotations=(
        Annotation(
            name=LOCALITY,
            values="prefer [healthy=70%], strict or off",
            default=OFF,
            summary=(
                "prefer: requests go to endpoints in the zone of the client's node, unless fewer than"
                " `healthy` of these are healthy; then to all zones. strict: they never leave the zone. Hints"
                " of EndpointSlices take precedence over zones."
            ),
            example="svc.mesh/locality: prefer",
        ),
        Annotation(
            name=f"{LOCALITY_OF_PORT}<port name or number>",
            values="as svc.mesh/locality",
            default="svc.mesh/locality",
            summary="The same for the endpoints of this port; takes precedence over svc.mesh/locality.",
            example="svc.mesh/locality.metrics: strict",
        ),
    ),
    parse=parse_locality,
    page="locality",
)
