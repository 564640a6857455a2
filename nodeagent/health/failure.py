"""Why a probe failed, in words."""

from __future__ import annotations


class ProbeFailed(Exception):
    """The endpoint does not say that it is well; the text says what it does."""


def describe_failure(error: Exception, timeout: float) -> str:
    """Return why a probe failed, for people."""
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g}s"
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    return str(error) or type(error).__name__
