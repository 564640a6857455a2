"""A port of a pod, reached by port forwarding through the API server and the kubelet, and HTTP over it.

It is a WebSocket of the subprotocol `v4.channel.k8s.io`: the first byte of a message is its channel, 0 for
data and 1 for errors, and the first message of each repeats the port. For a pod on its node's network the
far end is the node's loopback address. Of HTTP/1.1 there is what one GET after the other needs.
"""

from __future__ import annotations

import http.client
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import msgspec

from discovery.kube.connection import Connection
from discovery.kube.failure import ApiError, Failure, FailureKind

LONGEST_HEAD: Final = 64 * 1024
"""Bytes of the head of a response, or of a line in it."""
LONGEST_NUMBER: Final = 16

_STATUS_LINE = re.compile(rb"HTTP/1\.\d ([1-5]\d\d)(?: |$)")


class Forwarded:
    """A connection to a port of a pod. `patience` is how long to wait for the next bytes; None: for ever."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, patience: float | None) -> None:
        self._socket = socket
        self._patience = patience
        self._seen: set[int] = set()
        self._buffer = bytearray()

    async def send(self, data: bytes) -> None:
        """Send bytes to the port."""
        await self._socket.send_bytes(b"\x00" + data)

    async def read_exactly(self, length: int) -> bytes:
        """Return the next `length` bytes that come from the port.

        Raises:
            ApiError: it was closed, or the far end reports an error.
        """
        while len(self._buffer) < length:
            await self._receive()
        return self._take(length)

    async def read_some(self, limit: int) -> bytes:
        """Return at least one of the next bytes, at most `limit`.

        Raises:
            ApiError: it was closed, or the far end reports an error.
        """
        while not self._buffer:
            await self._receive()
        return self._take(min(limit, len(self._buffer)))

    async def read_until(self, end: bytes) -> bytes:
        """Return the next bytes up to and with `end`.

        Raises:
            ApiError: it does not come within `LONGEST_HEAD` bytes, the connection was closed, or the far end
                reports an error.
        """
        while (at := self._buffer.find(end)) < 0:
            if len(self._buffer) > LONGEST_HEAD:
                raise ApiError(Failure("malformed", "the pod's answer is no HTTP"))
            await self._receive()
        return self._take(at + len(end))

    async def _receive(self) -> None:
        message = await self._socket.receive(self._patience)
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            raise ApiError(Failure("cut", "the forwarded connection ended"))
        channel, data = message.data[0], message.data[1:]
        if channel not in self._seen:
            self._seen.add(channel)
        elif channel == 0:
            self._buffer += data
        elif data:
            raise ApiError(Failure("connect", data.decode("utf-8", "replace").strip()))

    def _take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken


@asynccontextmanager
async def forward(
    connection: Connection, namespace: str, pod: str, port: int, patience: float | None
) -> AsyncIterator[Forwarded]:
    """Connect to a port of a pod; see `Forwarded`.

    Raises:
        ApiError: it was refused, or there was no answer in time; also from within.
    """
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
    try:
        async with connection.websocket(path, {"ports": str(port)}, "v4.channel.k8s.io") as socket:
            yield Forwarded(socket, patience)
    except aiohttp.WSServerHandshakeError as error:
        kind: FailureKind = "refused"
        if error.status in (401, 403):
            kind = "unauthorized" if error.status == 401 else "forbidden"
        needed = "; it needs `get` and `create` on pods/portforward" if error.status == 403 else ""
        reason = f"port forwarding to {namespace}/{pod}: status {error.status}{needed}"
        raise ApiError(Failure(kind, reason, status=error.status)) from error
    except (aiohttp.ClientError, OSError) as error:
        said = "no answer in time" if isinstance(error, TimeoutError) else str(error)
        raise ApiError(Failure("connect", said or type(error).__name__)) from error


class Response(msgspec.Struct, frozen=True):
    """What came for a GET: the start of the body, and whether that is all of it."""

    status: int
    body: bytes
    whole: bool
    reusable: bool
    """Whether the connection takes another request."""


async def get(forwarded: Forwarded, target: str, limit: int) -> Response:
    """Ask for a page and return its answer with at most `limit` bytes of its body.

    Raises:
        ApiError: there was no answer, or it is no HTTP.
    """
    await forwarded.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: meshctl\r\n\r\n".encode())
    status, fields = _read_head(await forwarded.read_until(b"\r\n\r\n"))
    body = bytearray()
    async for piece in _pieces(forwarded, fields):
        body += piece
        if len(body) > limit:
            return Response(status, bytes(body[:limit]), whole=False, reusable=False)
    reusable = "close" not in fields.get("Connection", "").lower() and _is_framed(fields)
    return Response(status, bytes(body), whole=True, reusable=reusable)


def _read_head(head: bytes) -> tuple[int, http.client.HTTPMessage]:
    line, _, rest = head.partition(b"\r\n")
    parts = line.split(b" ", 2)
    if (
        len(parts) < 2
        or not parts[0].startswith(b"HTTP/1.")
        or not (parts[1].isdigit() and len(parts[1]) == 3)
    ):
        raise ApiError(Failure("malformed", f"the pod's answer is no HTTP: {line[:80]!r}"))
    try:
        return int(parts[1]), http.client.parse_headers(io.BytesIO(rest))
    except http.client.HTTPException as error:
        raise ApiError(Failure("malformed", f"the pod's answer is no HTTP: {error}")) from error


def _is_chunked(fields: http.client.HTTPMessage) -> bool:
    return "chunked" in fields.get("Transfer-Encoding", "").lower()


def _is_framed(fields: http.client.HTTPMessage) -> bool:
    """Return whether the end of the body can be told from the connection's."""
    return _is_chunked(fields) or "Content-Length" in fields


async def _pieces(forwarded: Forwarded, fields: http.client.HTTPMessage) -> AsyncIterator[bytes]:
    if _is_chunked(fields):
        while size := _number((await forwarded.read_until(b"\r\n")).partition(b";")[0], 16):
            async for piece in _counted(forwarded, size):
                yield piece
            await forwarded.read_exactly(2)
        await forwarded.read_until(b"\r\n")
    elif "Content-Length" in fields:
        async for piece in _counted(forwarded, _number(fields["Content-Length"].encode(), 10)):
            yield piece
    else:
        while True:
            try:
                piece = await forwarded.read_some(LONGEST_HEAD)
            except ApiError as error:
                if error.failure.kind == "cut":
                    return  # the end of the connection is the end of the body
                raise
            yield piece


async def _counted(forwarded: Forwarded, length: int) -> AsyncIterator[bytes]:
    while length:
        piece = await forwarded.read_some(min(length, LONGEST_HEAD))
        length -= len(piece)
        yield piece


def _number(text: bytes, base: int) -> int:
    digits = text.strip()
    known = b"0123456789abcdef"[:base]
    if not digits or len(digits) > LONGEST_NUMBER or digits.lower().strip(known):
        raise ApiError(Failure("malformed", f"the pod's answer is no HTTP: {digits[:20]!r} is no length"))
    return int(digits, base)
