"""Sends lots of spans by OTLP over gRPC, on one connection that is kept.

gRPC's own library is a C core that starts threads and brings certificates of its own; for one call at a time
the HTTP/2 of the data plane is enough (docs/dependencies.md has the figures).
"""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote, urlsplit

from middleware.grpc import GrpcStatus, of_http
from nodeagent.agent.delivery import Verdict
from nodeagent.agent.otlp_answers import RETRYABLE, of_call
from nodeagent.agent.unary import Answer, CallBroken, ConnectionLost, UnaryConnection, connect

PATH: Final = b"/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class GrpcSender:
    """`url` is `http://HOST:PORT` or, with TLS, `https://HOST:PORT`. `deadline` is told to the collector."""

    def __init__(self, url: str, user_agent: str, deadline: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or 0
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["h2"])
        self._fields = (
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            (b"user-agent", user_agent.encode()),
            (b"grpc-timeout", b"%dm" % (deadline * 1000)),
        )
        self._connection: UnaryConnection | None = None

    async def send(self, body: bytes) -> Verdict:
        """Send a lot, once more if a connection that was kept turns out to have ended.

        Raises:
            OSError: the collector cannot be reached, or the connection broke.
        """
        message = b"\0" + len(body).to_bytes(4, "big") + body
        while True:
            connection = await self._connected()
            try:
                return _verdict(await connection.call(PATH, self._fields, message))
            except CallBroken as broken:
                return Verdict("later" if broken.status in RETRYABLE else "refused", str(broken))
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
            self._connection = await connect(self._host, self._port, self._tls)
        return self._connection


def _verdict(answer: Answer) -> Verdict:
    fields = answer.fields
    status = fields.get("grpc-status", "")
    if not status:
        said = of_http(answer.status) if answer.status != HTTPStatus.OK else GrpcStatus.UNKNOWN
        words = f"it answered {answer.status} without a status of gRPC"
        return Verdict("later" if said in RETRYABLE else "refused", words)
    message = unquote(fields.get("grpc-message", ""), errors="replace")
    return of_call(status, message, fields.get("grpc-status-details-bin", ""), answer.body)
