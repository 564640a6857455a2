"""Problems of a Service, as the plan compiler words them."""

from __future__ import annotations

from typing import Literal

from discovery.model import Problem, ServiceObject

Severity = Literal["error", "info"]


def service_problem(
    service: ServiceObject,
    field: str,
    value: str,
    reason: str,
    expected: str,
    effect: str,
    severity: Severity = "error",
) -> Problem:
    """Return a problem of one field of a Service; see `Problem` for what each part says.

    An annotation is called what its owner wrote, where it was translated from another mesh's.
    """
    return Problem(
        namespace=service.key.namespace,
        name=service.key.name,
        field=service.written_as(field),
        value=value,
        reason=reason,
        expected=expected,
        effect=effect,
        origin=service.origin,
        severity=severity,
    )
