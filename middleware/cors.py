"""`svc.mesh/cors: https://shop.example methods=GET,PUT`: which pages of other origins may use a Service.

As the Fetch standard has it (section 3.3). The mesh answers preflights, and replaces what endpoints say in
the `Access-Control-` fields. CORS is a browser's protection of its user: requests are never refused for their
origin, because a client that is no browser can say what it likes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from middleware.contract import (
    Annotation,
    Asked,
    Context,
    Decision,
    ExchangeError,
    Handler,
    Headers,
    Layer,
    Metric,
    Middleware,
    Problem,
    Reply,
    Request,
    Response,
)
from middleware.values import (
    InvalidValue,
    Seconds,
    parse_annotation,
    parse_choice,
    parse_duration,
    quote,
    split_settings,
)

CORS: Final = "svc.mesh/cors"
PREFLIGHTS: Final = Metric("svcmesh_cors_preflights", "Preflights that the mesh answered, allowed or not.")
LONGEST_VALUE: Final = 4096
MOST_ORIGINS: Final = 64
MOST_NAMES: Final = 64
LONGEST_AGE: Final = 86_400.0
ANY: Final = "*"
DEFAULT_METHODS: Final = ("GET", "HEAD", "POST")

_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]{0,31}://)(\*\.)?([a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])"
    r"(:[0-9]{1,5})?"
)
_LABELS: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*+")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_OF_ENDPOINT: Final = (
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Credentials",
    "Access-Control-Expose-Headers",
)
_CHANGED: Final = frozenset({name.lower() for name in _OF_ENDPOINT} | {"vary"})
_VARY: Final = ("Vary", "Origin")


class Options(msgspec.Struct, frozen=True):
    """Who may do what. Origins are in lower case; `*` alone stands for all."""

    origins: tuple[str, ...]
    methods: tuple[str, ...] = DEFAULT_METHODS
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age: Seconds | None = None


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/cors`."""
    return parse_annotation(annotations, CORS, parse_cors)


def parse_cors(text: str) -> Options:
    """Read origins, and what pages of them may do.

    Raises:
        InvalidValue: it says what is wrong, and why.
    """
    if len(text) > LONGEST_VALUE:
        raise InvalidValue(f"it has {len(text)} characters", f"at most {LONGEST_VALUE}")
    value, given = split_settings(text, ("methods", "headers", "expose", "credentials", "max-age"))
    origins = tuple(dict.fromkeys(value.lower().split(",")))
    if len(origins) > MOST_ORIGINS:
        raise InvalidValue(f"there are {len(origins)} origins", f"at most {MOST_ORIGINS}")
    for origin in origins:
        if origin != ANY and not _ORIGIN.fullmatch(origin):
            raise InvalidValue(
                f"{quote(origin)} is not an origin",
                "origins such as https://shop.example,https://*.shop.example",
            )
    if ANY in origins and len(origins) > 1:
        raise InvalidValue("there are origins beside *", "* alone, or origins alone")
    credentials = parse_choice(given.get("credentials", "false"), ("true", "false")) == "true"
    if credentials and ANY in origins:
        raise InvalidValue(
            "credentials=true with any origin would let every page act for its user", "origins"
        )
    age = given.get("max-age")
    return Options(
        origins,
        _tokens("methods", given["methods"].upper()) if "methods" in given else DEFAULT_METHODS,
        _tokens("headers", given["headers"].lower()) if "headers" in given else (),
        _tokens("expose", given["expose"].lower()) if "expose" in given else (),
        credentials,
        parse_duration(age, most=LONGEST_AGE) if age is not None else None,
    )


def _tokens(name: str, text: str) -> tuple[str, ...]:
    tokens = tuple(dict.fromkeys(text.split(",")))
    for token in tokens:
        # `*` would mean a header of that name where credentials are allowed.
        if not _TOKEN.fullmatch(token) or token == ANY:
            raise InvalidValue(
                f"{quote(token)} is no name for {name}=", f"{name}= and names with commas between"
            )
    if len(tokens) > MOST_NAMES:
        raise InvalidValue(f"{name}= has {len(tokens)} names", f"at most {MOST_NAMES}")
    return tokens


class Cors:
    """What is said to pages of which origin."""

    def __init__(self, options: Options) -> None:
        self._any = options.origins == (ANY,)
        self._exact = frozenset(one for one in options.origins if "*." not in one)
        self._below = tuple(
            (match[1], f".{match[3]}{match[4] or ''}")
            for match in map(_ORIGIN.fullmatch, options.origins)
            if match is not None and match[2]
        )
        self._options = options
        self.varies = not self._any
        """Whether responses depend on the request's origin."""
        self._further: list[tuple[str, str]] = []
        if options.credentials:
            self._further.append(("Access-Control-Allow-Credentials", "true"))
        if options.expose:
            self._further.append(("Access-Control-Expose-Headers", ", ".join(options.expose)))
        self._known = {origin: self._fields(origin) for origin in (None, *self._exact)}
        """What is said to these, which are nearly all."""

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may use the Service."""
        if self._any:
            return True
        origin = origin.lower()
        if origin in self._exact:
            return True
        for scheme, end in self._below:
            name = origin[len(scheme) : -len(end)]
            if origin.startswith(scheme) and origin.endswith(end) and _LABELS.fullmatch(name):
                return True
        return False

    def response_fields(self, origin: str | None) -> tuple[tuple[str, str], ...]:
        """Return the fields of a response to a page of this origin; None: it named none."""
        known = self._known.get(origin)
        return self._fields(origin) if known is None else known

    def _fields(self, origin: str | None) -> tuple[tuple[str, str], ...]:
        fields: list[tuple[str, str]] = []
        if origin is not None and self.allows(origin):
            fields = [("Access-Control-Allow-Origin", ANY if self._any else origin), *self._further]
        return (*fields, _VARY) if self.varies else tuple(fields)

    def preflight(self, origin: str) -> Reply:
        """Return the answer to a preflight."""
        options = self._options
        if not self.allows(origin):
            return Reply(403, [_VARY], b"this origin is not allowed\n", "cors_denied")
        fields = [("Access-Control-Allow-Origin", ANY if self._any else origin)]
        fields.append(("Access-Control-Allow-Methods", ", ".join(options.methods)))
        if options.headers:
            fields.append(("Access-Control-Allow-Headers", ", ".join(options.headers)))
        if options.credentials:
            fields.append(("Access-Control-Allow-Credentials", "true"))
        if options.max_age is not None:
            fields.append(("Access-Control-Max-Age", str(int(options.max_age))))
        if self.varies:
            fields.append(_VARY)
        return Reply(204, fields, reason="cors_preflight")


def asks_as_preflight(request: Asked) -> str | None:
    """Return the origin of a preflight; None: the request is none."""
    origin = request.headers.get("Origin")
    is_preflight = (
        origin is not None
        and request.method == "OPTIONS"
        and request.headers.get("Access-Control-Request-Method") is not None
    )
    return origin if is_preflight else None


def explain(options: Options, asked: Asked) -> Decision:
    """Say what a page of the request's origin may do."""
    policy = Cors(options)
    preflight = asks_as_preflight(asked)
    if preflight is not None:
        reply = policy.preflight(preflight)
        return Decision(
            f"answers the preflight with {reply.status}", reply.status, tuple(reply.headers), reply.reason
        )
    origin = asked.headers.get("Origin")
    if origin is None:
        return Decision("no page asks: there is no Origin")
    return Decision(f"pages of {origin} {'may' if policy.allows(origin) else 'may not'} read the response")


def build(options: Options, context: Context) -> Layer:
    """Return the layer for one port of a Service."""
    policy = Cors(options)
    preflights = context.counter(PREFLIGHTS)

    def layer(handler: Handler) -> Handler:
        async def cors(request: Request) -> Response:
            origin = request.headers.get("Origin")
            if origin is not None and request.method == "OPTIONS" and asks_as_preflight(request):
                preflights(1)
                return policy.preflight(origin)
            try:
                response = await handler(request)
            except ExchangeError as error:
                # Without these a page learns nothing but that something has failed.
                error.headers = (*error.headers, *policy.response_fields(origin))
                raise
            change(response.headers, policy, origin)
            return response

        return cors

    return layer


def change(headers: Headers, policy: Cors, origin: str | None) -> None:
    """Make the fields of a response those of the policy."""
    add, fields = headers.add, policy.response_fields(origin)
    if headers.has_any(_CHANGED):  # hardly ever, and one search for all of them is much cheaper
        for name in _OF_ENDPOINT:
            headers.remove(name)
        said = {one.strip().lower() for field in headers.get_all("Vary") for one in field.split(",")}
        if said & {"*", "origin"}:
            fields = tuple(field for field in fields if field != _VARY)
    for name, value in fields:
        add(name, value)


MIDDLEWARE = Middleware(
    name="cors",
    annotations=(
        Annotation(
            name=CORS,
            values=(
                "* or ORIGIN[,ORIGIN...], then [methods=GET,...] [headers=NAME,...] [expose=NAME,...] "
                "[credentials=true] [max-age=DURATION]"
            ),
            default="the mesh leaves CORS to the endpoints; methods=GET,HEAD,POST",
            summary="Which pages of other origins may use the Service from a browser, and how.",
            example="svc.mesh/cors: https://shop.example,https://*.shop.example methods=GET,PUT max-age=10m",
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    metrics=(PREFLIGHTS,),
    scope="listener",
)
