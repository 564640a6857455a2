"""`svc.mesh/request-headers: set x-env=prod; remove x-internal`: change the header fields of requests and
responses.

`svc.mesh/response-headers` does the same to responses. An operation is `set NAME=VALUE`, `add NAME=VALUE` or
`remove NAME`; they are done in order, and stand on lines of their own or with `;` between them. There is `=`
and not `:` in them because `: ` ends a plain scalar in YAML.

`svc.mesh/forwarded-headers: x-forwarded` tells endpoints what the client asked for. As in Traefik 2.8, what
the client itself says in these fields is replaced, because no client is trusted by default: Traefik deletes
these fields unless the peer's address is in `trustedIPs` or the entry point is `insecure`, and then adds
those that are absent. Traefik Mesh runs its entry points `insecure`, which is `x-forwarded keep` here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, cast

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
from middleware.values import InvalidValue, parse_choice, problem, quote

REQUEST_HEADERS: Final = "svc.mesh/request-headers"
RESPONSE_HEADERS: Final = "svc.mesh/response-headers"
FORWARDED_HEADERS: Final = "svc.mesh/forwarded-headers"
MOST_OPERATIONS: Final = 32
LONGEST_VALUE: Final = 4096
"""Characters of an annotation."""

Verb = Literal["set", "add", "remove"]
Forwarded = Literal["", "x-forwarded", "x-forwarded keep"]

_PIECE: Final = re.compile(
    r"(?P<words>[^=;\n]*+)"
    r'(?P<value>=[ \t]*+(?:"(?P<quoted>(?:[^"\\\n]|\\["\\])*+)"[ \t\r]*+(?=[;\n]|\Z)|(?P<plain>[^;\n]*+)))?+'
    r"(?:[;\n]|\Z)"
)
"""One operation and what ends it; matches anything."""
_ESCAPE: Final = re.compile(r'\\(["\\])')
_AUTHORITY: Final = re.compile(r"(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class Operation(msgspec.Struct, frozen=True):
    """One change of a head."""

    verb: Verb
    name: str
    value: str = ""


class Options(msgspec.Struct, frozen=True):
    """What to change, in order."""

    request: tuple[Operation, ...] = ()
    response: tuple[Operation, ...] = ()
    forwarded: Forwarded = ""


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/request-headers`, `svc.mesh/response-headers` and `svc.mesh/forwarded-headers`."""
    settings: dict[str, Any] = {}
    for name, (setting, read) in READERS.items():
        text = annotations.get(name)
        if text is not None:
            try:
                settings[setting] = read(text)
            except InvalidValue as invalid:
                return problem(name, text, invalid)
    return Options(**settings) if settings else None


def parse_forwarded(text: str) -> Forwarded:
    """Read whether to add the `X-Forwarded-` fields, and what to do with those that are there.

    Raises:
        InvalidValue: it is neither of the two.
    """
    words = " ".join(text[:LONGEST_VALUE].split())
    return cast("Forwarded", parse_choice(words, ("x-forwarded", "x-forwarded keep")))


def parse_operations(text: str, *, of_request: bool) -> tuple[Operation, ...]:
    """Read the operations on the heads of requests, or of responses.

    Raises:
        InvalidValue: it says which operation is wrong, and why.
    """
    if len(text) > LONGEST_VALUE:
        raise InvalidValue(f"it has {len(text)} characters", f"at most {LONGEST_VALUE}")
    operations = []
    at = 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        assert piece is not None
        at = piece.end()
        if piece["words"].strip() or piece["value"]:
            operations.append(_operation(piece, of_request))
    if not operations:
        raise InvalidValue("it contains no operation", "set NAME=VALUE, add NAME=VALUE or remove NAME")
    if len(operations) > MOST_OPERATIONS:
        raise InvalidValue(f"there are {len(operations)} operations", f"at most {MOST_OPERATIONS}")
    return tuple(operations)


def _operation(piece: re.Match[str], of_request: bool) -> Operation:
    verb, *names = piece["words"].split() or [""]
    verb = cast(
        "Verb", parse_choice(verb, ("set", "add", "remove"), also=" at the beginning of an operation")
    )
    shape = "remove NAME" if verb == "remove" else f"{verb} NAME=VALUE, such as {verb} x-env=prod"
    if len(names) != 1 or (piece["value"] is None) != (verb == "remove"):
        raise InvalidValue(f"{quote(piece[0].strip())} is not a complete operation", shape)
    name = names[0]
    value = "" if verb == "remove" else _value(piece)
    try:
        check_field(name, value)
    except ValueError as error:
        raise InvalidValue(str(error), shape) from None
    if of_request and name.lower() == "host":
        _check_host(verb, value)
    if of_request and name.lower() == "x-forwarded-for":
        raise InvalidValue(f"{name} is set by the mesh alone: it names the client", "a field of another name")
    return Operation(verb, name, value)


def _value(piece: re.Match[str]) -> str:
    if piece["quoted"] is not None:
        return _ESCAPE.sub(r"\1", piece["quoted"])
    value = piece["plain"].strip()
    if value.startswith('"'):
        raise InvalidValue(
            f"the quotes of {quote(value)} are not closed, or something follows them",
            '"..." to the end of the operation, with \\" and \\\\ for quotes and backslashes in it',
        )
    if not value:
        raise InvalidValue(f"{quote(piece[0].strip())} has no value", 'a value, or "" for an empty one')
    return value


def _check_host(verb: Verb, value: str) -> None:
    if verb != "set":
        raise InvalidValue(f"{verb} host is not possible: a request has exactly one host", "set host=NAME")
    if not _AUTHORITY.fullmatch(value):
        raise InvalidValue(f"{quote(value)} is not a host", "a name or address, and :PORT if need be")


READERS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    REQUEST_HEADERS: ("request", functools.partial(parse_operations, of_request=True)),
    RESPONSE_HEADERS: ("response", functools.partial(parse_operations, of_request=False)),
    FORWARDED_HEADERS: ("forwarded", parse_forwarded),
}
"""For each annotation the option it sets, and what reads it."""


def change(headers: Headers, operations: Sequence[tuple[Verb, str, str]]) -> None:
    """Do the operations on a head, in order."""
    for verb, name, value in operations:
        if verb == "set":
            headers.set(name, value)
        elif verb == "add":
            headers.add(name, value)
        else:
            headers.remove(name)


def forward(headers: Headers, port: str, keep: bool) -> None:
    """Say how the client sent the request; with `keep`, do not replace what the client says."""
    told = (
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", headers.get("Host")),
        ("X-Forwarded-Port", port),
    )
    for name, value in told:
        if keep and headers.get(name) is not None:
            continue
        if value:
            headers.set(name, value)
        else:
            headers.remove(name)


def explain(options: Options, asked: AskedHere) -> Decision:
    """Say which fields are changed, and change those of the request."""
    said = []
    if options.forwarded:
        forward(asked.headers, str(asked.port), options.forwarded == "x-forwarded keep")
        said.append("tells X-Forwarded-Proto, -Host and -Port")
    change(asked.headers, tuple((one.verb, one.name, one.value) for one in options.request))
    said += [f"request: {_shown(one)}" for one in options.request]
    said += [f"response: {_shown(one)}" for one in options.response]
    return Decision("; ".join(said))


def _shown(one: Operation) -> str:
    return f"remove {one.name}" if one.verb == "remove" else f"{one.verb} {one.name}={one.value}"


def build(options: Options, context: Context) -> Layer:
    """Return the layer for one port of a Service."""
    of_request = tuple((o.verb, o.name, o.value) for o in options.request)
    of_response = tuple((o.verb, o.name, o.value) for o in options.response)
    forwarded, keep = bool(options.forwarded), options.forwarded == "x-forwarded keep"
    port = str(context.port)

    def layer(handler: Handler) -> Handler:
        async def change_headers(request: Request) -> Response:
            if forwarded:
                forward(request.headers, port, keep)
            if of_request:
                change(request.headers, of_request)
            response = await handler(request)
            if of_response:
                change(response.headers, of_response)
            return response

        return change_headers

    return layer


_OPERATIONS: Final = (
    f"set NAME=VALUE, add NAME=VALUE and remove NAME, on lines of their own or with ; between them, at most"
    f" {MOST_OPERATIONS}"
)

MIDDLEWARE = Middleware(
    name="headers",
    annotations=(
        Annotation(
            name=REQUEST_HEADERS,
            values=_OPERATIONS,
            default="no change",
            summary="How the header fields of requests are changed on their way to an endpoint.",
            example="svc.mesh/request-headers: set x-env=prod; add via-mesh=yes; remove x-internal",
        ),
        Annotation(
            name=RESPONSE_HEADERS,
            values=_OPERATIONS,
            default="no change",
            summary="How the header fields of responses are changed on their way to the client.",
            example='svc.mesh/response-headers: set strict-transport-security="max-age=600; preload"',
        ),
        Annotation(
            name=FORWARDED_HEADERS,
            values="x-forwarded or x-forwarded keep",
            default="X-Forwarded-For alone",
            summary=(
                "Adds X-Forwarded-Proto, X-Forwarded-Host and X-Forwarded-Port to requests, in place of what"
                " the client says there or, with keep, where it says nothing."
            ),
            example="svc.mesh/forwarded-headers: x-forwarded",
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
)
