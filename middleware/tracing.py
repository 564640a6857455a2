"""`svc.mesh/tracing: 1% parent=on slow=500ms errors=on`: record what the mesh does with requests, as spans.

A request is recorded if it is *sampled*: because those before the mesh sample its trace (`parent=on`), else
by the trace id, so that all nodes choose the same traces. Its endpoint then gets a new span of the mesh as
its parent (`trace_context`). What was not sampled passes unchanged. It is recorded at its end after all if it
has failed (`errors=on`) or taken long (`slow`).

A layer hands records to `Context.traces`, which never waits. The agent makes spans of them and sends them on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog

from middleware.contract import (
    Annotation,
    Asked,
    Context,
    Decision,
    Ended,
    Middleware,
    OnRequest,
    Problem,
    Request,
    TracedRequest,
    TraceSink,
)
from middleware.grpc import http_code
from middleware.trace_context import (
    FIELDS,
    SAMPLED,
    Readable,
    TraceContext,
    decision,
    passed_on,
    read,
)
from middleware.values import (
    WHOLE,
    Seconds,
    format_duration,
    parse_annotation,
    parse_choice,
    parse_duration,
    parse_percentage,
    split_settings,
)

TRACING: Final = "svc.mesh/tracing"
SHORTEST: Final = 0.001
LONGEST: Final = 600.0
FAILURE: Final = 500
"""The first status that is a failure."""
LONGEST_TEXT: Final = 1024
"""Characters of what a client has sent; records wait in bounded queues, so each has to be small."""
LOW: Final = (1 << 64) - 1
"""The bits of a trace id that decide, as in OpenTelemetry's TraceIdRatioBased."""

_FOR: Final = " for the collector of --traces"

log = structlog.get_logger()


class Options(msgspec.Struct, frozen=True):
    """What is recorded of one port."""

    share: int
    """Of the requests that nobody before the mesh has decided about, in hundredths of a per cent."""
    parent: bool = True
    """Whether the decision of those before the mesh holds."""
    slow: Seconds | None = None
    """Requests that take at least this long are always recorded; None: they are not."""
    errors: bool = False
    """Whether requests that fail are always recorded."""


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/tracing`."""
    return parse_annotation(annotations, TRACING, _parse)


def _parse(text: str) -> Options:
    value, settings = split_settings(text, ("parent", "slow", "errors"))
    slow = settings.get("slow")
    return Options(
        parse_percentage(value, least=0),
        _is_on(settings.get("parent", "on")),
        None if slow is None else parse_duration(slow, least=SHORTEST, most=LONGEST),
        _is_on(settings.get("errors", "off")),
    )


def _is_on(text: str) -> bool:
    return parse_choice(text, ("on", "off")) == "on"


class Sampler:
    """Which requests are recorded. Pure."""

    __slots__ = ("_bound", "_errors", "_parent", "_slow", "looks_back")

    def __init__(self, options: Options) -> None:
        self._bound = round(options.share * (LOW + 1) / WHOLE)
        self._parent = options.parent
        self._slow = options.slow
        self._errors = options.errors
        self.looks_back = options.errors or options.slow is not None
        """Whether a request that was not sampled may still be recorded when it is over."""

    def samples(self, trace_id: int, decided: bool | None) -> bool:
        """Decide at the request's beginning. `decided` is what those before the mesh say, None: nothing."""
        if self._parent and decided is not None:
            return decided
        return trace_id & LOW < self._bound

    def keeps(self, ended: Ended) -> bool:
        """Decide at the end about a request that was not sampled."""
        if self._slow is not None and ended.took >= self._slow:
            return True
        return self._errors and has_failed(ended)


def has_failed(ended: Ended) -> bool:
    """Whether the client got no response, or not all of it, or one that is a failure; one that has left has
    not failed.
    """
    return ended.error is not None or http_code(ended.status, ended.grpc_status) >= FAILURE


def _named_in(headers: Readable) -> tuple[TraceContext | None, bool | None]:
    """Return the trace that a request names, and whether those before the mesh record it; None: not said."""
    parent = read(headers)
    return parent, (decision(headers) if parent is None else parent.sampled)


class _Tracer:
    """Records requests of one port."""

    def __init__(
        self, options: Options, context: Context, sink: TraceSink, random_bits: Callable[[int], int]
    ) -> None:
        self.sampler = Sampler(options)
        self._service = context.service
        self._port = context.port
        self._sink = sink
        self._bits = random_bits
        self._now = context.now

    def new_id(self, bits: int) -> int:
        """Return a trace id or span id: any number but 0, which means none."""
        return self._bits(bits) or 1

    def begin(self, request: Request) -> None:
        """Decide about a request; if it is sampled, write the span into its head."""
        headers = request.headers
        parent, decided = _named_in(headers) if headers.has_any(FIELDS) else (None, None)
        trace_id = parent.trace_id if parent is not None else self.new_id(128)
        if self.sampler.samples(trace_id, decided):
            span_id = self.new_id(64)
            mine = parent if parent is not None else TraceContext(trace_id, span_id, True, flags=SAMPLED)
            passed_on(headers, mine, span_id, parent)
            request.follow_journey()
            request.at_end(lambda ended: self.record(ended, trace_id, span_id, parent, sampled=True))
        elif self.sampler.looks_back:
            request.follow_journey()
            request.at_end(lambda ended: self._look_back(ended, trace_id, parent))

    def _look_back(self, ended: Ended, trace_id: int, parent: TraceContext | None) -> None:
        if self.sampler.keeps(ended):
            self.record(ended, trace_id, self.new_id(64), parent, sampled=False)

    def record(
        self, ended: Ended, trace_id: int, span_id: int, parent: TraceContext | None, *, sampled: bool
    ) -> None:
        """Hand over what became of a request."""
        journey, error = ended.journey, ended.error
        end = journey.end if journey is not None else self._now()
        self._sink.keep(
            TracedRequest(
                trace_id=trace_id.to_bytes(16),
                span_id=span_id.to_bytes(8),
                parent_id=parent.span_id.to_bytes(8) if parent is not None else b"",
                sampled=sampled,
                service=ended.service,
                port=ended.port,
                source=ended.source,
                source_port=ended.source_port,
                method=ended.method[:LONGEST_TEXT],
                path=ended.target.partition("?")[0][:LONGEST_TEXT],
                status=ended.status,
                grpc_status=ended.grpc_status,
                failure=_failure(ended),
                detail=error.detail[:LONGEST_TEXT] if error is not None else "",
                start=end - ended.took,
                end=end,
                received=ended.received,
                sent=ended.sent,
                stages=journey.stages if journey is not None else (),
                http_version=ended.http_version,
            )
        )


def _failure(ended: Ended) -> str:
    """Return why it has failed, in a word that is stable (`error.type`); empty: it has not."""
    if ended.error is not None:
        return ended.error.reason
    if not has_failed(ended):
        return ""
    if ended.status < FAILURE and ended.grpc_status is not None:
        return ended.grpc_status.name
    return str(ended.status)


def build(
    options: Options, context: Context, *, random_bits: Callable[[int], int] = random.getrandbits
) -> OnRequest:
    """Return what looks at each request to one port of a Service; tests give `random_bits`."""
    if context.traces is None:
        detail = f"nothing is recorded: give the agent a collector (--traces), or take {TRACING} out"
        log.warning("tracing_without_collector", service=context.service, port=context.port, detail=detail)
        return lambda _request: None
    return _Tracer(options, context, context.traces, random_bits).begin


def explain(options: Options, asked: Asked) -> Decision:
    """Say whether the request is recorded, and who has decided that. The new parent that the endpoint gets is
    not written into the request: nobody knows its id yet.
    """
    sampler = Sampler(options)
    parent, decided = _named_in(asked.headers)
    share = f"{options.share / 100:g}%"
    if options.parent and decided is not None:
        recorded, why = decided, "its client has decided so"
    elif parent is not None:
        recorded = sampler.samples(parent.trace_id, decided)
        why = f"its trace id is {'' if recorded else 'not '}among the {share} that are"
    elif 0 < options.share < WHOLE:
        return Decision(f"{share} of such requests are recorded{_FOR}, by chance{_in_any_case(options)}")
    else:
        recorded, why = options.share > 0, f"{share} of such requests are"
    if recorded:
        return Decision(f"recorded{_FOR}: {why}")
    return Decision(f"not recorded: {why}{_in_any_case(options)}")


def _in_any_case(options: Options) -> str:
    """Return what makes a request recorded that was not sampled."""
    cases = ["it fails"] if options.errors else []
    cases += [f"it takes {format_duration(options.slow)} or more"] if options.slow is not None else []
    return f"; in any case it is if {' or '.join(cases)}" if cases else ""


MIDDLEWARE = Middleware(
    name="tracing",
    annotations=(
        Annotation(
            name=TRACING,
            values="SHARE [parent=on|off] [slow=DURATION] [errors=on|off]; SHARE is 0% to 100%",
            default="no tracing; parent=on; errors=off",
            summary=(
                "The share of requests that are recorded as spans and sent to the collector of `--traces`."
                " With `parent=on` it counts only for requests whose clients have not decided; of others"
                " those are recorded that their clients sample. With `slow`, requests that take at least this"
                " long are always recorded, and with `errors=on` those that fail."
            ),
            example="svc.mesh/tracing: 1% slow=500ms errors=on",
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    scope="request",
)
