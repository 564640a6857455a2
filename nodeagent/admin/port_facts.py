"""The metrics of ports' endpoints, and of the number of series: `exposition` fills them with numbers."""

from __future__ import annotations

from typing import Final

from nodeagent.admin.family import PORT_LABELS, Family

ENDPOINTS: Final = Family(
    "svcmesh_endpoints",
    "gauge",
    "Endpoints of the port that are in the plan: those that are ready.",
    "endpoints",
    PORT_LABELS,
    "0: the Service has no Pod that is ready.",
    "for a port that has series",
)
ENDPOINTS_IN_USE: Final = Family(
    "svcmesh_endpoints_in_use",
    "gauge",
    "Endpoints of the port that are neither unhealthy nor ejected.",
    "endpoints",
    PORT_LABELS,
    "Less than `svcmesh_endpoints`: the other endpoints carry the load.",
    "for a port that has series",
)
ENDPOINTS_UNHEALTHY: Final = Family(
    "svcmesh_endpoints_unhealthy",
    "gauge",
    "Endpoints that fail their health checks; if all of a port fail, all are used.",
    "endpoints",
    PORT_LABELS,
    "`/plan` names them. If one node alone shows them, look at that node's network.",
    "for a port that has had an unhealthy endpoint",
)
ENDPOINTS_EJECTED: Final = Family(
    "svcmesh_endpoints_ejected",
    "gauge",
    "Endpoints that outlier detection of at least one worker has ejected.",
    "endpoints",
    PORT_LABELS,
    "`/plan` names them, with the reason.",
    "for a port that has an ejected endpoint",
)
ENDPOINT_EJECTIONS: Final = Family(
    "svcmesh_endpoint_ejections_total",
    "counter",
    "Times that an endpoint failed its health checks and was taken out of use.",
    "endpoints",
    PORT_LABELS,
    "An endpoint that comes and goes raises it again and again: see `endpoint_unhealthy` in the log.",
    "for a port that has had an unhealthy endpoint",
)
PORT_FACTS: Final[tuple[Family, ...]] = (
    ENDPOINTS,
    ENDPOINTS_IN_USE,
    ENDPOINTS_UNHEALTHY,
    ENDPOINTS_EJECTED,
    ENDPOINT_EJECTIONS,
)
"""What the agent itself knows of ports."""

SERIES: Final = Family(
    "svcmesh_series",
    "gauge",
    "Time series of the mesh on this page.",
    "agent",
    use="Near `svcmesh_series_limit`, the least busy ports and sources are counted together as `other`.",
)
SERIES_LIMIT: Final = Family(
    "svcmesh_series_limit",
    "gauge",
    "How many there may be (`--max-series`).",
    "agent",
    use="Raise it if `svcmesh_series_folded` stays above 0 and Prometheus has the memory.",
)
SERIES_FOLDED: Final = Family(
    "svcmesh_series_folded",
    "gauge",
    "Ports and sources that were active lately and have no series of their own, for lack of room.",
    "agent",
    use="They are counted as `other`. The log and `/stats` have them all.",
)
SERIES_EXPIRED: Final = Family(
    "svcmesh_series_expired_total",
    "counter",
    "Times that a port or a source has lost its series: idle for an hour, or less active than another.",
    "agent",
    use="If it grows fast, the ceiling is too low for the number of busy ports: raise `--max-series`.",
)
ABOUT_SERIES: Final = (SERIES, SERIES_LIMIT, SERIES_FOLDED, SERIES_EXPIRED)
"""How many series the page has, of how many, and what is missing."""
