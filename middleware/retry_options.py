"""What owners say about retries: the annotations, what may stand in them, and the options they make."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any, Final

import msgspec

from middleware.contract import Annotation, Limit, Problem
from middleware.grpc import BY_WORD, GrpcStatus
from middleware.retry_rules import BACKOFF_LIMIT, BUDGET_FLOOR, BUDGET_SHARE, BUDGET_WINDOW, IDEMPOTENT
from middleware.values import (
    UNIT_NANOSECONDS,
    WHOLE,
    InvalidValue,
    Seconds,
    parse_choice,
    parse_duration,
    parse_integer,
    parse_percentage,
    parse_rate,
    problem,
    quote,
    split_settings,
)

RETRY_ATTEMPTS: Final = "svc.mesh/retry-attempts"
RETRY_ON: Final = "svc.mesh/retry-on"
RETRY_METHODS: Final = "svc.mesh/retry-methods"
RETRY_BUDGET: Final = "svc.mesh/retry-budget"
RETRY_BACKOFF: Final = "svc.mesh/retry-backoff"
HEDGE: Final = "svc.mesh/hedge"
MOST_ATTEMPTS: Final = 10

CONDITIONS: Final[Mapping[str, frozenset[int]]] = {
    "5xx": frozenset(range(500, 600)),
    "gateway-error": frozenset({502, 503, 504}),
    "retriable-4xx": frozenset({409}),
    "connect-failure": frozenset(),
    "reset": frozenset(),
}
"""Envoy's words and the status codes they mean. The last two are always in force, and accepted. `reset` is
Envoy's "disconnect/reset/read timeout": its `per_try_timeout` resets the try's stream."""

FASTEST_FLOOR: Final = 100_000
"""Retries a second that may be allowed whatever the number of requests."""

LONGEST_BACKOFF: Final = 60.0
BACKOFF_GROWTH: Final = 10
"""The longest random wait is this many times the base, unless the owner says otherwise; so is Envoy's."""
LONGEST_ASKED: Final = 60.0
"""Seconds; the most that an owner may let an endpoint hold a request with `Retry-After`."""

LEAST_HEDGED: Final = WHOLE // 2
"""Below, more requests would be slow than usual."""

ANY_METHOD: Final = "any"
_METHOD: Final = re.compile(r"(?!CONNECT\Z)[A-Z][A-Z-]{0,31}")
_FURTHER: Final = (RETRY_ON, RETRY_METHODS, RETRY_BUDGET, RETRY_BACKOFF)
"""What has no effect without attempts."""


class Options(msgspec.Struct, frozen=True):
    """How often to try again, on what, and how soon."""

    attempts: int
    """Additional tries of one request after a failure, 1 to 10; 0 where requests are only hedged."""
    on: tuple[str, ...] = ()
    """Words of `CONDITIONS` and of gRPC, and status codes, sorted."""
    methods: tuple[str, ...] = ()
    """Methods that are sent again as if they were idempotent, sorted; `("any",)` is all."""
    budget_percent: float = BUDGET_SHARE / WHOLE * 100
    """Retries in per cent of the requests."""
    budget_floor: int = BUDGET_FLOOR
    """Retries in ten seconds that are allowed to any Service, however quiet."""
    base: Seconds | None = None
    """The first wait is up to this long; None: the mesh's own waits."""
    limit: Seconds = BACKOFF_LIMIT
    """No wait is longer."""
    retry_after: Seconds | None = 1.0
    """How long an endpoint may have a request wait by `Retry-After`; None: it is not asked."""
    hedge_percent: float | None = None
    """A request that takes longer than this share of them gets a second try; None: none does."""

    def statuses(self) -> frozenset[int]:
        """Return the status codes to retry on."""
        codes = {int(word) for word in self.on if word.isdigit()}
        return frozenset(codes.union(*(CONDITIONS[word] for word in self.on if word in CONDITIONS)))

    def grpc_statuses(self) -> frozenset[GrpcStatus]:
        """Return the statuses of gRPC to retry calls on."""
        return frozenset(BY_WORD[word] for word in self.on if word in BY_WORD)

    def repeatable(self) -> Container[str]:
        """Return the methods of requests that may be sent again although they may have been processed."""
        return _Every() if ANY_METHOD in self.methods else IDEMPOTENT.union(self.methods)


class _Every:
    """Contains every method."""

    def __contains__(self, _method: object) -> bool:
        return True


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/retry-attempts`, `svc.mesh/hedge` and what belongs to them."""
    attempts_text = annotations.get(RETRY_ATTEMPTS)
    if attempts_text is None:
        for name in _FURTHER:
            if name in annotations and not (name == RETRY_BUDGET and HEDGE in annotations):
                expected = f'{RETRY_ATTEMPTS}: "2" beside it'
                reason = f"has no effect without {RETRY_ATTEMPTS}"
                return Problem(name, annotations[name], reason, expected, incomplete=True)
        attempts_text = "0"
    try:
        options = Options(parse_integer(attempts_text, least=0, most=MOST_ATTEMPTS))
    except InvalidValue as invalid:
        return problem(RETRY_ATTEMPTS, attempts_text, invalid)
    for name, read in zip(
        (*_FURTHER, HEDGE),
        (_parse_conditions, _parse_methods, _parse_budget, _parse_backoff, _parse_hedge),
        strict=True,
    ):
        try:
            if name in annotations:
                options = msgspec.structs.replace(options, **read(annotations[name]))
        except InvalidValue as invalid:
            return problem(name, annotations[name], invalid)
    return options if options.attempts or options.hedge_percent is not None else None


def _parse_conditions(text: str) -> dict[str, Any]:
    words = set()
    for word in text[:1024].split(","):
        word = word.strip()
        if len(word) == 3 and word.isascii() and word.isdigit() and "400" <= word <= "599":
            words.add(word)
        else:
            words.add(parse_choice(word, (*CONDITIONS, *BY_WORD), also=" or a status code from 400 to 599"))
    return {"on": tuple(sorted(words))}


def _parse_methods(text: str) -> dict[str, Any]:
    methods = set()
    for word in text[:1024].split(","):
        method = word.strip()
        if method != ANY_METHOD and not _METHOD.fullmatch(method):
            expected = f"methods in capitals such as POST,PATCH, or {ANY_METHOD}"
            raise InvalidValue(f"{quote(method)} is not a method that can be sent again", expected)
        methods.add(method)
    return {"methods": (ANY_METHOD,) if ANY_METHOD in methods else tuple(sorted(methods))}


def _parse_budget(text: str) -> dict[str, Any]:
    share_text, settings = split_settings(text, ("min",))
    share, floor = parse_percentage(share_text, least=0), BUDGET_FLOOR
    if settings.get("min") == "0":
        floor = 0
    elif "min" in settings:
        rate = parse_rate(settings["min"], most=FASTEST_FLOOR)
        floor = rate.count * BUDGET_WINDOW * UNIT_NANOSECONDS["s"] // UNIT_NANOSECONDS[rate.unit]
        if not floor:
            raise InvalidValue(
                f"min={settings['min']} is less than one in {BUDGET_WINDOW} s", "0, or 6/m or more"
            )
    if not share and not floor:
        raise InvalidValue("it allows no retry", f'a share above 0% or a min above 0; {RETRY_ATTEMPTS}: "0"')
    return {"budget_percent": share * 100 / WHOLE, "budget_floor": floor}


def _parse_backoff(text: str) -> dict[str, Any]:
    base_text, settings = split_settings(text, ("max", "retry-after"))
    base = parse_duration(base_text, least=0.001, most=LONGEST_BACKOFF)
    found: dict[str, Any] = {"base": base, "limit": min(base * BACKOFF_GROWTH, LONGEST_BACKOFF)}
    if "max" in settings:
        found["limit"] = parse_duration(settings["max"], least=base, most=LONGEST_BACKOFF)
    asked = settings.get("retry-after")
    if asked is not None:
        found["retry_after"] = None if asked == "ignore" else _parse_longest_asked(asked)
    return found


def _parse_hedge(text: str) -> dict[str, Any]:
    if text.strip() == "none":
        return {"hedge_percent": None}
    share = parse_percentage(text)
    if not LEAST_HEDGED <= share < WHOLE:
        raise InvalidValue(f"{text.strip()} is out of range", "none, or a percentage from 50% to 99.99%")
    return {"hedge_percent": share * 100 / WHOLE}


def _parse_longest_asked(text: str) -> float:
    try:
        return parse_duration(text, most=LONGEST_ASKED)
    except InvalidValue as invalid:
        raise InvalidValue(invalid.reason, f"ignore, or {invalid.expected}") from None


ANNOTATIONS: Final = (
    Annotation(
        name=RETRY_ATTEMPTS,
        values=f'"0" to "{MOST_ATTEMPTS}"',
        default="0",
        summary=(
            "How many times a request is sent again, each time to another endpoint, if connecting "
            "failed, the connection broke or a try took too long. This is done only if the request "
            "cannot have been processed or has an idempotent method."
        ),
        example='svc.mesh/retry-attempts: "2"',
        limit=Limit(lambda text: parse_integer(text, least=0, most=MOST_ATTEMPTS)),
    ),
    Annotation(
        name=RETRY_ON,
        values=(
            f"{', '.join(CONDITIONS)}, status codes from 400 to 599, and for gRPC {', '.join(BY_WORD)},"
            " with commas between them"
        ),
        default="connect-failure,reset (always in force)",
        summary=(
            "After which responses a request with an idempotent method is sent again as well; and "
            "after which gRPC statuses a gRPC call is sent again, to which the other words and the "
            "status codes do not apply."
        ),
        example="svc.mesh/retry-on: gateway-error,429",
    ),
    Annotation(
        name=RETRY_METHODS,
        values=f"methods in capitals with commas between them, or {ANY_METHOD}",
        default="the idempotent ones: GET, HEAD, OPTIONS, TRACE, PUT, DELETE (always in force)",
        summary=(
            "Further methods whose requests are sent again although an endpoint may have processed them, "
            "because the Service recognises a request that comes twice. It does not apply to gRPC calls."
        ),
        example="svc.mesh/retry-methods: POST,PATCH",
    ),
    Annotation(
        name=RETRY_BUDGET,
        values="PERCENTAGE [min=RATE]; RATE is a number per s, m or h, or 0",
        default="20% min=1/s",
        summary=(
            "How many retries there may be: this share of the requests of the last 10 s, or `min` if "
            "that is more."
        ),
        example="svc.mesh/retry-budget: 10% min=5/s",
        limit=Limit(lambda text: parse_percentage(text, least=0), absent=BUDGET_SHARE),
    ),
    Annotation(
        name=RETRY_BACKOFF,
        values="DURATION [max=DURATION] [retry-after=DURATION|ignore]; all at most 1m",
        default=(
            "the first retry at once, later ones after a random time of up to 25ms, 75ms, 175ms, 250ms; "
            "with a DURATION max is ten times as long; retry-after=1s"
        ),
        summary=(
            "Before each retry, also the first, there is a random wait of up to DURATION, which doubles "
            "with each retry up to `max`. An answer with a Retry-After (gRPC: grpc-retry-pushback-ms) of "
            "more than `retry-after` is not retried; a shorter one is waited for."
        ),
        example="svc.mesh/retry-backoff: 50ms max=1s retry-after=2s",
    ),
    Annotation(
        name=HEDGE,
        values="none, or a PERCENTAGE from 50% to 99.99%",
        default="none",
        summary=(
            "When a request with an idempotent method takes longer than this share of the requests of "
            "the last 10 s took, another endpoint gets it as well, and the client the answer that comes "
            "first. The budget of retries holds for these too."
        ),
        example="svc.mesh/hedge: 95%",
    ),
)
