"""Single objects at the API server, for commands that a person runs: read, written, and pods reached.

Paths are those of the Kubernetes API (`/api/v1/namespaces/kube-system/configmaps/coredns`). Writes carry the
`resourceVersion` that was read, so that nobody's change in between is lost. A pod's port is reached by port
forwarding over a WebSocket (subprotocol `v4.channel.k8s.io`: the first byte of a message is its channel, 0
for data and 1 for errors, and the first message of each repeats the port).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import yarl

from discovery.kube.connection import FAILURE_BODY, make_tls
from discovery.kube.credentials import Access, Credentials, CredentialsUnavailable, loader_for
from discovery.kube.failure import ApiError, Failure, read_failure
from discovery.kube.library import load_library
from discovery.source import SourceError

ANSWER = 15.0
"""Seconds to wait for any answer."""
FIELD_MANAGER = "meshctl"
Document = dict[str, Any]

_document_decoder = msgspec.json.Decoder(Document)


class Conflict(Exception):
    """An object was changed, made or deleted by somebody else since it was read (409)."""


class Forwarded:
    """A connection to a port of a pod."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
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
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                raise ApiError(Failure("cut", "the forwarded connection ended"))
            channel, data = message.data[0], message.data[1:]
            if channel not in self._seen:
                self._seen.add(channel)
            elif channel == 0:
                self._buffer += data
            elif data:
                raise ApiError(Failure("connect", data.decode("utf-8", "replace").strip()))
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken


class ObjectClient:
    """Requests with the identity of `access`; use `open_objects`."""

    def __init__(self, session: aiohttp.ClientSession, access: Access) -> None:
        self._session = session
        self._access = access

    async def get(self, path: str, **query: str) -> Document | None:
        """Return an object or a list; None if there is none.

        Raises:
            ApiError: there was no usable answer.
        """
        found = await self._request("GET", path, query, None)
        return None if found is None else _decode(found)

    async def create(self, path: str, document: Document) -> None:
        """Create an object in the collection `path`.

        Raises:
            Conflict: it exists.
            ApiError: it was refused, or there was no answer; 404 stands for a missing namespace.
        """
        found = await self._request("POST", path, {"fieldManager": FIELD_MANAGER}, document)
        if found is None:
            raise ApiError(Failure("refused", f"status 404: nothing can be created in {path}"))

    async def patch(self, path: str, document: Document) -> None:
        """Change an object by a JSON merge patch (RFC 7396).

        Raises:
            Conflict: `metadata.resourceVersion` of the patch is not the present one, or the object is gone.
            ApiError: it was refused, or there was no answer.
        """
        if await self._request("PATCH", path, {"fieldManager": FIELD_MANAGER}, document) is None:
            raise Conflict(f"{path} does not exist any more")

    async def delete(self, path: str) -> None:
        """Delete an object; it is no error if there is none.

        Raises:
            ApiError: it was refused, or there was no answer.
        """
        await self._request("DELETE", path, {}, None)

    async def text(self, path: str) -> str:
        """Return the text of an answer that is not JSON, such as a pod's metrics through its proxy.

        Raises:
            ApiError: there was no success.
        """
        found = await self._request("GET", path, {}, None)
        if found is None:
            raise ApiError(Failure("refused", f"status 404: {path}"))
        return found.decode("utf-8", "replace")

    @asynccontextmanager
    async def forward(self, namespace: str, pod: str, port: int) -> AsyncIterator[Forwarded]:
        """Connect to a port of a pod, through the API server and its node's kubelet.

        Raises:
            ApiError: it was refused, or there was no answer in time; also from within.
        """
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
        try:
            async with asyncio.timeout(ANSWER):
                socket = await self._session.ws_connect(
                    yarl.URL(self._access.server + path).with_query(ports=str(port)),
                    protocols=("v4.channel.k8s.io",),
                    headers=self._headers(),
                    proxy=self._access.proxy,
                    server_hostname=self._access.tls.server_name,
                )
                try:
                    yield Forwarded(socket)
                finally:
                    await socket.close()
        except aiohttp.WSServerHandshakeError as error:
            kind = {401: "unauthorized", 403: "forbidden"}.get(error.status, "refused")
            needed = "; it needs `get` and `create` on pods/portforward" if error.status == 403 else ""
            reason = f"port forwarding to {namespace}/{pod}: status {error.status}{needed}"
            raise ApiError(msgspec.convert({"kind": kind, "reason": reason}, Failure)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error

    async def _request(
        self, method: str, path: str, query: Mapping[str, str], document: Document | None
    ) -> bytes | None:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        body = None if document is None else msgspec.json.encode(document)
        try:
            async with (
                asyncio.timeout(ANSWER),
                self._session.request(
                    method,
                    yarl.URL(self._access.server + path).with_query(query),
                    data=body,
                    headers=self._headers() | {"Content-Type": kind},
                    proxy=self._access.proxy,
                    server_hostname=self._access.tls.server_name,
                    allow_redirects=False,
                ) as response,
            ):
                answer = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error
        if response.status == 404:
            return None
        if response.status == 409:
            raise Conflict(read_failure(409, answer[:FAILURE_BODY]).reason)
        if response.status >= 300:
            raise ApiError(
                read_failure(response.status, answer[:FAILURE_BODY], content_type=response.content_type)
            )
        return answer

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._access.authorization} if self._access.authorization else {}

    def _unreachable(self, error: Exception) -> ApiError:
        said = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return ApiError(Failure("connect", f"API server {self._access.server}: {said}"))


@asynccontextmanager
async def open_objects(
    kubeconfig: str = "", context: str = "", environment: Mapping[str, str] = os.environ
) -> AsyncIterator[ObjectClient]:
    """Give a client with the configuration that kubectl would use.

    Raises:
        SourceError: there is none, or it cannot be used; the message says why.
    """
    library = load_library()
    make_loader = loader_for(library, kubeconfig, context, environment)
    try:
        access = await Credentials(library, make_loader, 60.0, asyncio.get_running_loop().time).current()
        secure = make_tls(access.tls) if access.server.startswith("https:") else True
    except CredentialsUnavailable as error:
        raise SourceError(f"no credentials for the API server: {error}") from error
    except OSError as error:
        raise SourceError(f"the certificates of the kubeconfig cannot be used: {error}") from error
    connector = aiohttp.TCPConnector(ssl=secure)
    async with aiohttp.ClientSession(
        connector=connector, headers={"User-Agent": "meshctl"}, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield ObjectClient(session, access)


def _decode(data: bytes) -> Document:
    try:
        return _document_decoder.decode(data)
    except msgspec.DecodeError as error:
        start = data[:80].decode("utf-8", "replace")
        raise ApiError(Failure("malformed", f"not JSON from the API server: {error}: {start!r}")) from error
