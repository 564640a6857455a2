"""`svc.mesh/objective: 99.9% 250ms`: which share of a Service's requests shall succeed, and in what time.

A time has to be one of the bounds of the duration histogram: for those the mesh knows exactly how many
requests took longer. Any other time is refused. Rounded to a bound it would be an objective that nobody has
written, and somebody would be called out for it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

from discovery.model import Problem, ServiceObject, ServicePort
from middleware import contract
from middleware.contract import Annotation
from middleware.values import InvalidValue, format_duration, parse_duration, quote
from nodeagent.plan.model import Objective, Protocol
from nodeagent.plan.of_port import OfPort, parse_keys, parse_of_port
from nodeagent.plan.problems import service_problem
from nodeagent.plan.setting import Setting
from nodeagent.stats.columns import DURATION_BOUNDS

OBJECTIVE: Final = "svc.mesh/objective"
OBJECTIVE_OF_PORT: Final = "svc.mesh/objective."
OFF: Final = "off"
PERCENT: Final = 1000
"""Shares are whole numbers of thousandths of a per cent."""
LEAST: Final = 50 * PERCENT
MOST: Final = 99_999
_SHARE: Final = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?%")
_EXPECTED: Final = f"a percentage from {LEAST // PERCENT}% to {MOST / PERCENT:g}%, such as 99.9%"


def parse_objective(annotations: Mapping[str, str]) -> OfPort[Objective] | contract.Problem | None:
    """Read `svc.mesh/objective` and those of single ports."""
    return parse_of_port(annotations, OBJECTIVE, read_objective)


def read_objective(value: str) -> Objective | None:
    """Read one value, `99.9% [250ms [latency=95%]]` or `off`.

    Raises:
        InvalidValue: it is not one.
    """
    first, *parts = value.split() or [""]
    if first == OFF:
        parse_keys(parts, {}, OFF)
        return None
    available = _read_share(first)
    if not parts:
        return Objective(available)
    time, *settings = parts
    if "=" in time:
        reason = f"{quote(time)} stands where the time belongs"
        raise InvalidValue(reason, "a time, as in 99.9% 250ms latency=95%")
    within = _read_time(time)
    fast = parse_keys(settings, {"latency": _read_share}, time).get("latency", available)
    return Objective(available, within, fast)


def _read_share(text: str) -> int:
    match = _SHARE.fullmatch(text)
    if match is None:
        raise InvalidValue(f"{quote(text)} is not a percentage", _EXPECTED)
    share = int(match[1]) * PERCENT + int((match[2] or "").ljust(3, "0"))
    if share == 100 * PERCENT:
        raise InvalidValue(f"{text} leaves no room for a single failure", _EXPECTED)
    if not LEAST <= share <= MOST:
        raise InvalidValue(f"{text} is out of range", _EXPECTED)
    return share


def _read_time(text: str) -> float:
    seconds = parse_duration(text, least=DURATION_BOUNDS[0], most=DURATION_BOUNDS[-1])
    above = bisect_left(DURATION_BOUNDS, seconds)
    if seconds != DURATION_BOUNDS[above]:
        near = " or ".join(map(format_duration, DURATION_BOUNDS[above - 1 : above + 1]))
        every = ", ".join(map(format_duration, DURATION_BOUNDS))
        raise InvalidValue(f"the mesh does not count the requests within {text}", f"{near}, of {every}")
    return seconds


def written_objective(objective: Objective) -> str:
    """Return it as its owner would write it."""
    words = [f"{objective.available / PERCENT:g}%"]
    if objective.within:
        words.append(format_duration(objective.within))
        if objective.fast != objective.available:
            words.append(f"latency={objective.fast / PERCENT:g}%")
    return " ".join(words)


def objectives_of(
    service: ServiceObject,
    ports: Sequence[tuple[ServicePort, Protocol]],
    said: OfPort[Objective],
    in_force: Mapping[str, str],
    problems: list[Problem],
) -> dict[int, Objective]:
    """Return the objectives of the ports that the mesh carries; those of tcp ports are reported.

    Of a tcp connection the mesh knows neither whether it failed nor how long an answer took. One objective
    for all ports is that of the http ports; a Service without any is told, unless a policy says it.
    """
    found: dict[int, Objective] = {}
    for port, protocol in ports:
        objective = said.of(port)
        own = [f"{OBJECTIVE_OF_PORT}{one}" for one in (port.name, str(port.port)) if one in said.of_port]
        if protocol == "http":
            if objective is not None:
                found[port.port] = objective
        elif objective is not None and own:
            problems.append(_tcp_problem(service, own[0], in_force, f"port {port.name or port.port} is tcp"))
    none_speaks_http = bool(ports) and all(protocol == "tcp" for _, protocol in ports)
    if said.usual is not None and none_speaks_http and OBJECTIVE in service.annotations:
        problems.append(_tcp_problem(service, OBJECTIVE, in_force, "the Service has no http port"))
    return found


def _tcp_problem(service: ServiceObject, field: str, in_force: Mapping[str, str], reason: str) -> Problem:
    return service_problem(
        service,
        field,
        in_force.get(field, ""),
        f"{reason}, and the mesh counts no requests there",
        "an objective of an http port (svc.mesh/protocol says what a port speaks)",
        "it is ignored",
        severity="warning",
    )


OBJECTIVES: Final = Setting(
    name="objective",
    annotations=(
        Annotation(
            name=OBJECTIVE,
            values=(
                f"off, or a percentage from {LEAST // PERCENT}% to {MOST / PERCENT:g}%, then perhaps a time"
                " and latency=PERCENT; a time is one of " + ", ".join(map(format_duration, DURATION_BOUNDS))
            ),
            default=OFF,
            summary=(
                "What callers may rely on: this share of the requests to http ports succeeds, and the same"
                " share, or that of latency=, takes no longer than the time. Prometheus gets the figures for"
                " an error budget and its alerts; no request is treated differently."
            ),
            example="svc.mesh/objective: 99.9% 250ms",
        ),
        Annotation(
            name=f"{OBJECTIVE_OF_PORT}<port name or number>",
            values="as svc.mesh/objective",
            default=OBJECTIVE,
            summary="The same for this port; takes precedence over svc.mesh/objective.",
            example="svc.mesh/objective.grpc: 99.95% 500ms latency=99%",
        ),
    ),
    parse=parse_objective,
    page="objectives",
)
