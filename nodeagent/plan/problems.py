"""Problems of a Service, as the plan compiler words them."""

from __future__ import annotations

from discovery.model import Problem, ServiceObject, Severity


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

    What was translated from another mesh's annotation is called as its owner wrote it, name and value.
    """
    # A value that is in force but was not written (the last good one) is only known by our name.
    if field in service.translated and value == service.annotations.get(field):
        field, value = service.written_as(field)
    return Problem(
        namespace=service.key.namespace,
        name=service.key.name,
        field=field,
        value=value,
        reason=reason,
        expected=expected,
        effect=effect,
        origin=service.place(field),
        severity=severity,
    )


def name_of(problem: Problem) -> str:
    """Return kind, namespace and name of what a problem is about; of a file the path."""
    # A Namespace is in none; its problems are told with those of the Services in it.
    namespace = "" if problem.kind == "Namespace" else problem.namespace
    return f"{problem.kind} " + "/".join(filter(None, (namespace, problem.name)))
