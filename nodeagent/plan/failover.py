"""`svc.mesh/failover: NAME[.NAMESPACE]`: another Service gets the requests while no endpoint is healthy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from middleware.contract import Annotation, Problem
from middleware.values import InvalidValue, quote
from nodeagent.plan.of_port import OfPort, parse_of_port
from nodeagent.plan.setting import Setting

FAILOVER: Final = "svc.mesh/failover"
FAILOVER_OF_PORT: Final = "svc.mesh/failover."
NONE: Final = "none"
_LABEL: Final = "[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_NAME: Final = re.compile(rf"({_LABEL})(?:\.({_LABEL}))?")


def parse_failover(annotations: Mapping[str, str]) -> OfPort[str] | Problem | None:
    """Read `svc.mesh/failover` and those of single ports: each is `name` or `name.namespace`."""
    return parse_of_port(annotations, FAILOVER, _parse)


def _parse(value: str) -> str | None:
    text = value.strip()
    if not _NAME.fullmatch(text):
        raise InvalidValue(f"{quote(text)} is not the name of a Service", "NAME or NAME.NAMESPACE, or none")
    return text if text != NONE else None


FAILOVERS: Final = Setting(
    name="failover",
    annotations=(
        Annotation(
            name=FAILOVER,
            values="NAME or NAME.NAMESPACE of another Service of the mesh, or none",
            default=NONE,
            summary=(
                "Where requests and tcp connections go while none of the endpoints is healthy; to the port of"
                " the same number there, or else the same name, or else the only port."
            ),
            example="svc.mesh/failover: web-standby.dr",
            individual=True,
        ),
        Annotation(
            name=f"{FAILOVER_OF_PORT}<port name or number>",
            values="as svc.mesh/failover",
            default=FAILOVER,
            summary="The same for this port; takes precedence over svc.mesh/failover.",
            example="svc.mesh/failover.metrics: none",
        ),
    ),
    parse=parse_failover,
    page="failover",
)
