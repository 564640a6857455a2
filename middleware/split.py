"""`svc.mesh/split: catalog=90 catalog-v2=10`: several Services of the namespace share the requests to one.

Weights are kept by nginx' smooth weighted round robin: exact over each cycle, and as even as can be in it.
Each worker of each node has its own cycle and begins at a random place in it. Otherwise all of them would
send their fiftieth request to a canary of one per cent, and none before.

`svc.mesh/split-by: header x-version` lets a request name its backend. `svc.mesh/split-sticky: 1h` keeps a
client with the backend it was given, by a cookie. Its value is a hash of the names of the Service and the
backend. So it means the same on all nodes, reveals no address, and is ignored once the backend has left.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, cast

import msgspec

from middleware.contract import (
    Annotation,
    AskedHere,
    Context,
    Decision,
    Handler,
    Headers,
    Layer,
    Middleware,
    Problem,
    Request,
    Response,
    check_field,
)
from middleware.cookies import COOKIE_NAME, find_cookie
from middleware.values import (
    InvalidValue,
    Seconds,
    parse_choice,
    parse_duration,
    parse_integer,
    problem,
    quote,
)
from middleware.weights import SmoothWeights

SPLIT: Final = "svc.mesh/split"
SPLIT_BY: Final = "svc.mesh/split-by"
SPLIT_STICKY: Final = "svc.mesh/split-sticky"
MOST_BACKENDS: Final = 32
HEAVIEST: Final = 1_000_000
LONGEST_STAY: Final = 31_536_000.0
"""Seconds: 365 days."""
LONGEST_VALUE: Final = 4096
MOST_SKIPPED: Final = 1000
"""Requests of a cycle that are skipped at the beginning; building a layer must not take long."""

_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


class Backend(msgspec.Struct, frozen=True):
    """A Service of the namespace, maybe the split one itself, and its weight."""

    name: str
    weight: int


class Choice(msgspec.Struct, frozen=True):
    """Where a request may name its backend."""

    place: Literal["header", "cookie"]
    name: str


class Options(msgspec.Struct, frozen=True):
    """The backends and their weights."""

    backends: tuple[Backend, ...]
    by: Choice | None = None
    stay: Seconds | None = None
    """How long a client stays with its backend; 0: as long as the browser runs; None: not at all."""


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/split`, `svc.mesh/split-by` and `svc.mesh/split-sticky`."""
    text, by, sticky = (annotations.get(name) for name in (SPLIT, SPLIT_BY, SPLIT_STICKY))
    if text is None:
        for name, value in ((SPLIT_BY, by), (SPLIT_STICKY, sticky)):
            if value is not None:
                return Problem(
                    name, value, f"has no effect without {SPLIT}", f"{SPLIT}: v1=90 v2=10 beside it"
                )
        return None
    name, value = SPLIT, text
    try:
        backends = parse_backends(text)
        name, value = SPLIT_BY, by or ""
        choice = None if by is None else parse_choice_of_client(by)
        name, value = SPLIT_STICKY, sticky or ""
        stay = None if sticky is None else parse_stay(sticky)
    except InvalidValue as invalid:
        return problem(name, value, invalid)
    return Options(backends, choice, stay)


def parse_backends(text: str) -> tuple[Backend, ...]:
    """Read names and weights.

    Raises:
        InvalidValue: it says which of them is wrong, and why.
    """
    if len(text) > LONGEST_VALUE:
        raise InvalidValue(f"it has {len(text)} characters", f"at most {LONGEST_VALUE}")
    weights: dict[str, int] = {}
    for part in text.split():
        name, equals, weight = part.partition("=")
        if not equals:
            raise InvalidValue(f"{quote(part)} is not name=weight", "SERVICE=WEIGHT, such as v1=90 v2=10")
        if not _LABEL.fullmatch(name):
            raise InvalidValue(
                f"{quote(name)} is not the name of a Service", "the name alone, such as catalog-v2"
            )
        if name in weights:
            raise InvalidValue(f"{name} is given twice", f"{name} once")
        weights[name] = parse_integer(weight, least=0, most=HEAVIEST)
    if len(weights) > MOST_BACKENDS:
        raise InvalidValue(f"there are {len(weights)} backends", f"at most {MOST_BACKENDS}")
    if not any(weights.values()):
        raise InvalidValue("no backend has a weight", "at least one weight above 0, such as v1=90 v2=10")
    return tuple(Backend(name, weight) for name, weight in weights.items())


def parse_choice_of_client(text: str) -> Choice:
    """Read where a request may name its backend.

    Raises:
        InvalidValue: it is neither a header field nor a cookie.
    """
    words = text[:LONGEST_VALUE].split()
    if len(words) != 2:
        raise InvalidValue(f"{quote(text.strip())} is not two words", "header NAME or cookie NAME")
    place = cast("Literal['header', 'cookie']", parse_choice(words[0], ("header", "cookie")))
    name = words[1]
    if place == "cookie" and not COOKIE_NAME.fullmatch(name):
        raise InvalidValue(f"{quote(name)} is not the name of a cookie", "a name such as version")
    if place == "header":
        try:
            check_field(name, "")
        except ValueError as error:
            raise InvalidValue(str(error), "a header field of requests, such as x-version") from None
    return Choice(place, name)


def parse_stay(text: str) -> float | None:
    """Read how long clients stay; `0.0` for as long as the browser runs, None for not at all.

    Raises:
        InvalidValue: it is neither true, false nor a duration.
    """
    if text.strip() in ("true", "false"):
        return 0.0 if text.strip() == "true" else None
    try:
        return parse_duration(text, least=1.0, most=LONGEST_STAY)
    except InvalidValue as invalid:
        raise InvalidValue(invalid.reason, f'"true", "false" or {invalid.expected}') from None


class Cookie:
    """Keeps clients with their backends: the cookie's name is the split Service's, its value a backend's."""

    def __init__(self, service: str, backends: Sequence[str], stay: float) -> None:
        name = f"svcmesh-split-{_digest(service)[:8]}"
        self._find = find_cookie(name)
        self._backends = {_digest(f"{service}/{backend}")[:16]: backend for backend in backends}
        attributes = "Path=/; HttpOnly; SameSite=Lax" + (f"; Max-Age={int(stay)}" if stay else "")
        self._fields = {backend: f"{name}={value}; {attributes}" for value, backend in self._backends.items()}

    def backend(self, headers: Headers) -> str | None:
        """Return the backend that the client was given and that is still one; else None."""
        value = self._find(headers)
        return None if value is None else self._backends.get(value)

    def give(self, headers: Headers, backend: str) -> None:
        """Have the client keep this backend."""
        headers.add("Set-Cookie", self._fields[backend])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def explain(options: Options, asked: AskedHere) -> Decision:
    """Say which Service gets the request, or with which shares it is chosen."""
    names = [backend.name for backend in options.backends]
    own = asked.service.partition("/")[2]
    name = _named_by(options.by)(asked.headers)
    why = f"its {options.by.place} {options.by.name} says so" if options.by is not None else ""
    if name not in names:
        cookie = None if options.stay is None else Cookie(asked.service, names, options.stay)
        name = None if cookie is None else cookie.backend(asked.headers)
        why = "the client's cookie says so"
    if name is not None:
        asked.backend = "" if name == own else name
        return Decision(f"goes to {name}: {why}")
    total = sum(backend.weight for backend in options.backends)
    shown = ", ".join(f"{one.name} {one.weight / total:.2%}" for one in options.backends)
    shares = tuple(
        ("" if one.name == own else one.name, one.weight) for one in options.backends if one.weight
    )
    if len(shares) == 1:
        asked.backend = shares[0][0]
    return Decision(f"chooses by weight, of all requests: {shown}", shares=shares)


def build(options: Options, context: Context, *, fraction: Callable[[], float] = random.random) -> Layer:
    """Return the layer for one port of a Service; tests give `fraction`."""
    names = [backend.name for backend in options.backends]
    weights = SmoothWeights([backend.weight for backend in options.backends])
    for _ in range(int(fraction() * min(weights.cycle, MOST_SKIPPED))):
        weights.pick()
    cookie = None if options.stay is None else Cookie(context.service, names, options.stay)
    named = _named_by(options.by)
    own = context.service.partition("/")[2]
    targets = {name: "" if name == own else name for name in names}

    def layer(handler: Handler) -> Handler:
        async def split(request: Request) -> Response:
            headers = request.headers
            name = named(headers)
            given = False
            if name not in targets:
                name = None if cookie is None else cookie.backend(headers)
                if name is None:
                    name = names[weights.pick()]
                    given = cookie is not None
            request.backend = targets[name]
            response = await handler(request)
            # A client does not stay with a backend that fails: its next request gets a new one.
            if given and cookie is not None and response.status < 500:
                cookie.give(response.headers, name)
            return response

        return split

    return layer


def _named_by(choice: Choice | None) -> Callable[[Headers], str | None]:
    if choice is None:
        return lambda _headers: None
    if choice.place == "cookie":
        return find_cookie(choice.name)
    field = choice.name
    return lambda headers: headers.get(field)


MIDDLEWARE = Middleware(
    name="split",
    annotations=(
        Annotation(
            name=SPLIT,
            values=f"SERVICE=WEIGHT, up to {MOST_BACKENDS} times; weights from 0 to {HEAVIEST}",
            default="all goes to the Service itself",
            summary=(
                "Which Services of the namespace get the requests; each gets exactly its share. The "
                "Service itself gets requests only if it is named."
            ),
            example="svc.mesh/split: catalog=90 catalog-v2=10",
            individual=True,
        ),
        Annotation(
            name=SPLIT_BY,
            values="header NAME or cookie NAME",
            default="weights alone",
            summary="The header or cookie in which a request may name the backend that it is for.",
            example="svc.mesh/split-by: header x-version",
            individual=True,
        ),
        Annotation(
            name=SPLIT_STICKY,
            values='"true", "false" or a duration from 1s to 8760h',
            default='"false"',
            summary=(
                "Whether a client stays with the backend that it was given: as long as its browser runs, "
                "or for this long. This sets a cookie."
            ),
            example="svc.mesh/split-sticky: 1h",
            individual=True,
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    backends=lambda options: tuple(backend.name for backend in options.backends),
)
