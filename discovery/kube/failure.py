"""What can go wrong between a reflector and the API server, as values.

A failed response carries a `Status` object (Kubernetes API conventions, "Response Status Kind"), unless
something between us and the server answered instead; then only the status code is known.
"""

from __future__ import annotations

from typing import Literal

import msgspec

FailureKind = Literal[
    "connect",  # no connection: refused, no route, name unknown, TLS
    "cut",  # the connection ended before the response did
    "timeout",  # no answer in time, or a watch that fell silent
    "credentials",  # none to send: the token file or the plugin failed
    "unauthorized",  # 401: the credentials are not accepted
    "forbidden",  # 403: RBAC says no
    "throttled",  # 429
    "expired",  # 410, or a version the server does not know: only a new list helps
    "refused",  # any other 3xx and 4xx
    "server_error",  # 5xx
    "malformed",  # not an answer of the API: HTML, half a document, another kind
]

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding may raise for bytes that are not JSON, including bytes that are not text and lists nested too
deeply."""

REASON_LENGTH = 300
RETRY_AFTER_LIMIT = 300.0
"""Seconds; a server that asks for more is not obeyed."""


class Failure(msgspec.Struct, frozen=True):
    """Why an attempt brought nothing: a stable word for logs and metrics, and a sentence for people."""

    kind: FailureKind
    reason: str
    retry_after: float = 0.0
    """Seconds the server asks us to stay away."""
    status: int = 0
    """Of the response, where there was one."""


class ApiError(Exception):
    """An attempt to list or watch failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class _Cause(msgspec.Struct, frozen=True):
    reason: str = ""


class _Details(msgspec.Struct, frozen=True, rename="camel"):
    causes: list[_Cause] | None = None
    retry_after_seconds: float = 0.0


class _Status(msgspec.Struct, frozen=True):
    kind: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details | None = None


_status_decoder = msgspec.json.Decoder(_Status)


def read_failure(status: int, body: bytes, *, content_type: str = "", retry_after: str = "") -> Failure:
    """Say what a response with this status code, body and headers means (`status` is 300 to 599).

    The same serves the `object` of a watch's ERROR event, whose code is in the document: give status 0.
    """
    document = _read_status(body)
    code = document.code or status if document else status
    if document is None:
        shown = body[:80].decode("utf-8", "replace").strip()
        reason = f"status {status}, and {content_type or 'a body'} instead of a Kubernetes Status: {shown!r}"
    else:
        reason = f"status {code}: {document.message or document.reason or 'no reason given'}"
    seconds = _retry_after(retry_after, document)
    return Failure(_kind(code, document), reason[:REASON_LENGTH], seconds, code)


def _read_status(body: bytes) -> _Status | None:
    try:
        document = _status_decoder.decode(body)
    except UNREADABLE:
        return None
    return document if document.kind == "Status" else None


def _kind(code: int, document: _Status | None) -> FailureKind:
    if code == 410 or (document is not None and _version_unknown(document)):
        return "expired"
    known: dict[int, FailureKind] = {401: "unauthorized", 403: "forbidden", 429: "throttled"}
    if code in known:
        return known[code]
    return "refused" if 300 <= code < 500 else "server_error"


def _version_unknown(document: _Status) -> bool:
    """Whether our version is one the server has not reached: its store was restored from a backup."""
    causes = document.details.causes if document.details else None
    return any(cause.reason == "ResourceVersionTooLarge" for cause in causes or ())


def _retry_after(header: str, document: _Status | None) -> float:
    seconds = document.details.retry_after_seconds if document and document.details else 0.0
    if header.strip().isdecimal() and header.isascii():
        seconds = float(header)
    return min(max(seconds, 0.0), RETRY_AFTER_LIMIT)
