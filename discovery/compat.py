"""Annotations of another mesh, in ours: what `--compat traefik-mesh` reads. Pure, and never fails.

Traefik Mesh (since 1.4) reads `mesh.traefik.io/*`, and where an option is not given there, the
`maesh.containo.us/*` of its earlier name Maesh (traefik/mesh `pkg/annotations/annotations.go`). A Service
that carries any of them counts as opted in, as if it had `svc.mesh/enabled: "true"`; others stay invisible.
Whatever is annotated below `svc.mesh/` goes before what is translated, `svc.mesh/enabled: "false"` included.

A value that Traefik Mesh would not take is passed on as it is, so that it is judged, reported and replaced by
the last good one where ours are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

import msgspec

from discovery.annotations import ENABLED, PROTOCOL
from discovery.model import ANNOTATION_PREFIX

Compat = Literal["traefik-mesh"]

PREFIXES: Final = ("mesh.traefik.io/", "maesh.containo.us/")
"""The first goes before the second."""
ZONES: Final = ("traefik.mesh", "maesh")
"""The DNS zones of Traefik Mesh and of Maesh."""

RETRY_ATTEMPTS: Final = f"{ANNOTATION_PREFIX}retry-attempts"
CIRCUIT_BREAKER: Final = f"{ANNOTATION_PREFIX}circuit-breaker"
RATE_LIMIT: Final = f"{ANNOTATION_PREFIX}rate-limit"
MOST_RETRIES: Final = 10
"""The most that `svc.mesh/retry-attempts` takes; a test holds it against the middleware."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
"""As Go's `strconv.Atoi` takes it, within an int64."""


class Option(msgspec.Struct, frozen=True):
    """The documentation of one option; `docs/migrate-traefik-mesh.md` shows it."""

    name: str
    """Below either prefix."""
    values: str
    meaning: str
    """There."""
    ours: str
    changes: str
    """What is different here."""


OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        name="traffic-type",
        values="`http`, `tcp` or `udp`; absent: the mode the mesh was installed with, by default `http`",
        meaning="what the Service's ports speak",
        ours="`svc.mesh/protocol: http` or `tcp`",
        changes="absent: each port's `appProtocol`, else the prefix of its name, else http; `udp` has no"
        " equivalent yet: such a Service is not meshed",
    ),
    Option(
        name="scheme",
        values="`http`, `https` or `h2c`; absent: `http`",
        meaning="how the mesh speaks to the endpoints of an http Service",
        ours="`http`: nothing to set; `h2c`: `svc.mesh/protocol: tcp`",
        changes="`h2c` is passed through byte by byte, so HTTP/2 and gRPC work and retry, circuit breaker and"
        " rate limit do not; `https` has no equivalent: rather than send in plain text what was encrypted,"
        " such a Service is not meshed",
    ),
    Option(
        name="retry-attempts",
        values="a number of 1 or more",
        meaning="how often a request is tried in all, if an endpoint does not answer",
        ours="`svc.mesh/retry-attempts`, one less: the tries after the first",
        changes=f"each further try goes to another endpoint, at most {MOST_RETRIES} of them, and only what"
        " cannot have been processed or has an idempotent method is sent again",
    ),
    Option(
        name="circuit-breaker-expression",
        values="an expression of `NetworkErrorRatio()`, `ResponseCodeRatio()`, `LatencyAtQuantileMS()`",
        meaning="when requests are answered with 503 at once",
        ours="`svc.mesh/circuit-breaker`, the same expression",
        changes="the same language, checked before it is in force",
    ),
    Option(
        name="ratelimit-average",
        values="requests per second, 1 or more; needs `ratelimit-burst`",
        meaning="how many requests per second a client address may send through one proxy",
        ours="`svc.mesh/rate-limit: <average>/s burst=<burst> per=source`",
        changes="one annotation in place of two; the node's agent counts",
    ),
    Option(
        name="ratelimit-burst",
        values="requests, 1 or more; needs `ratelimit-average`",
        meaning="how many of them may come at once",
        ours="`burst=` of `svc.mesh/rate-limit`",
        changes="as above",
    ),
)


class Note(msgspec.Struct, frozen=True):
    """What has no equivalent, or not quite the same; the fields are those of `discovery.model.Problem`."""

    annotation: str
    value: str
    reason: str
    expected: str
    effect: str
    severity: Literal["error", "info"] = "error"
    excludes: bool = False
    """The Service must not be meshed, unless its owner says so with `svc.mesh/enabled`."""


class Translation(msgspec.Struct, frozen=True):
    """What a Service's annotations say in ours."""

    annotations: Mapping[str, str]
    """All below `svc.mesh/`: its own, and for the others what was translated."""
    became: Mapping[str, str]
    """Every foreign annotation, by the annotation of ours that it became; empty where it became none."""
    notes: tuple[Note, ...]


class _Given(NamedTuple):
    name: str
    """The full name."""
    value: str


class _Made(NamedTuple):
    name: str
    value: str
    origins: tuple[str, ...]


def is_foreign(name: str) -> bool:
    """Return whether an annotation is one of Traefik Mesh or Maesh."""
    return name.startswith(PREFIXES)


def translate(annotations: Mapping[str, str]) -> Translation:
    """Return annotations of Traefik Mesh, Maesh and our own as our own."""
    own = {name: value for name, value in annotations.items() if name.startswith(ANNOTATION_PREFIX)}
    foreign = {name: annotations[name] for name in sorted(annotations) if is_foreign(name)}
    became = dict.fromkeys(foreign, "")
    if not foreign or own.get(ENABLED) == "false":
        return Translation(own, became, ())
    made: dict[str, str] = {ENABLED: "true"}
    notes: list[Note] = []
    given = _given(foreign)
    for read in _READERS:
        for said in read(given):
            if isinstance(said, Note):
                notes.append(said)
                continue
            made[said.name] = said.value
            if said.name not in own:
                became |= dict.fromkeys(said.origins, said.name)
    notes += _unknown(foreign)
    if ENABLED not in own and any(note.excludes for note in notes):
        return Translation(own, dict.fromkeys(foreign, ""), tuple(note for note in notes if note.excludes))
    return Translation(
        made | own, became, tuple(_overruled(note) if note.excludes else note for note in notes)
    )


def _given(foreign: Mapping[str, str]) -> dict[str, _Given]:
    """Return the options that are given, by their names, from the prefix that goes first."""
    given = {}
    for option in OPTIONS:
        for prefix in PREFIXES:
            name = prefix + option.name
            if name in foreign:
                given[option.name] = _Given(name, foreign[name])
                break
    return given


def _unknown(foreign: Mapping[str, str]) -> Iterator[Note]:
    known = {prefix + option.name for prefix in PREFIXES for option in OPTIONS}
    for name, value in foreign.items():
        if name not in known:
            expected = ", ".join(option.name for option in OPTIONS)
            yield Note(name, value, "is no option of Traefik Mesh", expected, "it is ignored", "info")


def _overruled(note: Note) -> Note:
    return msgspec.structs.replace(note, effect=f"it is ignored: {ENABLED} goes first", severity="info")


def _read_traffic_type(given: Mapping[str, _Given]) -> Iterator[Note | _Made]:
    found = given.get("traffic-type")
    if found is None:
        return
    if found.value == "udp":
        yield Note(
            *found,
            reason="has no equivalent: the mesh carries only TCP yet",
            expected="http or tcp, or clients that use the Service's ordinary name",
            effect="the Service is not meshed",
            excludes=True,
        )
    else:
        yield _Made(PROTOCOL, found.value, (found.name,))


def _read_scheme(given: Mapping[str, _Given]) -> Iterator[Note | _Made]:
    """It has a meaning for http only."""
    found, traffic = given.get("scheme"), given.get("traffic-type")
    if found is None or found.value == "http" or (traffic is not None and traffic.value != "http"):
        return
    if found.value == "h2c":
        yield _Made(PROTOCOL, "tcp", (found.name,))
        reason = "HTTP/2 is passed through as tcp: the mesh does not look into it yet"
        expected = f"http, if the endpoints speak HTTP/1.1 too, or {PROTOCOL}: tcp"
        yield Note(*found, reason, expected, "retry, circuit breaker and rate limit are off", "info")
    elif found.value == "https":
        yield Note(
            *found,
            reason="has no equivalent: the mesh speaks no TLS to endpoints, and must not send in plain text"
            " what was encrypted",
            expected=f"clients that speak https themselves, with {ENABLED}: true and {PROTOCOL}: tcp",
            effect="the Service is not meshed",
            excludes=True,
        )
    else:
        yield Note(*found, "is not a scheme of Traefik Mesh", "http, https or h2c", "it is ignored")


def _read_retry(given: Mapping[str, _Given]) -> Iterator[Note | _Made]:
    found = given.get("retry-attempts")
    if found is None:
        return
    tries = _integer(found.value)
    if tries is None:
        yield _Made(RETRY_ATTEMPTS, found.value, (found.name,))
    elif tries < 1:
        yield Note(*found, "counts all tries, the first one too", "1 or more", "it is ignored")
    else:
        retries = min(tries - 1, MOST_RETRIES)
        yield _Made(RETRY_ATTEMPTS, str(retries), (found.name,))
        if retries < tries - 1:
            reason = f"is more than the {MOST_RETRIES + 1} tries that the mesh makes at most"
            effect = f"{RETRY_ATTEMPTS}={retries} is in force"
            yield Note(*found, reason, f"{MOST_RETRIES + 1} or less", effect, "info")


def _read_circuit_breaker(given: Mapping[str, _Given]) -> Iterator[Note | _Made]:
    found = given.get("circuit-breaker-expression")
    if found is not None:
        yield _Made(CIRCUIT_BREAKER, found.value, (found.name,))


def _read_rate_limit(given: Mapping[str, _Given]) -> Iterator[Note | _Made]:
    """Both or nothing. Clients are told apart by address, as Traefik's rate limit does by default."""
    average, burst = given.get("ratelimit-average"), given.get("ratelimit-burst")
    if average is not None and burst is not None:
        value = f"{_number(average.value)}/s burst={_number(burst.value)} per=source"
        yield _Made(RATE_LIMIT, value, (average.name, burst.name))
        return
    for found, other in ((average, "ratelimit-burst"), (burst, "ratelimit-average")):
        if found is not None:
            reason = f"has no effect without {other}, as in Traefik Mesh"
            yield Note(*found, reason, f"{other} beside it", "it is ignored", "info")


_READERS: tuple[Callable[[Mapping[str, _Given]], Iterator[Note | _Made]], ...] = (
    _read_traffic_type,
    _read_scheme,
    _read_retry,
    _read_circuit_breaker,
    _read_rate_limit,
)
"""In this order: what a later one makes of the same annotation replaces what an earlier one made."""


def _integer(text: str) -> int | None:
    text = text.strip()
    return int(text) if _INTEGER.fullmatch(text) else None


def _number(text: str) -> str:
    """Return a whole number in its plain form, anything else as one word."""
    number = _integer(text)
    return "_".join(text.split()) if number is None else str(number)
