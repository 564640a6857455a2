"""From annotations of Traefik Mesh to our own.

Traefik Mesh (since 1.4) reads `mesh.traefik.io/*`, and where an option is not given there, the
`maesh.containo.us/*` of its earlier name Maesh (traefik/mesh `pkg/annotations/annotations.go`). A Service
that carries any of them counts as opted in, as if it had `svc.mesh/enabled: "true"`; others stay invisible.
An annotation below `svc.mesh/` takes precedence over what is translated, also `svc.mesh/enabled: "false"`.

Every value is judged here, as its owner wrote it, except those that are the same in ours: a protocol and an
expression are passed on and judged where ours are. What cannot be read is no reason to give up what was in
force, so it is kept as `Unread` for the plan, which knows what was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from discovery.annotations import ENABLED, PROTOCOL
from discovery.compat.encryption import encryption_notes
from discovery.compat.note import NOT_MESHED, Note
from discovery.compat.options import (
    CIRCUIT_BREAKER,
    FASTEST,
    LARGEST_BURST,
    MOST_RETRIES,
    OPTIONS,
    PREFIXES,
    RATE_LIMIT,
    RETRY_ATTEMPTS,
    is_foreign,
    option_of,
)
from discovery.model import ANNOTATION_PREFIX, Unread

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
"""A number as Go's `strconv.Atoi` reads it: an int64, or almost."""
_NOTHING: Final[Mapping[str, str]] = {}


class Translation(msgspec.Struct, frozen=True):
    """A Service's annotations, translated into ours."""

    annotations: Mapping[str, str]
    """All below `svc.mesh/`: its own, and for the others what was translated."""
    origins: Mapping[str, tuple[str, ...]] = {}
    """For each of `annotations` that was translated, the names of those that it was made of."""
    notes: tuple[Note, ...] = ()
    unread: tuple[Unread, ...] = ()


class _Given(NamedTuple):
    name: str
    """The full name."""
    value: str


class _Made(NamedTuple):
    name: str
    value: str
    origins: tuple[str, ...]


class _Remark(NamedTuple):
    """A note on how a value was translated; not needed where the owner has an annotation of ours."""

    ours: str
    note: Note


_Said = Note | _Made | _Remark | Unread


def translate(annotations: Mapping[str, str], unreadable: Mapping[str, str] = _NOTHING) -> Translation:
    """Return annotations of Traefik Mesh, Maesh and our own as our own.

    `unreadable` are those whose values are no strings, with what stands there; they are reported already.
    """
    own = {name: value for name, value in annotations.items() if name.startswith(ANNOTATION_PREFIX)}
    foreign = {name: annotations[name] for name in sorted(annotations) if is_foreign(name)}
    if not foreign or own.get(ENABLED) == "false":
        return Translation(own)
    given = _given(foreign)
    said = [one for read in _READERS for one in read(given)]
    notes = [one for one in said if isinstance(one, Note)]
    notes += encryption_notes({**foreign, **{name: unreadable[name] for name in sorted(unreadable)}}, own)
    if own.get(ENABLED) != "true" and any(note.excludes for note in notes):
        return _exclude(own, [note for note in notes if note.excludes])
    # Several may be made of one: the last said is in force.
    made = {one.name: one for one in said if isinstance(one, _Made) and one.name not in own}
    notes = [_overruled(note) if note.excludes else note for note in notes]
    notes += (one.note for one in said if isinstance(one, _Remark) and one.ours not in own)
    notes += _unknown(foreign, {note.annotation for note in notes})
    return Translation(
        {ENABLED: "true", **{name: one.value for name, one in made.items()}, **own},
        {name: one.origins for name, one in made.items()},
        tuple(notes),
        tuple(one for one in said if isinstance(one, Unread) and one.ours not in own),
    )


def _exclude(own: Mapping[str, str], notes: list[Note]) -> Translation:
    """Return the annotations of a Service that must stay out: without the one that asks for the mesh."""
    kept = {name: value for name, value in own.items() if name != ENABLED}
    if ENABLED in own:
        reason, expected = "is neither true nor false", '"true" to have the Service in the mesh nevertheless'
        notes = [*notes, Note(ENABLED, own[ENABLED], reason, expected, NOT_MESHED)]
    return Translation(kept, notes=tuple(notes))


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


def _unknown(foreign: Mapping[str, str], noted: set[str]) -> Iterator[Note]:
    known = [option.name for option in OPTIONS]
    for name, value in foreign.items():
        if option_of(name) not in known and name not in noted:
            yield Note(
                name, value, "is not an option of Traefik Mesh", ", ".join(known), "it is ignored", "info"
            )


def _overruled(note: Note) -> Note:
    return msgspec.structs.replace(note, effect=f"it is ignored: {ENABLED} goes first", severity="info")


def _read_traffic_type(given: Mapping[str, _Given]) -> Iterator[_Said]:
    found = given.get("traffic-type")
    if found is None:
        return
    if found.value == "udp":
        yield Note(
            *found,
            reason="has no equivalent: the mesh does not carry UDP and SCTP yet",
            expected="http or tcp, or clients that use the Service's ordinary name",
            effect=NOT_MESHED,
            excludes=True,
        )
    else:
        yield _Made(PROTOCOL, found.value, (found.name,))


def _read_scheme(given: Mapping[str, _Given]) -> Iterator[_Said]:
    """It has a meaning for http only. What it says of encryption is judged by `encryption_notes`."""
    found, traffic = given.get("scheme"), given.get("traffic-type")
    if found is None or found.value != "h2c" or (traffic is not None and traffic.value != "http"):
        return
    yield _Made(PROTOCOL, "h2c", (found.name,))


def _read_retry(given: Mapping[str, _Given]) -> Iterator[_Said]:
    found = given.get("retry-attempts")
    if found is None:
        return
    tries = _read_count(found, RETRY_ATTEMPTS, "tries in all, 1 or more, such as 3")
    if isinstance(tries, Unread):
        yield tries
        return
    retries = min(tries - 1, MOST_RETRIES)
    yield _Made(RETRY_ATTEMPTS, str(retries), (found.name,))
    if retries < tries - 1:
        reason = f"is more than the {MOST_RETRIES + 1} tries that the mesh makes at most"
        effect = f"{RETRY_ATTEMPTS}={retries} is in force"
        yield _Remark(RETRY_ATTEMPTS, Note(*found, reason, f"{MOST_RETRIES + 1} or less", effect, "info"))


def _read_circuit_breaker(given: Mapping[str, _Given]) -> Iterator[_Said]:
    found = given.get("circuit-breaker-expression")
    if found is not None:
        yield _Made(CIRCUIT_BREAKER, found.value, (found.name,))


def _read_rate_limit(given: Mapping[str, _Given]) -> Iterator[_Said]:
    """Both or nothing. Clients are told apart by address, as Traefik's rate limit does by default."""
    average, burst = given.get("ratelimit-average"), given.get("ratelimit-burst")
    if average is not None and burst is not None:
        yield from _rate_limit(average, burst)
        return
    for found, other in ((average, "ratelimit-burst"), (burst, "ratelimit-average")):
        if found is not None:
            reason = f"has no effect without {other}, as in Traefik Mesh"
            note = Note(*found, reason, f"{other} beside it", "it is ignored", "info")
            yield _Remark(RATE_LIMIT, note)


def _rate_limit(average: _Given, burst: _Given) -> Iterator[_Said]:
    rate = _read_count(average, RATE_LIMIT, "requests per second, 1 or more, such as 100")
    size = _read_count(burst, RATE_LIMIT, "requests that may come at once, 1 or more, such as 200")
    if isinstance(rate, Unread) or isinstance(size, Unread):
        yield from (one for one in (rate, size) if isinstance(one, Unread))
        return
    value = f"{min(rate, FASTEST)}/s burst={min(size, LARGEST_BURST)} per=source"
    yield _Made(RATE_LIMIT, value, (average.name, burst.name))
    for found, number, most in ((average, rate, FASTEST), (burst, size, LARGEST_BURST)):
        if number > most:
            effect = f"{RATE_LIMIT}={value} is in force"
            note = Note(*found, f"is more than the mesh counts: {most}", f"{most} or less", effect, "info")
            yield _Remark(RATE_LIMIT, note)


_READERS: tuple[Callable[[Mapping[str, _Given]], Iterator[_Said]], ...] = (
    _read_traffic_type,
    _read_scheme,
    _read_retry,
    _read_circuit_breaker,
    _read_rate_limit,
)
"""In this order: what a later one makes of the same annotation replaces what an earlier one made."""


def _read_count(found: _Given, ours: str, expected: str) -> int | Unread:
    """Read a whole number of 1 or more; any other value is kept for the plan."""
    text = found.value.strip()
    if not _INTEGER.fullmatch(text):
        return Unread(*found, reason="is not a whole number", expected=expected, ours=ours)
    if int(text) < 1:
        return Unread(*found, reason="is less than 1", expected=expected, ours=ours)
    return int(text)
