"""`svc.mesh/fault: delay 250ms 10%; abort 503 5%`: fail on purpose, to see how clients bear it.

Each fault hits exactly its share of the requests in the long run: the requests are cut into stretches that
are due one fault each, and a random place in each stretch gets it. A plain random draw would be off by the
square root; an even pace (every tenth) would hit the same client, or the same of a page's ten requests, each
time, and never a client's first retry. The two faults are chosen independently; a request may get both.

With `by-header` a request may ask for faults itself: `x-svcmesh-fault: delay 1s; abort 503`.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from middleware.contract import (
    Annotation,
    Asked,
    Context,
    Decision,
    Fault,
    Handler,
    Layer,
    Metric,
    Middleware,
    Problem,
    Rejected,
    Reply,
    Request,
    Response,
)
from middleware.values import (
    WHOLE,
    InvalidValue,
    Seconds,
    format_duration,
    parse_annotation,
    parse_choice,
    parse_duration,
    parse_integer,
    parse_percentage,
    quote,
)

FAULT: Final = "svc.mesh/fault"
HEADER: Final = "x-svcmesh-fault"
LEAST_DELAY: Final = 0.001
MOST_DELAY: Final = 600.0
LONGEST_VALUE: Final = 256
REASON: Final = "fault_injected"

DELAYED = Metric("svcmesh_faults_delayed", "Requests that were held up on purpose.")
ABORTED = Metric("svcmesh_faults_aborted", "Requests that were answered with an error on purpose.")


class FaultMalformed(Rejected):
    """The request asks for a fault in words that mean nothing (400)."""

    fault: Fault = "client"
    status = 400
    proxy_error = "http_request_error"
    reason = "fault_malformed"


class Options(msgspec.Struct, frozen=True):
    """Which faults hit how many requests. A share of 0 is no fault."""

    delay: Seconds = 0.0
    delay_share: int = 0
    abort: int = 0
    """The status."""
    abort_share: int = 0
    by_header: bool = False


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/fault`."""
    return parse_annotation(annotations, FAULT, parse_faults)


def parse_faults(text: str, *, in_header: bool = False) -> Options:
    """Read faults, on lines of their own or with `;` between them; a header's hit for certain.

    Raises:
        InvalidValue: it says which of them is wrong, and why.
    """
    if len(text) > LONGEST_VALUE:
        raise InvalidValue(f"it has {len(text)} characters", f"at most {LONGEST_VALUE}")
    known = ("delay", "abort") if in_header else ("delay", "abort", "by-header")
    found: dict[str, list[str]] = {}
    for words in filter(None, (piece.split() for piece in re.split("[;\n]", text))):
        what = parse_choice(words[0], known)
        if what in found:
            raise InvalidValue(f"{what} is given twice", f"{what} once")
        found[what] = words[1:]
    if not found:
        raise InvalidValue("it contains no fault", ", ".join(known))
    if found.get("by-header"):
        raise InvalidValue("something follows by-header", "by-header alone")
    delay, delay_share = _value_and_share("delay", "250ms", found, in_header)
    abort, abort_share = _value_and_share("abort", "503", found, in_header)
    return Options(
        delay=parse_duration(delay, least=LEAST_DELAY, most=MOST_DELAY) if delay else 0.0,
        delay_share=delay_share,
        abort=parse_integer(abort, least=400, most=599) if abort else 0,
        abort_share=abort_share,
        by_header="by-header" in found,
    )


def _value_and_share(
    what: str, such_as: str, found: Mapping[str, list[str]], in_header: bool
) -> tuple[str, int]:
    if what not in found:
        return "", 0
    words = found[what]
    shape = f"{what} {such_as}" if in_header else f"{what} {such_as} or {what} {such_as} 5%"
    if not 1 <= len(words) <= 2 - in_header:
        raise InvalidValue(f"{quote(' '.join((what, *words)))} is not a complete fault", shape)
    return words[0], parse_percentage(words[1]) if len(words) == 2 else WHOLE


class Share:
    """Chooses a share of all requests, exact to within two, at places drawn by `fraction` (0 to 1)."""

    def __init__(self, share: int, fraction: Callable[[], float]) -> None:
        self._share = share
        self._fraction = fraction
        # Each request covers `share` of a line on which each stretch of WHOLE has one point.
        self._end = 0.0
        """Of the last request, from the beginning of the stretch whose point is the next."""
        self._point = fraction() * WHOLE
        self._owed = 0
        """A request may cover two points: the next one gets the second."""

    def due(self) -> bool:
        """Decide on one request."""
        self._end += self._share
        while self._end > self._point:
            self._owed += 1
            self._end -= WHOLE
            self._point = self._fraction() * WHOLE
        if not self._owed:
            return False
        self._owed -= 1
        return True


def asked_faults(options: Options, request: Asked) -> Options | None:
    """Return the faults that a request asks for itself; None: it asks for none, or may not.

    Raises:
        FaultMalformed: it asks in words that mean nothing.
    """
    asked = request.headers.get(HEADER) if options.by_header else None
    if asked is None:
        return None
    try:
        return parse_faults(asked, in_header=True)
    except InvalidValue as invalid:
        raise FaultMalformed(f"{HEADER}: {invalid}") from None


def build(
    options: Options,
    context: Context,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    fraction: Callable[[], float] = random.random,
) -> Layer:
    """Return the layer for one port of a Service; tests give `sleep` and `fraction`."""
    to_delay, to_abort = Share(options.delay_share, fraction), Share(options.abort_share, fraction)
    delayed, aborted = context.counter(DELAYED), context.counter(ABORTED)

    def choose(request: Request) -> tuple[float, int]:
        """Return how long to hold the request up, and the status to answer it with; 0 for neither."""
        faults = asked_faults(options, request)
        if faults is None:
            return options.delay if to_delay.due() else 0.0, options.abort if to_abort.due() else 0
        return faults.delay, faults.abort

    def layer(handler: Handler) -> Handler:
        async def inject(request: Request) -> Response:
            seconds, status = choose(request)
            if seconds:
                delayed(1)
                await sleep(seconds)
            if status:
                aborted(1)
                return Reply(status, (("Content-Type", "text/plain"),), BODY, REASON)
            return await handler(request)

        return inject

    return layer


BODY: Final = f"svc.mesh: failed on purpose, see {FAULT} (fault_injected)\n".encode()


def explain(options: Options, asked: Asked) -> Decision:
    """Say which faults the request may meet."""
    try:
        by_itself = asked_faults(options, asked)
    except FaultMalformed as error:
        return Decision(f"refuses it: {error}", error.status, reason=error.reason)
    faults = options if by_itself is None else by_itself
    said = []
    if faults.delay_share:
        said.append(f"delays {faults.delay_share / WHOLE:.2%} by {format_duration(faults.delay)}")
    if faults.abort_share:
        said.append(f"answers {faults.abort_share / WHOLE:.2%} with {faults.abort}")
    says = "; ".join(said) or f"nothing: only requests with {HEADER} meet faults"
    if by_itself is not None:
        says = f"{HEADER} asks for it: {says}"
    if faults.abort_share == WHOLE:
        return Decision(says, faults.abort, (("Content-Type", "text/plain"),), REASON)
    return Decision(says, perhaps=(faults.abort,) if faults.abort_share else ())


MIDDLEWARE = Middleware(
    name="fault",
    annotations=(
        Annotation(
            name=FAULT,
            values=(
                "delay DURATION [PERCENTAGE], abort STATUS [PERCENTAGE] and by-header, on lines of their own"
                " or with ; between them"
            ),
            default="no faults; a fault without a percentage hits every request",
            summary=(
                "Holds requests up or answers them with an error, on purpose: an exact share of them, or"
                f" those that ask for it in {HEADER}."
            ),
            example="svc.mesh/fault: delay 250ms 10%; abort 503 5%; by-header",
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    metrics=(DELAYED, ABORTED),
)
