"""What every parser of annotations owes its user for a value that cannot be used."""

from __future__ import annotations

from middleware.contract import Problem


def assert_problem(found: object, annotation: str, value: str, reason: str) -> None:
    """It names the annotation, its value and what is wrong, and says what would be right."""
    assert isinstance(found, Problem)
    assert (found.annotation, found.value, found.reason) == (annotation, value, reason)
    assert found.expected
