"""`svc.mesh/health-check: grpc interval=5s unhealthy=2`: the agent asks each endpoint whether it is well."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from middleware.contract import Annotation, Problem
from middleware.values import (
    InvalidValue,
    format_duration,
    parse_choice,
    parse_duration,
    parse_integer,
    quote,
)
from nodeagent.plan.model import HealthCheck
from nodeagent.plan.of_port import OfPort, parse_of_port
from nodeagent.plan.setting import Setting

HEALTH_CHECK: Final = "svc.mesh/health-check"
HEALTH_CHECK_OF_PORT: Final = "svc.mesh/health-check."
NONE: Final = "none"
_KINDS: Final = ("grpc", "http", "tcp", NONE)
_PATH: Final = re.compile(r"/[!$-\[\]-~]{0,1023}")
_SERVICE: Final = re.compile(r"[A-Za-z0-9_./-]{1,255}")
LONGEST_INTERVAL: Final = 3600.0
LONGEST_TIMEOUT: Final = 60.0
MOST_IN_A_ROW: Final = 100


HealthChecks = OfPort[HealthCheck]
"""The health checks of one Service, None where there is none."""


def parse_health_checks(annotations: Mapping[str, str]) -> HealthChecks | Problem | None:
    """Read `svc.mesh/health-check` and those of single ports."""
    return parse_of_port(annotations, HEALTH_CHECK, _parse)


def _parse(value: str) -> HealthCheck | None:
    kind, *parts = value.split() or [""]
    kind = parse_choice(kind, _KINDS)
    known = {"grpc": ("service",), "http": ("path",)}.get(kind, ())
    names = (*known, "interval", "timeout", "healthy", "unhealthy") if kind != NONE else ()
    settings: dict[str, Any] = {}
    for part in parts:
        name, equals, text = part.partition("=")
        if not names:
            raise InvalidValue(f"{quote(part)} has no meaning after {NONE}", f"{NONE} alone")
        if not equals:
            raise InvalidValue(
                f"{quote(part)} is not name=value", f"one of {'=, '.join(names)}= behind {kind}"
            )
        if parse_choice(name, names) in settings:
            raise InvalidValue(f"{name} is given twice", f"{name} once")
        settings[name] = _PARSERS[name](text)
    if kind == NONE:
        return None
    check = HealthCheck(cast("Any", kind), **settings)
    if check.timeout > check.interval:
        reason = (
            f"timeout={format_duration(check.timeout)} is longer than "
            f"interval={format_duration(check.interval)}"
        )
        raise InvalidValue(reason, "a timeout of at most the interval")
    return check


def _parse_path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise InvalidValue(f"{quote(text)} is not a path", "a path such as /healthz, perhaps with a query")
    return text


def _parse_service(text: str) -> str:
    if not _SERVICE.fullmatch(text):
        expected = "a name such as shop.v1.Catalog, of letters, digits, dots, slashes, dashes and underscores"
        raise InvalidValue(f"{quote(text)} is not the name of a gRPC service", expected)
    return text


def _parse_number(text: str) -> int:
    return parse_integer(text, least=1, most=MOST_IN_A_ROW)


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "path": _parse_path,
    "service": _parse_service,
    "interval": lambda text: parse_duration(text, least=1.0, most=LONGEST_INTERVAL),
    "timeout": lambda text: parse_duration(text, least=0.001, most=LONGEST_TIMEOUT),
    "healthy": _parse_number,
    "unhealthy": _parse_number,
}

HEALTH_CHECKS: Final = Setting(
    name="health check",
    annotations=(
        Annotation(
            name=HEALTH_CHECK,
            values=(
                "grpc [service=NAME], http [path=/], tcp or none; after the first three"
                " [interval=10s] [timeout=1s] [healthy=1] [unhealthy=3]"
            ),
            default="none",
            summary=(
                "How the agent of each node checks every endpoint, on all ports: it asks the gRPC health "
                "service, asks for a path and expects 200 to 399, or connects. An endpoint that fails "
                "`unhealthy` times in a row is not used until it passes `healthy` times, unless none is "
                "left. What stands in brackets is the"
                " default."
            ),
            example="svc.mesh/health-check: http path=/healthz interval=5s",
        ),
        Annotation(
            name=f"{HEALTH_CHECK_OF_PORT}<port name or number>",
            values="as svc.mesh/health-check",
            default="svc.mesh/health-check",
            summary="The same for the endpoints of this port; takes precedence over svc.mesh/health-check.",
            example="svc.mesh/health-check.grpc: grpc service=shop.v1.Catalog",
        ),
    ),
    parse=parse_health_checks,
    page="health-checks",
)
