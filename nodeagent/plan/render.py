"""A plan as a document for people and programs: what `/plan` answers and golden files hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from discovery.model import Problem
from nodeagent.plan.model import NodePlan, Route, ServicePlan


def plan_document(plan: NodePlan) -> dict[str, Any]:
    """Return the plan as values that JSON can hold, Services by `namespace/name` in order."""
    return {
        "version": plan.version,
        "services": {str(key): _service(plan.services[key]) for key in sorted(plan.services)},
        "problems": _problems(plan.problems),
    }


def _service(service: ServicePlan) -> dict[str, Any]:
    return {
        "address": service.address,
        "annotations": dict(sorted(service.effective.items())),
        "routes": [_route(route) for route in service.routes],
        "problems": _problems(service.problems),
    }


def _route(route: Route) -> dict[str, Any]:
    return {
        "port": route.port,
        "name": route.port_name,
        "mesh": f"{route.address}:{route.mesh_port}",
        "protocol": route.protocol,
        "upstreams": [
            {"address": str(upstream), "pod": upstream.pod} if upstream.pod else {"address": str(upstream)}
            for upstream in route.upstreams
        ],
        "layers": [
            {"name": layer.name, "options": msgspec.to_builtins(layer.options)} for layer in route.layers
        ],
    }


def _problems(problems: Iterable[Problem]) -> list[dict[str, str]]:
    """Return problems in order, without the fields that say nothing."""
    documents: list[dict[str, str]] = [msgspec.to_builtins(problem) for problem in sorted(problems)]
    return [{field: value for field, value in document.items() if value} for document in documents]
