"""`svc.mesh/redirect: 308 scheme=https host=shop.example`: send clients to another URL.

What is not given stays as the client asked for it, the query always. A request that is where it would be sent
to passes, so that no redirect leads to itself.
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
    Handler,
    Layer,
    Metric,
    Middleware,
    Problem,
    Reply,
    Request,
    Response,
)
from middleware.paths import PATH, PREFIX, has_prefix
from middleware.values import (
    InvalidValue,
    parse_annotation,
    parse_choice,
    parse_integer,
    quote,
    split_settings,
)

REDIRECT: Final = "svc.mesh/redirect"
REDIRECTED: Final = Metric("svcmesh_redirects", "Requests that were answered with a redirect.")
STATUSES: Final = ("301", "302", "303", "307", "308")
LONGEST_VALUE: Final = 4096
REASON: Final = "redirected"
DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")
_PORT_OF_HOST: Final = re.compile(r":[0-9]*\Z")


class Options(msgspec.Struct, frozen=True):
    """What of the URL is replaced; empty and 0 stand for what the client asked for."""

    status: int
    scheme: str = ""
    host: str = ""
    port: int = 0
    prefix: str = ""
    """Only paths that begin with these segments are redirected, and `path` replaces them alone."""
    path: str = ""


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/redirect`."""
    return parse_annotation(annotations, REDIRECT, parse_redirect)


def parse_redirect(text: str) -> Options:
    """Read a status, and what of the URL is replaced.

    Raises:
        InvalidValue: it says what is wrong, and why.
    """
    if len(text) > LONGEST_VALUE:
        raise InvalidValue(f"it has {len(text)} characters", f"at most {LONGEST_VALUE}")
    status, given = split_settings(text, ("scheme", "host", "port", "prefix", "path"))
    code = int(parse_choice(status, STATUSES))
    if not given.keys() & {"scheme", "host", "port", "path"}:
        raise InvalidValue(
            "nothing of the URL is replaced", "scheme=, host=, port= or path= after the status"
        )
    host = given.get("host", "")
    if "host" in given and not _HOST.fullmatch(host):
        raise InvalidValue(f"{quote(host)} is not a host", "a name or address; a port is given by port=")
    path, prefix = given.get("path", ""), given.get("prefix", "")
    if "path" in given and not PATH.fullmatch(path):
        raise InvalidValue(f"{quote(path)} is not a path", "a path such as /new, without a query")
    if "prefix" in given and ("path" not in given or not PREFIX.fullmatch(prefix) or not prefix.strip("/")):
        raise InvalidValue(f"prefix={quote(prefix)} cannot be replaced", "prefix=/old path=/new")
    return Options(
        code,
        parse_choice(given["scheme"], ("http", "https")) if "scheme" in given else "",
        host,
        parse_integer(given["port"], least=1, most=65535) if "port" in given else 0,
        prefix.rstrip("/"),
        path,
    )


class Redirect:
    """Where requests are sent."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._scheme = options.scheme or "http"
        self._port = f":{options.port}" if options.port else ""
        if self._port == DEFAULT_PORTS[self._scheme]:
            self._port = ""

    def location(self, host: str, target: str) -> str | None:
        """Return the URL for a request to this host and target; None: it passes."""
        options = self._options
        path, question, query = target.partition("?")
        if path == "*" or (options.prefix and not has_prefix(path, options.prefix)):
            return None
        if options.prefix:
            path = options.path.rstrip("/") + path[len(options.prefix) :] or "/"
        elif options.path:
            path = options.path
        asked = f"http://{host.lower().removesuffix(':80')}{target}"
        name = options.host
        if not name:
            # Where another scheme or port is asked for, the client's own port means nothing.
            name = _PORT_OF_HOST.sub("", host) if options.port or options.scheme == "https" else host
        url = f"{self._scheme}://{name.lower().removesuffix(':80')}{self._port}{path}{question}{query}"
        return None if url == asked else url


def location_for(policy: Redirect, request: Asked) -> str | None:
    """Return where a request is sent; None: it passes."""
    host = request.headers.get("Host")
    return policy.location(host, request.target) if host and not request.grpc else None


def explain(options: Options, asked: Asked) -> Decision:
    """Say where the request is sent."""
    location = location_for(Redirect(options), asked)
    if location is None:
        return Decision("it passes: a gRPC call" if asked.grpc else "it passes: this URL is not redirected")
    says = f"answers {options.status} with Location: {location}"
    return Decision(says, options.status, (("Location", location),), REASON)


def build(options: Options, context: Context) -> Layer:
    """Return the layer for one port of a Service."""
    policy = Redirect(options)
    redirected = context.counter(REDIRECTED)

    def layer(handler: Handler) -> Handler:
        async def redirect(request: Request) -> Response:
            location = location_for(policy, request)
            if location is None:
                return await handler(request)
            redirected(1)
            return Reply(options.status, [("Location", location)], reason=REASON)

        return redirect

    return layer


MIDDLEWARE = Middleware(
    name="redirect",
    annotations=(
        Annotation(
            name=REDIRECT,
            values=(
                "301, 302, 303, 307 or 308, and what is replaced: [scheme=http|https] [host=NAME] [port=N] "
                "[[prefix=/OLD] path=/NEW]"
            ),
            default="no redirect; what is not given stays as the client asked for it",
            summary=(
                "Which status and URL clients are answered with. With prefix, only paths that begin with "
                "it, and path replaces it alone."
            ),
            example="svc.mesh/redirect: 308 scheme=https host=shop.example",
            individual=True,
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    metrics=(REDIRECTED,),
)
