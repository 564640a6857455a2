"""The trace that a request belongs to, in the header fields of W3C Trace Context, B3 and Jaeger.

Pure. Whatever is not exactly as its specification says counts as absent, and stays as it is for others to
judge. If a request has several, the first of `traceparent`, `b3`, `x-b3-traceid` and `uber-trace-id` that is
valid is its trace; `passed_on` writes a new span into all of those that belong to the same trace.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, Protocol

import msgspec

from middleware.messages import Headers

Form = Literal["w3c", "b3", "b3-multi", "jaeger"]

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
B3: Final = "b3"
B3_TRACE: Final = "x-b3-traceid"
B3_SPAN: Final = "x-b3-spanid"
B3_PARENT: Final = "x-b3-parentspanid"
B3_SAMPLED: Final = "x-b3-sampled"
B3_FLAGS: Final = "x-b3-flags"
JAEGER: Final = "uber-trace-id"

SAMPLED: Final = 0x01
RANDOM: Final = 0x02
"""Of the flags of `traceparent`: the trace id was made at random (Trace Context, level 2)."""
LONGEST: Final = 256
"""Characters of a field; a longer one is not looked at. A valid one of a known version has at most 68."""
MOST_MEMBERS: Final = 32
"""Of `tracestate` (Trace Context, section 3.3.1.1)."""

FIELDS: Final = frozenset({TRACEPARENT, B3, B3_TRACE, B3_SAMPLED, B3_FLAGS, JAEGER})
"""One of them is there if a request says anything of a trace."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_B3 = re.compile(r"([0-9a-f]{32}|[0-9a-f]{16})-([0-9a-f]{16})(?:-([01d])(?:-([0-9a-f]{16}))?)?")
_TRACE_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{16}")
_SPAN_ID = re.compile(r"[0-9a-f]{16}")
_JAEGER = re.compile(r"([0-9a-fA-F]{1,32}):([0-9a-fA-F]{1,16}):([0-9a-fA-F]{0,16}):([0-9a-fA-F]{1,2})")
_KEY = re.compile(r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}")
_VALUE = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


class TraceContext(msgspec.Struct, frozen=True):
    """A trace, and the span of it that the client was in when it sent the request."""

    trace_id: int
    span_id: int
    sampled: bool | None
    """Whether those before the mesh record it; None: they leave that to whoever comes next."""
    forms: tuple[Form, ...] = ("w3c",)
    """In which the request names this trace."""
    flags: int = 0
    """Those of `traceparent`."""


class Readable(Protocol):
    """Header fields, as far as they are read here."""

    def get(self, name: str) -> str | None:
        """Return the first value of a field."""
        ...

    def get_all(self, name: str) -> Sequence[str]:
        """Return all values of a field."""
        ...


def read_traceparent(values: Sequence[str]) -> TraceContext | None:
    """Read `traceparent` (W3C Trace Context, section 3.2); None unless there is exactly one, and it is valid.

    A version that is not known is read as far as version 00 goes, as section 4.3 says.
    """
    if len(values) != 1 or len(values[0]) > LONGEST:
        return None
    match = _TRACEPARENT.fullmatch(values[0])
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not trace_id or not span_id:
        return None
    bits = int(flags, 16)
    return TraceContext(trace_id, span_id, bool(bits & SAMPLED), ("w3c",), bits)


def valid_tracestate(values: Sequence[str]) -> bool:
    """Whether `tracestate` is as section 3.3 says: keys and values of the allowed characters, no key twice,
    not too many.
    """
    members = [member.strip(" \t") for value in values for member in value.split(",")]
    members = [member for member in members if member]
    if len(members) > MOST_MEMBERS:
        return False
    keys = set()
    for member in members:
        key, equals, value = member.partition("=")
        if not equals or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value) or key in keys:
            return False
        keys.add(key)
    return True


def read_b3(values: Sequence[str]) -> TraceContext | None:
    """Read the single field of B3: `{trace}-{span}[-{sampled}[-{parent}]]`. The forms `0` and `1`, which name
    no trace, are read by `decision`.
    """
    if len(values) != 1 or len(values[0]) > LONGEST:
        return None
    match = _B3.fullmatch(values[0])
    if match is None:
        return None
    trace, span, sampled, _ = match.groups()
    return _context(trace, span, None if sampled is None else sampled != "0", "b3")


def read_b3_multi(headers: Readable) -> TraceContext | None:
    """Read the fields of B3 that begin with `X-B3-`."""
    trace, span = _only(headers, B3_TRACE), _only(headers, B3_SPAN)
    if trace is None or span is None or not _TRACE_ID.fullmatch(trace) or not _SPAN_ID.fullmatch(span):
        return None
    return _context(trace, span, _b3_decision(headers), "b3-multi")


def read_jaeger(values: Sequence[str]) -> TraceContext | None:
    """Read `uber-trace-id`: `{trace}:{span}:{parent}:{flags}`, where leading zeros may be left out."""
    if len(values) != 1 or len(values[0]) > LONGEST:
        return None
    match = _JAEGER.fullmatch(values[0])
    if match is None:
        return None
    trace, span, _, flags = match.groups()
    return _context(trace, span, bool(int(flags, 16) & SAMPLED), "jaeger")


def read(headers: Readable) -> TraceContext | None:
    """Return the trace that a request belongs to; None: it names none."""
    found = [
        context
        for context in (
            read_traceparent(headers.get_all(TRACEPARENT)),
            read_b3(headers.get_all(B3)),
            read_b3_multi(headers),
            read_jaeger(headers.get_all(JAEGER)),
        )
        if context is not None
    ]
    if not found:
        return None
    first = found[0]
    if len(found) == 1:
        return first
    forms = tuple(form for one in found if one.trace_id == first.trace_id for form in one.forms)
    return msgspec.structs.replace(first, forms=forms)


def trace_id_in(headers: Readable) -> str:
    """Return the id of the trace that a request belongs to, as 32 hexadecimal digits; empty: none."""
    context = read(headers)
    return f"{context.trace_id:032x}" if context is not None else ""


def decision(headers: Readable) -> bool | None:
    """Return what B3 says of a request that names no trace: whether to record it; None: nothing."""
    single = _only(headers, B3)
    if single in ("0", "1", "d"):
        return single != "0"
    return _b3_decision(headers)


def passed_on(headers: Headers, context: TraceContext, span_id: int, parent: TraceContext | None) -> None:
    """Write a sampled span of the mesh into the header fields of a request, for its endpoint.

    `context` is the trace. `parent` is what the request has named; None: nothing valid. Then a `tracestate`
    belongs to no trace, and is taken out, as one that is not valid is.
    """
    trace, span = f"{context.trace_id:032x}", f"{span_id:016x}"
    for form in context.forms:
        if form == "w3c":
            flags = SAMPLED | (context.flags & RANDOM)
            headers.set(TRACEPARENT, f"00-{trace}-{span}-{flags:02x}")
        elif form == "b3":
            before = headers.get(B3)
            sampled = "d" if before is not None and before.split("-")[2:3] == ["d"] else "1"
            above = f"-{parent.span_id:016x}" if parent is not None else ""
            headers.set(B3, f"{trace}-{span}-{sampled}{above}")
        elif form == "b3-multi":
            headers.set(B3_TRACE, trace)
            headers.set(B3_SPAN, span)
            if parent is not None:
                headers.set(B3_PARENT, f"{parent.span_id:016x}")
            if headers.get(B3_FLAGS) != "1":
                headers.set(B3_SAMPLED, "1")
        else:
            above = f"{parent.span_id:x}" if parent is not None else "0"
            headers.set(JAEGER, f"{context.trace_id:x}:{span_id:x}:{above}:1")
    state = headers.get_all(TRACESTATE)
    if state and (parent is None or "w3c" not in parent.forms or not valid_tracestate(state)):
        headers.remove(TRACESTATE)


def _context(trace: str, span: str, sampled: bool | None, form: Form) -> TraceContext | None:
    trace_id, span_id = int(trace, 16), int(span, 16)
    return TraceContext(trace_id, span_id, sampled, (form,)) if trace_id and span_id else None


def _only(headers: Readable, name: str) -> str | None:
    values = headers.get_all(name)
    return values[0] if len(values) == 1 and len(values[0]) <= LONGEST else None


def _b3_decision(headers: Readable) -> bool | None:
    if _only(headers, B3_FLAGS) == "1":
        return True
    sampled = _only(headers, B3_SAMPLED)
    if sampled in ("1", "true"):
        return True
    return False if sampled in ("0", "false") else None
