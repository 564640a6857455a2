"""Why a probe failed, in words."""

from __future__ import annotations

import errno
from typing import Final

_OURS: Final = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EPERM, errno.EACCES)
)
"""The system's errors if this node cannot make the probe: no descriptor, memory or port is left, or one of
its own rules forbids it."""


class ProbeFailed(Exception):
    """The endpoint does not say that it is healthy; the text says what it does instead."""


def describe_failure(error: Exception, timeout: float) -> str | None:
    """Return why a probe failed, for people; None if that says nothing about the endpoint."""
    if isinstance(error, OSError) and error.errno in _OURS:
        return None
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g}s"
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    return str(error) or type(error).__name__
