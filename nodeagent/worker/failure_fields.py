"""What is told of one request or connection that failed or was refused, as values. Pure.

The keys are those of the access log. No query, header value or body is told, and long values are cut.
"""

from __future__ import annotations

from typing import Final

from middleware.contract import Ended, ExchangeError
from middleware.grpc import http_code
from middleware.journey import Journey
from nodeagent.proxy.observer import FAILURES, Closed, Refused
from nodeagent.worker.line_fields import failure_of, request_fields

LONGEST: Final = 256
"""Characters of a value."""
MOST_STAGES: Final = 24

LAYERS: Final = {
    "circuit_open": "circuit-breaker",
    "concurrency_limited": "max-requests",
    "cors_denied": "cors",
    "fault_injected": "fault",
    "fault_malformed": "fault",
    "not_cached": "cache",
    "queue_timeout": "max-requests",
    "rate_limit_unavailable": "rate-limit",
    "rate_limited": "rate-limit",
    "request_timeout": "timeout",
    "try_timeout": "per-try-timeout",
}
"""The middleware that refuses requests for this reason."""
NOT_REFUSED: Final = frozenset({"cached", "stale_if_error"})
"""Reasons of replies that stand for an endpoint's, whatever their status."""


def fails(ended: Ended) -> bool:
    """Whether an exchange failed, or a middleware has answered that it is not served."""
    if ended.error is not None:
        return True
    code = http_code(ended.status, ended.grpc_status)
    return code >= FAILURES or (
        code >= 400 and bool(ended.reply_reason) and ended.reply_reason not in NOT_REFUSED
    )


def ended_fields(ended: Ended) -> dict[str, object]:
    """Return what is told of an exchange that `fails`."""
    failure = failure_of(ended) or (ended.reply_reason, "a middleware answered")
    fields: dict[str, object] = {"kind": "request", "by": _who(ended)}
    if layer := LAYERS.get(failure[0]):
        fields["layer"] = layer
    fields |= request_fields(ended, failure)
    return fields if ended.journey is None else fields | journey_fields(ended.journey)


def refused_fields(refused: Refused) -> dict[str, object]:
    """Return what is told of what was refused before there was an exchange."""
    error = refused.error
    fields: dict[str, object] = {"kind": "connection" if refused.connection else "request"}
    fields |= {"by": _of(error), "service": refused.service, "port": refused.port}
    if error.status and not refused.connection:
        fields["status"] = error.status
    return fields | {"reason": error.reason, "detail": error.detail, "destination": refused.destination}


def closed_fields(closed: Closed) -> dict[str, object]:
    """Return what is told of a connection to a tcp port that failed."""
    return {
        "kind": "connection",
        "service": closed.service,
        "port": closed.port,
        "reason": closed.reason,
        "detail": closed.detail,
        "endpoint": closed.endpoint,
        "took_ms": round(closed.took * 1000, 2),
        "received": closed.received,
        "sent": closed.sent,
    }


def journey_fields(journey: Journey) -> dict[str, object]:
    """Return the stages of a journey, and how many of them are missing, as keys of a line."""
    fields: dict[str, object] = {"stages": stages_of(journey)}
    if left_out := max(0, len(journey.stages) - MOST_STAGES) + journey.left_out:
        fields["stages_left_out"] = left_out
    return fields


def stages_of(journey: Journey) -> list[dict[str, object]]:
    """Return the stages of a journey in milliseconds since its start."""

    def since(moment: float) -> float:
        return round((moment - journey.start) * 1000, 2)

    told: list[dict[str, object]] = []
    for stage in journey.stages[:MOST_STAGES]:
        fields: dict[str, object] = {
            "kind": stage.kind,
            "start_ms": since(stage.start),
            "end_ms": since(stage.end),
        }
        if stage.endpoint:
            fields["endpoint"] = stage.endpoint
        if stage.number:
            fields["try"] = stage.number
        if stage.outcome:
            fields["outcome"] = stage.outcome
        if stage.answered is not None:
            fields["answered_ms"] = since(stage.answered)
        told.append(fields)
    return told


def cut(fields: dict[str, object]) -> dict[str, object]:
    """Return the fields with long values cut, and without empty ones."""
    return {
        name: f"{value[:LONGEST]}…" if isinstance(value, str) and len(value) > LONGEST else value
        for name, value in fields.items()
        if value not in ("", None)
    }


def _who(ended: Ended) -> str:
    if ended.error is not None:
        return _of(ended.error)
    return "mesh" if ended.reply_reason and ended.reply_reason not in NOT_REFUSED else "endpoint"


def _of(error: ExchangeError) -> str:
    return "endpoint" if error.fault == "upstream" else error.fault
