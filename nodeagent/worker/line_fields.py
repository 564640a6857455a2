"""What a line of the access log says of one exchange, as values. Pure.

Of the request target only the path is shown, a query may hold secrets; header values never are, but for the
trace id, which is read strictly.
"""

from __future__ import annotations

from typing import Final

from middleware.contract import Ended
from middleware.grpc import http_code
from middleware.journey import BACKOFF, CONNECT, MIDDLEWARE, QUEUE, TRY, Journey
from nodeagent.proxy.observer import FAILURES

UPSTREAM_STATUS: Final = "upstream_status"
"""The reason of an exchange that an endpoint ended with a status that is a failure."""
MOST_TRIES_TOLD: Final = 8
"""A line names so many tries, and the number of all."""


def failure_of(ended: Ended) -> tuple[str, str] | None:
    """Return reason and detail of an exchange that failed: as the mesh, or circuit breakers, count it."""
    error = ended.error
    if error is not None:
        return error.reason, error.detail
    if http_code(ended.status, ended.grpc_status) < FAILURES:
        return None
    if ended.reply_reason:
        return ended.reply_reason, "a middleware answered"
    said = str(ended.status) if ended.status != 200 or ended.grpc_status is None else ended.grpc_status.name
    return UPSTREAM_STATUS, f"{ended.endpoint} answered {said}"


def request_fields(ended: Ended, failure: tuple[str, str] | None) -> dict[str, object]:
    """Return what a line says of the request, its answer, and how the time was spent."""
    fields: dict[str, object] = {
        "service": ended.service,
        "port": ended.port,
        "method": ended.method,
        "path": ended.target.partition("?")[0],
        "status": ended.status,
    }
    if ended.grpc_status is not None:
        fields["grpc_status"] = ended.grpc_status.name
    if failure is not None:
        fields["reason"], fields["detail"] = failure
    fields["endpoint"] = ended.endpoint
    fields["took_ms"] = _milliseconds(ended.took)
    journey = ended.journey
    if journey is not None:
        fields |= stage_fields(journey)
    decided = decisions(ended)
    if decided:
        fields["decided"] = decided
    fields["protocol"] = f"HTTP/{ended.http_version}"
    fields["received"], fields["sent"] = ended.received, ended.sent
    if ended.trace_id:
        fields["trace_id"] = ended.trace_id
    return fields


def stage_fields(journey: Journey) -> dict[str, object]:
    """Return the milliseconds in each kind of stage, and the number of tries.

    The same as `Journey.spent` of each kind, in one pass: this is done for every line.
    """
    spent = {QUEUE: 0.0, CONNECT: 0.0, TRY: 0.0, BACKOFF: 0.0, MIDDLEWARE: 0.0}
    reached: dict[str, float] = {}
    tries = 0
    for stage in journey.stages:
        kind, start, end = stage.kind, stage.start, stage.end
        before = reached.get(kind, journey.start)
        if start < before:
            start = before
        if end > start:
            spent[kind] += end - start
            reached[kind] = end
        if stage.number > tries:
            tries = stage.number
    fields: dict[str, object] = {
        "queue_ms": _milliseconds(spent[QUEUE]),
        "connect_ms": _milliseconds(spent[CONNECT]),
        "upstream_ms": _milliseconds(spent[TRY]),
        "middleware_ms": _milliseconds(spent[MIDDLEWARE]),
    }
    if spent[BACKOFF]:
        fields["backoff_ms"] = _milliseconds(spent[BACKOFF])
    fields["tries"] = tries
    return fields


def decisions(ended: Ended) -> str:
    """Return in words what the mesh did that a request does not usually need; empty: nothing."""
    answered = f"a middleware answered: {ended.reply_reason}" if ended.reply_reason else ""
    journey = ended.journey
    if journey is None or len(journey.stages) < 2 or journey.tries < 2:
        return answered
    tried = f"{journey.tries} tries: {_tries(journey)}"
    return f"{answered}; {tried}" if answered else tried


def _tries(journey: Journey) -> str:
    """Return how each try ended: `10.0.0.1:80 connect_failed, 10.0.0.2:80 200`."""
    last = {stage.number: stage for stage in journey.stages if stage.number}
    told = [
        f"{stage.endpoint} {stage.outcome}".rstrip() for _, stage in sorted(last.items())[:MOST_TRIES_TOLD]
    ]
    return ", ".join([*told, *(["…"] if len(last) > MOST_TRIES_TOLD else [])])


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)
