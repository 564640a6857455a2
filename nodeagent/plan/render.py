"""A plan as a document for people and programs: what `/plan` answers and golden files hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, cast

import msgspec
from msgspec import inspect

from discovery.model import Endpoint, Problem
from middleware.values import format_duration
from nodeagent.plan.balancing import written, written_slow_start
from nodeagent.plan.model import (
    Affinity,
    BackendKey,
    BackendSpec,
    LayerSpec,
    LineChoice,
    Listener,
    NodePlan,
    Objective,
    Rule,
    ServicePlan,
)
from nodeagent.plan.objective import written_objective

Unhealthy = Mapping[BackendKey, Mapping[tuple[str, int], str]]
"""Why endpoints are not used, by backend, then by their address and port."""


class InForce(msgspec.Struct, frozen=True):
    """The plan in force, and which endpoints of it fail their health checks or are ejected."""

    plan: NodePlan
    unhealthy: Unhealthy = {}
    ejected: Unhealthy = {}


def in_force_document(shown: InForce) -> dict[str, Any]:
    """Return all that is in force as values that JSON can hold."""
    return plan_document(shown.plan, shown.unhealthy, shown.ejected)


def service_document(shown: InForce, name: str) -> dict[str, Any]:
    """Return the same of one Service, `namespace/name`; without any if the plan does not have it."""
    key = next((key for key in shown.plan.services if str(key) == name), None)
    out = {"unhealthy": shown.unhealthy, "ejected": shown.ejected}
    return {
        "version": shown.plan.version,
        "services": {name: _service(shown.plan.services[key], out)} if key is not None else {},
    }


def plan_document(
    plan: NodePlan, unhealthy: Unhealthy | None = None, ejected: Unhealthy | None = None
) -> dict[str, Any]:
    """Return the plan as values that JSON can hold, Services by `namespace/name` in order."""
    out = {"unhealthy": unhealthy or {}, "ejected": ejected or {}}
    return {
        "version": plan.version,
        "services": {str(key): _service(plan.services[key], out) for key in sorted(plan.services)},
        "problems": _problems(plan.problems),
    }


def _service(service: ServicePlan, out: Mapping[str, Unhealthy]) -> dict[str, Any]:
    return {
        "address": service.address,
        "annotations": dict(sorted(service.effective.items())),
        **({"from": dict(sorted(service.origins.items()))} if service.origins else {}),
        "listeners": [_listener(one, service.objectives.get(one.port)) for one in service.listeners],
        "backends": [_backend(one, out) for one in service.backends],
        "problems": _problems(service.problems),
    }


def _listener(listener: Listener, objective: Objective | None) -> dict[str, Any]:
    return {
        "port": listener.port,
        "name": listener.port_name,
        "mesh": f"{listener.address}:{listener.mesh_port}",
        "protocol": listener.protocol,
        "layers": _layers(listener.layers),
        "rules": [_rule(rule) for rule in listener.rules],
        **({"access_log": _lines(listener.access_log)} if listener.access_log is not None else {}),
        **({"objective": written_objective(objective)} if objective is not None else {}),
    }


def _lines(choice: LineChoice) -> dict[str, Any]:
    """Return what chooses lines, without what chooses none."""
    document = {field: value for field, value in as_written(choice).items() if value and value != "0s"}
    if choice.share:
        document["share"] = f"{choice.share / 100:g}%"
    return document


def _rule(rule: Rule) -> dict[str, Any]:
    match = msgspec.to_builtins(rule.match)
    return {
        "name": rule.name,
        **(
            {"match": {field: value for field, value in match.items() if value}}
            if rule.match.restricts
            else {}
        ),
        "backends": [{"backend": _name(one.backend), "weight": one.weight} for one in rule.backends],
        "layers": _layers(rule.layers),
    }


def _backend(backend: BackendSpec, out: Mapping[str, Unhealthy]) -> dict[str, Any]:
    reasons = {word: those[backend.key] for word, those in out.items() if backend.key in those}
    balance = backend.balance
    return {
        "backend": _name(backend.key),
        "endpoints": [_endpoint(one, reasons) for one in backend.endpoints],
        "balance": written(balance),
        **({"slow_start": written_slow_start(balance)} if balance.slow_start else {}),
        **({"session_affinity": _affinity(backend.affinity)} if backend.affinity is not None else {}),
        **({"max_connections": backend.max_connections} if backend.max_connections else {}),
        **({"protocol": backend.protocol} if backend.protocol != "http1" else {}),
        **({"layers": _layers(backend.layers)} if backend.layers else {}),
        **({"health_check": as_written(backend.health_check)} if backend.health_check is not None else {}),
        **(
            {"outlier_detection": as_written(backend.outlier_detection)}
            if backend.outlier_detection is not None
            else {}
        ),
        **({"locality": as_written(backend.locality)} if backend.locality is not None else {}),
        **({"failover": _name(backend.failover)} if backend.failover is not None else {}),
    }


def _affinity(affinity: Affinity) -> dict[str, str]:
    """Return the cookie without its salt, with which its values could be made."""
    age = {"max_age": format_duration(affinity.max_age)} if affinity.max_age else {}
    return {"cookie": affinity.name, **age}


def _endpoint(endpoint: Endpoint, reasons: Mapping[str, Mapping[tuple[str, int], str]]) -> dict[str, str]:
    """Return an endpoint, and why it is not used."""
    place = (endpoint.address, endpoint.port)
    document = {"address": str(endpoint), "pod": endpoint.pod}
    document |= {word: those.get(place, "") for word, those in reasons.items()}
    return {field: value for field, value in document.items() if value}


def _name(key: BackendKey) -> str:
    return f"{key.service}:{key.port}"


def _layers(layers: Iterable[LayerSpec]) -> list[dict[str, Any]]:
    return [{"name": layer.name, "options": as_written(layer.options)} for layer in layers]


def as_written(options: msgspec.Struct) -> dict[str, Any]:
    """Return options as values that JSON can hold, their times as people write them: `1m30s`."""
    document: dict[str, Any] = msgspec.to_builtins(options)
    for field in _times(type(options)):
        if document[field] is not None:
            document[field] = format_duration(document[field])
    return document


@cache
def _times(options: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields whose type is `middleware.values.Seconds`."""
    info = cast("inspect.StructType", inspect.type_info(options))
    return tuple(field.encode_name for field in info.fields if _is_time(field.type))


def _is_time(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.UnionType):
        return any(map(_is_time, kind.types))
    return isinstance(kind, inspect.Metadata) and (kind.extra or {}).get("unit") == "seconds"


def _problems(problems: Iterable[Problem]) -> list[dict[str, str]]:
    """Return problems in order, without the fields that say nothing."""
    documents: list[dict[str, str]] = [msgspec.to_builtins(problem) for problem in sorted(problems)]
    return [{field: value for field, value in document.items() if value} for document in documents]
