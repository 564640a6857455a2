"""DNS and control: what agents know, whether they follow, what they answer to names, and health checks."""

from __future__ import annotations

from hack.manifests.boards.panels import Board, Mapping, Panel, Query, Row, rate, stat
from hack.manifests.boards.words import OF_NODE, ON_NODE, TO_NODE

EACH = "{{node}}"
BEHIND = (
    "max by (node, worker) ("
    f"svcmesh_plan_version{{{ON_NODE}}} - on (pod) group_right () svcmesh_worker_plan_version{{{ON_NODE}}})"
)
DNS_FAILED = 'result=~"refused|formerr|dropped"'
SINCE = "time() - {metric}{{{labels}}} and {metric}{{{labels}}} > 0"


def _each(
    title: str, what: str, metric: str, unit: str = "short", mappings: tuple[Mapping, ...] = ()
) -> Panel:
    line = Query(f"{metric}{{{ON_NODE}}}", EACH)
    return Panel(title, what, (line,), unit, links=(TO_NODE,), mappings=mappings)


def _since(title: str, what: str, metric: str) -> Panel:
    line = Query(SINCE.format(metric=metric, labels=ON_NODE), EACH)
    return Panel(title, what, (line,), "s", links=(TO_NODE,))


NOW = Row(
    "Now",
    (
        stat("Services", "In the mesh.", f"max(svcmesh_services{{{ON_NODE}}})"),
        stat(
            "Left out",
            "They ask for the mesh and cannot be in it.",
            f"max(svcmesh_services_left_out{{{ON_NODE}}})",
            thresholds=(1, 10),
        ),
        stat(
            "Problems",
            "Values that cannot be used: meshctl check --cluster lists them.",
            f"max(svcmesh_problems{{{ON_NODE}}})",
            thresholds=(1, 10),
        ),
        stat(
            "API server",
            "Whether agents are in touch with it: of the worst node.",
            f"max(svcmesh_source_stale{{{ON_NODE}}})",
            mappings=(Mapping(0, "in touch", "green"), Mapping(1, "stale", "red")),
        ),
        stat(
            "Versions",
            "Two while an upgrade is under way.",
            "count(count by (version) (svcmesh_build_info))",
            thresholds=(2, 3),
        ),
        stat("DNS queries", "A second.", rate("svcmesh_dns_queries_total", "", ON_NODE), "reqps"),
    ),
)
DNS = Row(
    "DNS",
    (
        Panel(
            "Queries by result",
            "dropped: there was no answer.",
            (Query(rate("svcmesh_dns_queries_total", "result", ON_NODE), "{{result}}"),),
            "reqps",
        ),
        Panel(
            "Queries that failed, by node",
            "Refused, malformed or not answered.",
            (Query(rate("svcmesh_dns_queries_total", "node", f"{ON_NODE},{DNS_FAILED}"), EACH),),
            "reqps",
            links=(TO_NODE,),
        ),
        Panel(
            "Responses by transport",
            "By UDP or TCP.",
            (Query(rate("svcmesh_dns_responses_total", "transport", ON_NODE), "{{transport}}"),),
            "reqps",
        ),
    ),
)
PLAN = Row(
    "The plan",
    (
        Panel(
            "Workers behind",
            "By how many versions of the plan. 0 is good.",
            (Query(BEHIND, "{{node}} worker {{worker}}"),),
            links=(TO_NODE,),
        ),
        _each("Age of the plan", "It may be old because nothing changes.", "svcmesh_plan_age_seconds", "s"),
        Panel(
            "Changes of the plan",
            "In the interval, by node.",
            (Query(f"changes(svcmesh_plan_version{{{ON_NODE}}}[$__rate_interval])", EACH),),
        ),
        Panel(
            "Services and problems",
            "On the node that finds most.",
            (
                Query(f"max(svcmesh_services{{{ON_NODE}}})", "Services"),
                Query(f"max(svcmesh_services_with_problems{{{ON_NODE}}})", "with problems"),
                Query(f"max(svcmesh_services_left_out{{{ON_NODE}}})", "left out"),
                Query(f"max(svcmesh_problems{{{ON_NODE}}})", "problems"),
            ),
        ),
        Panel(
            "Agents by version",
            "And how many of each.",
            (Query("count by (version) (svcmesh_build_info)", "{{version}}"),),
        ),
    ),
)
SOURCE = Row(
    "The source and its snapshot",
    (
        _each("Out of touch for", "The last plan is served meanwhile.", "svcmesh_source_stale_seconds", "s"),
        _since(
            "Since touch was regained",
            "Moves when touch is regained.",
            "svcmesh_source_last_sync_timestamp_seconds",
        ),
        _since(
            "Since the snapshot was written",
            "Empty: not written yet.",
            "svcmesh_snapshot_written_timestamp_seconds",
        ),
        Panel(
            "Snapshots that could not be written",
            "In the interval.",
            (Query(f"increase(svcmesh_snapshot_write_failures_total{{{ON_NODE}}}[$__rate_interval])", EACH),),
            links=(TO_NODE,),
        ),
        _each(
            "Snapshot at the start",
            "Whether the agent trusted it.",
            "svcmesh_snapshot_refused",
            mappings=(Mapping(0, "trusted or none", "green"), Mapping(1, "refused", "red")),
        ),
    ),
)
HEALTH = Row(
    "Health checks",
    (
        _each("Endpoints checked", "Each node checks for itself.", "svcmesh_health_check_endpoints"),
        Panel(
            "Checks by result",
            "not_asked: the node could not check.",
            (Query(rate("svcmesh_health_checks_total", "result", ON_NODE), "{{result}}"),),
            "ops",
        ),
    ),
)

BOARD = Board(
    uid="svcmesh-control",
    title="svc.mesh / DNS and control",
    what="What agents know of the cluster, whether they follow it, and what they answer to names.",
    variables=(OF_NODE,),
    rows=(NOW, DNS, PLAN, SOURCE, HEALTH),
)
"""What `/d/svcmesh-control` shows."""
