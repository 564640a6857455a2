"""A request from its URL to the head that layers and rules see, by the parser of the data path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from nodeagent.explain.model import Question, Unexplained
from nodeagent.proxy.http1.head import parse_request
from nodeagent.proxy.http2.field import Field
from nodeagent.proxy.http2.grpc_timeout import parse_timeout
from nodeagent.proxy.http2.shapes import RequestShape
from nodeagent.proxy.message import (
    COUNTED_METHODS,
    NO_BODY,
    UNTIL_CLOSE,
    Fields,
    GrpcRequestHead,
    HeadError,
    RequestHead,
    TimedRequestHead,
    check_target,
    count_forward,
)

DEFAULT_PORTS = {"http": 80, "https": 443, "tcp": 0}
LONGEST_URL = 4096
MALFORMED = 400
"""Over HTTP/2, faults with this status break the stream off and get no answer."""
_GRPC = re.compile(r"application/grpc(?:[+;].*)?", re.IGNORECASE)
"""Of a call, which comes over HTTP/2; not `application/grpc-web`."""


class Url(msgspec.Struct, frozen=True):
    """The parts of a URL that decide."""

    scheme: str
    host: str
    port: int
    authority: str
    target: str


def read_url(text: str) -> Url:
    """Read a URL; without a scheme it is one of http.

    Raises:
        Unexplained: it is none.
    """
    if len(text) > LONGEST_URL:
        raise Unexplained(f"the URL has {len(text)} characters, of at most {LONGEST_URL}")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError as error:
        raise Unexplained(f"{text[:80]!r} is no URL: {error}") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise Unexplained(f"{parts.scheme}:// is none of http://, https:// and tcp://")
    if not parts.hostname:
        raise Unexplained(f"{text[:80]!r} names no host, as http://catalog.shop.svc.mesh/ does")
    if port is None and not (port := DEFAULT_PORTS[parts.scheme]):
        raise Unexplained("a tcp:// URL needs a port")
    query = f"?{parts.query}" if parts.query else ""
    authority = parts.netloc.rpartition("@")[2]
    return Url(parts.scheme, parts.hostname, port, authority, f"{parts.path or '/'}{query}")


def read_head(question: Question, url: Url) -> RequestHead:
    """Return the head as the mesh reads it: a gRPC call over HTTP/2, all else over HTTP/1.1.

    Raises:
        HeadError: the mesh refuses such a request.
        Unexplained: no HTTP request looks like this, or the mesh breaks it off without an answer.
    """
    fields = question.fields
    if all(name.lower() != "host" for name, _ in fields):
        fields = (("Host", url.authority), *fields)
    try:
        if any(name.lower() == "content-type" and _GRPC.fullmatch(value) for name, value in fields):
            return _read_call(question.method, url.target, fields)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        data = f"{question.method} {url.target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise Unexplained("the URL and the fields have characters that HTTP does not carry") from None
    head = parse_request(data)
    if head is None or head.end != len(data):
        raise Unexplained("the mesh answers 400: that is no HTTP request; encode spaces and the like with %")
    return head


def _read_call(method: str, target: str, fields: Sequence[tuple[str, str]]) -> RequestHead:
    """Return the head of a gRPC call, whose body follows: of its fields, judged as those of HTTP/2 are.

    The decoder of header blocks is not used: it needs a library that `meshctl` may have to do without.
    """
    host = next(value for name, value in fields if name.lower() == "host")
    pseudo = ((":method", method), (":scheme", "http"), (":path", target), (":authority", host))
    others = tuple((name.lower(), value) for name, value in fields if name.lower() != "host")
    found = [Field(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*pseudo, *others)]
    shape = RequestShape(bytes(one.kind for one in found))
    fault = next((one.fault for one in found if one.fault is not None), shape.fault)
    if fault is not None:
        raise _broken_off(fault[1])
    lines = found[shape.host].line + b"".join(found[place].line for place in shape.kept)
    if shape.cookies:
        lines += b"cookie: %b\r\n" % b"; ".join(found[place].value for place in shape.cookies)
    if found[shape.method].value in COUNTED_METHODS:
        try:
            lines = count_forward(lines)
        except HeadError as error:
            if error.status != MALFORMED:
                raise
            raise _broken_off(error.detail) from None
    parts = (found[shape.method].value, found[shape.target].value, b"1", lines, 0)
    if shape.timeout < 0:
        head: RequestHead = GrpcRequestHead(*parts)
    else:
        head = TimedRequestHead(parse_timeout(found[shape.timeout].value), *parts)
    head.length = UNTIL_CLOSE
    return head


def _broken_off(detail: str) -> Unexplained:
    return Unexplained(f"the mesh breaks such a call off, with RST_STREAM and no answer: {detail}")


class AskedRequest:
    """The request while it is explained. Implements `middleware.contract.AskedHere`.

    `candidates` are the backends among which it goes, by name, with their weights.
    """

    def __init__(self, head: RequestHead, service: str, port: int, source: str, workload: str) -> None:
        self.head = head
        self.service = service
        self.port = port
        self.source = source
        self.workload = workload
        self.candidates: tuple[tuple[str, int], ...] = (("", 1),)

    @property
    def method(self) -> str:
        """The method."""
        return self.head.method.decode("ascii")

    @method.setter
    def method(self, method: str) -> None:
        self.head.method = method.encode("ascii")

    @property
    def target(self) -> str:
        """The request target in origin form."""
        return self.head.target.decode("ascii")

    @target.setter
    def target(self, target: str) -> None:
        self.head.target = check_target(target)

    @property
    def backend(self) -> str:
        """The Service that it goes to, by name; empty: the one that was asked."""
        return self.candidates[0][0]

    @backend.setter
    def backend(self, name: str) -> None:
        self.candidates = ((name, 1),)

    @property
    def headers(self) -> Fields:
        """The end-to-end header fields."""
        return Fields(self.head)

    @property
    def grpc(self) -> bool:
        """Whether it is a gRPC call."""
        return self.head.grpc

    @property
    def head_only(self) -> bool:
        """Whether there is neither a body nor a change of protocols."""
        return self.head.length == NO_BODY and not self.head.upgrade

    def copy(self) -> AskedRequest:
        """Return the same request, to be changed apart."""
        head = self.head
        parts = (head.method, head.target, head.minor, head.fields, head.end)
        same = (
            TimedRequestHead(head.timeout, *parts)
            if isinstance(head, TimedRequestHead)
            else type(head)(*parts)
        )
        same.length, same.upgrade = head.length, head.upgrade
        other = AskedRequest(same, self.service, self.port, self.source, self.workload)
        other.candidates = self.candidates
        return other
