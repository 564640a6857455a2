"""Sends lots of spans by OTLP over gRPC, on one connection that is kept.

gRPC's own library is a C core that starts threads and brings certificates of its own; for one call at a time
the HTTP/2 of the data plane is enough (docs/dependencies.md has the figures).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote, urlsplit

from middleware.grpc import GrpcStatus, of_http
from nodeagent.agent.collector_fields import Fields
from nodeagent.agent.delivery import Verdict
from nodeagent.agent.gzipped import compressed
from nodeagent.agent.otlp_answers import RETRYABLE, of_call
from nodeagent.agent.trust import Trust
from nodeagent.agent.unary import Answer, CallBroken, ConnectionLost, UnaryConnection, connect
from nodeagent.agent.unary import Fields as RawFields

PATH: Final = b"/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_GZIP: Final = ((b"grpc-encoding", b"gzip"),)
_UNIMPLEMENTED: Final = str(int(GrpcStatus.UNIMPLEMENTED))


class GrpcSender:
    """`url` is `http://HOST:PORT` or, with TLS, `https://HOST:PORT`. `deadline` is told to the collector."""

    def __init__(self, url: str, user_agent: str, deadline: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or 0
        self._trust = Trust(["h2"]) if parts.scheme == "https" else None
        self._gzip = True
        """Whether the collector may understand gzip."""
        self._fields = (
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            (b"grpc-accept-encoding", b"gzip,identity"),
            (b"user-agent", user_agent.encode()),
            (b"grpc-timeout", b"%dm" % (deadline * 1000)),
        )
        self._connection: UnaryConnection | None = None

    async def send(self, body: bytes, fields: Fields = ()) -> Verdict:
        """Send a lot, once more if a connection that was kept turns out to have ended.

        Who does not understand gzip says UNIMPLEMENTED, and is sent the same without it.

        Raises:
            OSError: the collector cannot be reached, or the connection broke.
        """
        metadata = tuple((name.encode(), value.encode()) for name, value in fields)
        packed = await compressed(body) if self._gzip else None
        try:
            if packed is not None:
                answer = await self._call((*self._fields, *_GZIP), _framed(packed, 1), metadata)
                if answer.fields.get("grpc-status") != _UNIMPLEMENTED:
                    return _verdict(answer)
            answer = await self._call(self._fields, _framed(body, 0), metadata)
        except CallBroken as broken:
            return Verdict("later" if broken.status in RETRYABLE else "refused", str(broken))
        verdict = _verdict(answer)
        if packed is not None and verdict.fate == "taken":
            self._gzip = False
        return verdict

    async def _call(self, fields: RawFields, message: bytes, metadata: RawFields) -> Answer:
        while True:
            connection = await self._connected()
            try:
                return await connection.call(PATH, fields, message, metadata)
            except ConnectionLost:
                if connection.calls <= 1:
                    raise
            except asyncio.CancelledError:
                connection.abort()
                raise

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.abort()

    async def _connected(self) -> UnaryConnection:
        if self._connection is None or not self._connection.usable:
            if self._connection is not None:
                self._connection.abort()
            tls = self._trust.context() if self._trust is not None else None
            self._connection = await connect(self._host, self._port, tls)
        return self._connection


def _framed(message: bytes, packed: int) -> bytes:
    return b"%c" % packed + len(message).to_bytes(4, "big") + message


def _verdict(answer: Answer) -> Verdict:
    fields = answer.fields
    status = fields.get("grpc-status", "")
    if not status:
        said = of_http(answer.status) if answer.status != HTTPStatus.OK else GrpcStatus.UNKNOWN
        words = f"it answered {answer.status} without a status of gRPC"
        return Verdict("later" if said in RETRYABLE else "refused", words)
    message = unquote(fields.get("grpc-message", ""), errors="replace")
    return of_call(status, message, fields.get("grpc-status-details-bin", ""), answer.body)
