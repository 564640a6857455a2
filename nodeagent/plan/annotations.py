"""The annotations that no middleware reads: how connections to a Service's endpoints are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from middleware import custom
from middleware.contract import Annotation, Limit, Problem
from middleware.values import InvalidValue, parse_choice, parse_integer, problem
from nodeagent.plan.access_log import ACCESS_LOGS
from nodeagent.plan.balancing import BALANCING
from nodeagent.plan.failover import FAILOVERS
from nodeagent.plan.health_check import HEALTH_CHECKS
from nodeagent.plan.locality import LOCALITIES
from nodeagent.plan.objective import OBJECTIVES
from nodeagent.plan.outlier_detection import OUTLIERS
from nodeagent.plan.setting import Setting

MAX_CONNECTIONS: Final = "svc.mesh/max-connections"
TRAILERS: Final = "svc.mesh/request-trailers"
MOST_CONNECTIONS: Final = 1_000_000


class Connections(msgspec.Struct, frozen=True):
    """How connections to endpoints are used."""

    most: int = 0
    """To each endpoint, for each worker; 0: the default."""
    trailers: bool = False
    """Trailers of requests are passed on."""


def parse_connections(annotations: Mapping[str, str]) -> Connections | Problem | None:
    """Read `svc.mesh/max-connections` and `svc.mesh/request-trailers`."""
    most_text, trailers_text = annotations.get(MAX_CONNECTIONS), annotations.get(TRAILERS)
    if most_text is None and trailers_text is None:
        return None
    most, trailers = 0, False
    if most_text is not None:
        try:
            most = parse_integer(most_text, least=1, most=MOST_CONNECTIONS)
        except InvalidValue as invalid:
            return problem(MAX_CONNECTIONS, most_text, invalid)
    if trailers_text is not None:
        try:
            trailers = parse_choice(trailers_text, ("drop", "pass")) == "pass"
        except InvalidValue as invalid:
            return problem(TRAILERS, trailers_text, invalid)
    return Connections(most, trailers)


CONNECTIONS: Final = Setting(
    name="connections",
    annotations=(
        Annotation(
            name=MAX_CONNECTIONS,
            values=f'"1" to "{MOST_CONNECTIONS}"',
            default="1024",
            summary=(
                "How many connections of http ports each worker opens to one endpoint. Further requests wait"
                " up to 10 s for one of them, 4096 at most for an endpoint; the others get a 503."
            ),
            example='svc.mesh/max-connections: "100"',
            limit=Limit(lambda text: parse_integer(text, least=1, most=MOST_CONNECTIONS), absent=1024),
        ),
        Annotation(
            name=TRAILERS,
            values="drop or pass",
            default="drop",
            summary=(
                "Whether trailer fields after a chunked request are passed on to the endpoint, if the client"
                " sends TE: trailers. Only for endpoints that read them: others take them for the next"
                " request."
            ),
            example="svc.mesh/request-trailers: pass",
        ),
    ),
    parse=parse_connections,
)
CUSTOM: Final = Setting(
    name="own middleware",
    annotations=(custom.ANNOTATION,),
    parse=custom.parse_chosen,
    page="middleware/writing-one",
)
SETTINGS: Final = (
    CONNECTIONS,
    BALANCING,
    HEALTH_CHECKS,
    OUTLIERS,
    LOCALITIES,
    FAILOVERS,
    ACCESS_LOGS,
    OBJECTIVES,
    CUSTOM,
)
