"""What happens on a cluster, as series, and which alert it makes fire: for `promtool test rules`.

Values are in promtool's notation, one a minute: `0+2x30` begins at 0 and grows by 2, thirty times; `_` is
none.
"""

from __future__ import annotations

from typing import NamedTuple

AGENT = 'node="n1",instance="10.0.0.1:15000",pod="a"'
CALLED = 'namespace="shop",service="cart",port="80"'
STATUS = "svcmesh_requests_total{" + CALLED + ',code_class="%s"}'
CALL = "svcmesh_grpc_calls_total{" + CALLED + ',grpc_status="%s"}'
PROMISED = "svcmesh_objective_ratio{" + CALLED + ',sli="%s"}'
ASKED = "svcmesh_objective_requests_total{" + CALLED + "}"
BAD = "svcmesh_objective_bad_requests_total{" + CALLED + ',sli="%s"}'
DNS = 'svcmesh_dns_queries_total{node="n1",result="%s"}'
REFUSED = "svcmesh_connections_refused_total{" + AGENT + ',reason="%s"}'
PLAN, WORKER_PLAN = f"svcmesh_plan_version{{{AGENT}}}", f'svcmesh_worker_plan_version{{{AGENT},worker="1"}}'
DESIRED, READY = (
    f'kube_daemonset_status_{name}{{namespace="mesh",daemonset="svcmesh-agent"}}'
    for name in ("desired_number_scheduled", "number_ready")
)

Series = dict[str, str]


class Scenario(NamedTuple):
    """Series, and for whom the alert fires `minutes` later: its labels, None if for nobody."""

    alert: str
    what: str
    minutes: int
    series: Series
    fires: dict[str, str] | None


def fires(alert: str, what: str, minutes: int, series: Series, **labels: str) -> Scenario:
    """The alert fires, with these labels beside its own."""
    return Scenario(alert, what, minutes, series, labels)


def quiet(alert: str, what: str, minutes: int, series: Series) -> Scenario:
    """The alert does not fire."""
    return Scenario(alert, what, minutes, series, None)


def up(job: str, values: str) -> Series:
    """Return what Prometheus writes of a target."""
    return {f'up{{job="{job}",node="n1"}}': values}


def objective(asked: str, bad: str, sli: str = "availability", ratio: float = 0.999) -> Series:
    """Return what agents write of an objective."""
    minutes = sum(int(part.rpartition("x")[2]) + 1 for part in bad.split() if "x" in part)
    return {PROMISED % sli: f"{ratio}x{minutes}", ASKED: asked, BAD % sli: bad}


OBJECTIVE_OF = {"namespace": "shop", "service": "cart", "port": "80"}


SCENARIOS = (
    fires(
        "SvcmeshAgentDown",
        "found by a PodMonitor",
        6,
        up("mesh/svcmesh-agent", "0x10"),
        job="mesh/svcmesh-agent",
        node="n1",
    ),
    fires(
        "SvcmeshAgentDown",
        "found by a job of one's own",
        6,
        up("svcmesh-agent", "0x10"),
        job="svcmesh-agent",
        node="n1",
    ),
    quiet("SvcmeshAgentDown", "for a moment", 6, up("svcmesh-agent", "1 0 0 0 1x20")),
    quiet("SvcmeshAgentDown", "another program", 6, up("shop/not-svcmesh-agent", "0x10")),
    fires("SvcmeshAgentsAbsent", "nothing is read", 11, {'up{job="other"}': "1x20"}),
    quiet("SvcmeshAgentsAbsent", "one of two", 11, {'svcmesh_build_info{node="n1"}': "1x20"}),
    fires(
        "SvcmeshNodeWithoutAgent",
        "one of three",
        16,
        {DESIRED: "3x30", READY: "2x30"},
        namespace="mesh",
        daemonset="svcmesh-agent",
    ),
    quiet("SvcmeshNodeWithoutAgent", "all are there", 16, {DESIRED: "3x30", READY: "3x30"}),
    quiet("SvcmeshNodeWithoutAgent", "a new node", 16, {DESIRED: "3x30", READY: "2x9 3x20"}),
    fires("SvcmeshAgentNotReady", "for long", 11, {f"svcmesh_ready{{{AGENT}}}": "0x20"}, pod="a"),
    quiet("SvcmeshAgentNotReady", "at its start", 11, {f"svcmesh_ready{{{AGENT}}}": "0x5 1x20"}),
    fires(
        "SvcmeshOutOfTouch",
        "for seven minutes",
        7,
        {f"svcmesh_source_stale_seconds{{{AGENT}}}": "0+60x20"},
        pod="a",
    ),
    quiet(
        "SvcmeshOutOfTouch",
        "for four minutes",
        7,
        {f"svcmesh_source_stale_seconds{{{AGENT}}}": "0+60x4 0x20"},
    ),
    fires("SvcmeshWorkerBehind", "it stopped at 7", 9, {PLAN: "7+1x20", WORKER_PLAN: "7x20"}, worker="1"),
    quiet("SvcmeshWorkerBehind", "always behind by one", 9, {PLAN: "7+1x20", WORKER_PLAN: "6+1x20"}),
    quiet(
        "SvcmeshWorkerBehind", "another agent begins anew", 12, {PLAN: "99x8 1x20", WORKER_PLAN: "99x8 1x20"}
    ),
    fires(
        "SvcmeshWorkersRestarting",
        "each minute",
        15,
        {f"svcmesh_worker_restarts_total{{{AGENT}}}": "0+1x20"},
        pod="a",
    ),
    quiet("SvcmeshWorkersRestarting", "once", 15, {f"svcmesh_worker_restarts_total{{{AGENT}}}": "0x5 1x20"}),
    fires(
        "SvcmeshWorkerSlow",
        "late by a tenth of a second",
        16,
        {f'svcmesh_worker_loop_lag_seconds{{{AGENT},worker="0"}}': "0.1x30"},
        worker="0",
    ),
    quiet(
        "SvcmeshWorkerSlow",
        "one late heartbeat",
        16,
        {f'svcmesh_worker_loop_lag_seconds{{{AGENT},worker="0"}}': "0.001x10 0.2 0.001x20"},
    ),
    fires(
        "SvcmeshConnectionsRefused", "too many of a client", 16, {REFUSED % "limit": "0+5x30"}, reason="limit"
    ),
    quiet("SvcmeshConnectionsRefused", "no route", 16, {REFUSED % "no_route": "0+5x30"}),
    quiet("SvcmeshConnectionsRefused", "in a burst", 16, {REFUSED % "full": "0 9x30"}),
    fires(
        "SvcmeshProblems",
        "the same on two nodes",
        31,
        {'svcmesh_problems{node="n1"}': "2x40", 'svcmesh_problems{node="n2"}': "2x40"},
    ),
    quiet("SvcmeshProblems", "mended", 31, {'svcmesh_problems{node="n1"}': "2x20 0x20"}),
    fires(
        "SvcmeshDnsFailing",
        "one in ten is refused",
        16,
        {DNS % "noerror": "0+90x30", DNS % "refused": "0+10x30"},
        node="n1",
    ),
    quiet(
        "SvcmeshDnsFailing",
        "names that do not exist",
        16,
        {DNS % "noerror": "0+10x30", DNS % "nxdomain": "0+90x30", DNS % "refused": "0x30"},
    ),
    fires(
        "SvcmeshSnapshotNotWritten",
        "again and again",
        30,
        {f"svcmesh_snapshot_write_failures_total{{{AGENT}}}": "0+1x60"},
        pod="a",
    ),
    quiet(
        "SvcmeshSnapshotNotWritten",
        "once",
        30,
        {f"svcmesh_snapshot_write_failures_total{{{AGENT}}}": "0x10 1x60"},
    ),
    fires(
        "SvcmeshLogLinesLost",
        "by workers",
        31,
        {f'svcmesh_log_lines_lost_total{{{AGENT},process="workers"}}': "0+3x60"},
        process="workers",
    ),
    quiet(
        "SvcmeshLogLinesLost",
        "in one burst",
        31,
        {f'svcmesh_log_lines_lost_total{{{AGENT},process="workers"}}': "0 9x60"},
    ),
    fires(
        "SvcmeshMixedVersions",
        "an upgrade that stopped",
        121,
        {'svcmesh_build_info{version="1",node="n1"}': "1x200", 'svcmesh_build_info{version="2"}': "1x200"},
    ),
    quiet(
        "SvcmeshMixedVersions",
        "an upgrade of half an hour",
        121,
        {
            'svcmesh_build_info{version="1",node="n1"}': "1x30 _x170",
            'svcmesh_build_info{version="2"}': "1x200",
        },
    ),
    fires(
        "SvcmeshHighErrorRatio",
        "one in ten",
        16,
        {STATUS % "2xx": "0+90x30", STATUS % "5xx": "0+10x30"},
        namespace="shop",
        service="cart",
    ),
    quiet(
        "SvcmeshHighErrorRatio",
        "one in a hundred",
        16,
        {STATUS % "2xx": "0+990x30", STATUS % "5xx": "0+10x30"},
    ),
    quiet(
        "SvcmeshHighErrorRatio",
        "what clients did wrong",
        16,
        {STATUS % "2xx": "0+90x30", STATUS % "4xx": "0+90x30", STATUS % "5xx": "0x30"},
    ),
    quiet("SvcmeshHighErrorRatio", "three requests a minute", 16, {STATUS % "5xx": "0+3x30"}),
    fires(
        "SvcmeshHighGrpcErrorRatio",
        "one in ten",
        16,
        {CALL % "OK": "0+90x30", CALL % "UNAVAILABLE": "0+10x30"},
        namespace="shop",
        service="cart",
    ),
    quiet(
        "SvcmeshHighGrpcErrorRatio",
        "what was not found",
        16,
        {CALL % "OK": "0+90x30", CALL % "NOT_FOUND": "0+90x30", CALL % "INTERNAL": "0x30"},
    ),
    fires(
        "SvcmeshNoEndpoint",
        "all are gone",
        7,
        {f'svcmesh_upstream_errors_total{{{CALLED},reason="no_endpoint"}}': "0+1x20"},
        namespace="shop",
        service="cart",
    ),
    quiet(
        "SvcmeshNoEndpoint",
        "an endpoint that resets",
        7,
        {f'svcmesh_upstream_errors_total{{{CALLED},reason="reset"}}': "0+1x20"},
    ),
    fires(
        "SvcmeshEndpointsUnhealthy",
        "one, seen from one node",
        16,
        {
            f'svcmesh_endpoints_unhealthy{{{CALLED},node="{node}"}}': f"{n}x30"
            for node, n in (("a", 0), ("b", 1))
        },
        namespace="shop",
        service="cart",
        port="80",
    ),
    quiet(
        "SvcmeshEndpointsUnhealthy",
        "while it starts",
        16,
        {f"svcmesh_endpoints_unhealthy{{{CALLED}}}": "1x10 0x20"},
    ),
    fires(
        "SvcmeshCircuitBreakerOpen",
        "for long",
        16,
        {f"svcmesh_circuit_breaker_rejected_total{{{CALLED}}}": "0+6x30"},
        namespace="shop",
        service="cart",
        port="80",
    ),
    quiet(
        "SvcmeshCircuitBreakerOpen",
        "for a minute, and then nobody calls",
        16,
        {
            f"svcmesh_circuit_breaker_rejected_total{{{CALLED}}}": "0 60x30",
            f"svcmesh_circuit_breaker_state{{{CALLED}}}": "2x30",
        },
    ),
    fires(
        "SvcmeshRetryBudgetExhausted",
        "for long",
        21,
        {f"svcmesh_retry_budget_exhausted_total{{{CALLED}}}": "0+1x40"},
        namespace="shop",
        service="cart",
    ),
    quiet(
        "SvcmeshRetryBudgetExhausted",
        "once",
        21,
        {f"svcmesh_retry_budget_exhausted_total{{{CALLED}}}": "0 5x40"},
    ),
    fires(
        "SvcmeshShedding",
        "for long",
        11,
        {f"svcmesh_requests_shed_total{{{AGENT}}}": "0+5x30"},
        node="n1",
    ),
    quiet("SvcmeshShedding", "in one burst", 11, {f"svcmesh_requests_shed_total{{{AGENT}}}": "0 9x30"}),
    fires("SvcmeshSeriesFolded", "for long", 61, {f"svcmesh_series_folded{{{AGENT}}}": "7x90"}, pod="a"),
    quiet(
        "SvcmeshSeriesFolded", "until others expire", 61, {f"svcmesh_series_folded{{{AGENT}}}": "7x40 0x50"}
    ),
    fires(
        "SvcmeshRetryBudgetNearlyUsed",
        "18 %",
        26,
        {STATUS % "2xx": "0+100x40", f"svcmesh_retries_total{{{CALLED}}}": "0+18x40"},
        namespace="shop",
        service="cart",
    ),
    quiet(
        "SvcmeshRetryBudgetNearlyUsed",
        "1 %",
        26,
        {STATUS % "2xx": "0+100x40", f"svcmesh_retries_total{{{CALLED}}}": "0+1x40"},
    ),
    fires(
        "SvcmeshObjectiveBurnsFast",
        "two in a hundred fail",
        20,
        objective("0+100x30", "0+2x30"),
        **OBJECTIVE_OF,
        sli="availability",
    ),
    fires(
        "SvcmeshObjectiveBurnsFast",
        "four of five are slow",
        20,
        objective("0+100x30", "0+80x30", "latency", 0.95),
        **OBJECTIVE_OF,
        sli="latency",
    ),
    quiet("SvcmeshObjectiveBurnsFast", "one in a hundred fails", 20, objective("0+100x30", "0+1x30")),
    quiet("SvcmeshObjectiveBurnsFast", "it is over", 50, objective("0+100x60", "0+2x40 80x20")),
    quiet("SvcmeshObjectiveBurnsFast", "in one burst", 66, objective("0+100x80", "0x60 0+5x19")),
    quiet("SvcmeshObjectiveBurnsFast", "four of few", 58, objective("0+1x70", "0x54 1 2 3 4x12")),
    fires(
        "SvcmeshObjectiveBurns",
        "eight in a thousand fail",
        60,
        objective("0+1000x70", "0+8x70"),
        **OBJECTIVE_OF,
        sli="availability",
    ),
    quiet("SvcmeshObjectiveBurns", "in one burst", 380, objective("0+1000x400", "0x365 0+20x34")),
    quiet("SvcmeshObjectiveBurns", "it is over", 210, objective("0+1000x220", "0+8x170 1360x49")),
    quiet("SvcmeshObjectiveBurns", "five of few", 60, objective("0+1x70", "0x39 1 2 3 4 5x26")),
    fires(
        "SvcmeshObjectiveBurnsSlowly",
        "four in a thousand fail",
        150,
        objective("0+1000x160", "0+4x160"),
        **OBJECTIVE_OF,
        sli="availability",
    ),
    quiet("SvcmeshObjectiveBurnsSlowly", "two in a thousand", 150, objective("0+1000x160", "0+2x160")),
    quiet("SvcmeshObjectiveBurnsSlowly", "in one burst", 800, objective("0+1000x820", "0x739 0+10x80")),
    quiet("SvcmeshObjectiveBurnsSlowly", "it is over", 730, objective("0+1000x750", "0+4x600 2400x149")),
    quiet("SvcmeshObjectiveBurnsSlowly", "five of few", 150, objective("0+1x160", "0x99 1 2 3 4 5x56")),
    fires(
        "SvcmeshObjectiveAtRisk",
        "three in two thousand fail",
        400,
        objective("0+2000x420", "0+3x420"),
        **OBJECTIVE_OF,
        sli="availability",
    ),
    quiet("SvcmeshObjectiveAtRisk", "one in two thousand", 400, objective("0+2000x420", "0+1x420")),
    quiet("SvcmeshObjectiveAtRisk", "in one burst", 2000, objective("0+1000x2020", "0x1879 0+10x140")),
    quiet("SvcmeshObjectiveAtRisk", "it is over", 1370, objective("0+2000x1390", "0+3x1000 3000x389")),
    quiet("SvcmeshObjectiveAtRisk", "five of few", 400, objective("0+1x410", "0x299 1 2 3 4 5x105")),
)
