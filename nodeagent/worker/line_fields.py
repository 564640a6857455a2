"""What a line of the access log says of one exchange, as values. Pure.

Of the request target only the path is shown, a query may hold secrets; header values never are, but for the
trace id, which is read strictly.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from middleware.contract import Ended
from middleware.grpc import http_code
from middleware.journey import BACKOFF, CONNECT, MIDDLEWARE, QUEUE, TRY, Journey
from nodeagent.proxy.observer import FAILURES
from nodeagent.worker.request_line import RequestLine

UPSTREAM_STATUS: Final = "upstream_status"
"""The reason of an exchange that an endpoint ended with a status that is a failure."""
PROTOCOLS: Final = {"1.0": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "HTTP/2"}
MOST_TRIES_TOLD: Final = 8
"""A line names so many tries, and the number of all."""
_NOTHING: Final[tuple[str, str] | tuple[UnsetType, UnsetType]] = (UNSET, UNSET)


def failure_of(ended: Ended) -> tuple[str, str] | None:
    """Return reason and detail of an exchange that failed: as the mesh, or circuit breakers, count it."""
    error = ended.error
    if error is not None:
        return error.reason, error.detail
    status, grpc_status = ended.status, ended.grpc_status
    if (status if grpc_status is None else http_code(status, grpc_status)) < FAILURES:
        return None
    if ended.reply_reason:
        return ended.reply_reason, "a middleware answered"
    said = str(status) if status != 200 or grpc_status is None else grpc_status.name
    return UPSTREAM_STATUS, f"{ended.endpoint} answered {said}"


StageTimes = tuple[
    float | UnsetType,
    float | UnsetType,
    float | UnsetType,
    float | UnsetType,
    float | UnsetType,
    int | UnsetType,
]
"""The milliseconds in `queue`, `connect`, `try`, `middleware` and `backoff`, and the number of tries.

`UNSET`: there is no journey, or (for `backoff`) there was no such stage.
"""
_NO_TIMES: Final[StageTimes] = (UNSET, UNSET, UNSET, UNSET, UNSET, UNSET)


def request_line(
    event: str | UnsetType,
    level: str | UnsetType,
    ended: Ended,
    failure: tuple[str, str] | None,
    names: tuple[str, str] | None,
    worker: int,
    time: str,
) -> RequestLine:
    """Return what a line says of the request, its answer, its client, and how the time was spent.

    `names` are those of the client's pod and workload, if they are known.
    """
    reason, detail = failure if failure is not None else _NOTHING
    journey = ended.journey
    times = stage_times(journey) if journey is not None else _NO_TIMES
    pod, workload = _NOTHING if names is None else names
    grpc_status = ended.grpc_status
    return RequestLine(
        time,
        level,
        event,
        ended.service,
        ended.port,
        ended.method,
        path_of(ended.target),
        ended.status,
        grpc_status.name if grpc_status is not None else UNSET,
        reason,
        detail,
        ended.endpoint,
        _milliseconds(ended.took),
        times[0],
        times[1],
        times[2],
        times[3],
        times[4],
        times[5],
        decisions(ended) or UNSET,
        PROTOCOLS.get(ended.http_version, UNSET),
        ended.received,
        ended.sent,
        ended.trace_id or UNSET,
        ended.source,
        ended.source_port,
        pod,
        workload,
        worker,
    )


def request_fields(ended: Ended, failure: tuple[str, str] | None) -> dict[str, object]:
    """Return what `request_line` says of the request and its answer, for callers that add their own keys."""
    fields: dict[str, object] = msgspec.to_builtins(request_line(UNSET, UNSET, ended, failure, None, 0, ""))
    for key in ("time", "source", "source_port", "worker"):
        del fields[key]
    return fields


def path_of(target: str) -> str:
    """Return the path of a request target: a query may hold secrets."""
    return target.partition("?")[0] if "?" in target else target


def stage_times(journey: Journey) -> StageTimes:
    """Return the same as `Journey.spent` of each kind, in milliseconds, in one pass."""
    stages = journey.stages
    if len(stages) == 1 and stages[0].kind == TRY:  # nearly every request
        only = stages[0]
        return (0.0, 0.0, _milliseconds(only.end - only.start), 0.0, UNSET, only.number)
    spent = {QUEUE: 0.0, CONNECT: 0.0, TRY: 0.0, BACKOFF: 0.0, MIDDLEWARE: 0.0}
    reached: dict[str, float] = {}
    tries = 0
    for stage in stages:
        kind, start, end = stage.kind, stage.start, stage.end
        before = reached.get(kind, journey.start)
        if start < before:
            start = before
        if end > start:
            spent[kind] += end - start
            reached[kind] = end
        if stage.number > tries:
            tries = stage.number
    return (
        _milliseconds(spent[QUEUE]),
        _milliseconds(spent[CONNECT]),
        _milliseconds(spent[TRY]),
        _milliseconds(spent[MIDDLEWARE]),
        _milliseconds(spent[BACKOFF]) if spent[BACKOFF] else UNSET,
        tries,
    )


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
    return int(seconds * 100_000 + 0.5) / 100  # `round` takes ten times as long
