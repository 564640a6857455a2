"""Requests to the API server: bytes in and out, every failure as an `ApiError`. One for each reflector.

aiohttp is used directly and not through the `ApiClient` of kubernetes-asyncio, which cannot set TCP keepalive
and builds model objects. Proxies and `~/.netrc` are not taken from the environment behind our back.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import msgspec
import yarl

from discovery.kube.credentials import Access, Credentials, CredentialsUnavailable, TlsSettings
from discovery.kube.failure import UNREADABLE, ApiError, Failure, FailureKind, read_failure
from discovery.kube.reflection import ListPage, Watch
from discovery.kube.resource import Resource
from discovery.kube.timing import Timing
from discovery.source import SourceError

FAILURE_BODY = 64 * 1024
"""Bytes read of a response that says no."""
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}
"""A peer that vanished is noticed after 20 s (the last one is in milliseconds)."""


class Page(msgspec.Struct, frozen=True):
    """A page of a list; items are left unparsed, so that only one at a time is large."""

    version: str
    continue_token: str
    items: list[msgspec.Raw]


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    token: str | None = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    kind: str
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


_list_decoder = msgspec.json.Decoder(_List)


class Answer:
    """A response that is read as it comes."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def read(self, patience: float | None) -> bytes:
        """Return the next bytes, empty at the end, after at most `patience` seconds (None: whenever).

        Raises:
            ApiError: nothing came in time, or the connection ended early.
        """
        with _failures("cut"):
            async with asyncio.timeout(patience):
                return await self._response.content.readany()

    async def check(self, patience: float) -> None:
        """Make sure that it is a success in JSON.

        Raises:
            ApiError: it is not; the `Failure` says what it is.
        """
        await self.check_status(patience)
        response = self._response
        if response.content_type != "application/json":
            start = await self._start(patience)
            raise ApiError(Failure("malformed", f"{response.content_type} instead of JSON: {start[:80]!r}"))

    async def check_status(self, patience: float) -> None:
        """Make sure that it is a success, of whatever content.

        Raises:
            ApiError: it is not; the `Failure` says what it is.
        """
        response = self._response
        if response.status not in (200, 201):
            body = await self._start(patience)
            retry_after = response.headers.get("Retry-After", "")
            kind = response.content_type
            raise ApiError(read_failure(response.status, body, content_type=kind, retry_after=retry_after))

    async def _start(self, patience: float) -> bytes:
        body = bytearray()
        while len(body) < FAILURE_BODY and (chunk := await self.read(patience)):
            body += chunk
        return bytes(body[:FAILURE_BODY])


class Connection:
    """A session with the API server that is made again when certificates change. At most `limit` requests run
    at the same time. `agent` is our name in the server's own log.
    """

    def __init__(
        self, credentials: Credentials, timing: Timing, limit: int = 2, agent: str = "svcmesh"
    ) -> None:
        self._agent = agent
        self._credentials = credentials
        self._timing = timing
        self._limit = limit
        self._session: aiohttp.ClientSession | None = None
        self._tls: TlsSettings | None = None
        self._access: Access | None = None

    async def close(self) -> None:
        """Close the session; a later request opens another."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def renew_credentials(self) -> None:
        """The last request was answered with 401: use new credentials for the next."""
        if self._access is not None:
            await self._credentials.renew(self._access)

    async def list_page(self, resource: Resource, request: ListPage) -> Page:
        """Return one page of a list.

        Raises:
            ApiError: there was no page; the `Failure` says why.
        """
        query = _selectors(resource)
        if request.limit:
            query["limit"] = str(request.limit)
        if request.continue_token:
            query["continue"] = request.continue_token
        async with self._get(resource, query, {}) as answer:
            body = bytearray()
            while chunk := await answer.read(self._timing.answer):
                body += chunk
        return read_page(resource, bytes(body))

    async def read_start(self, path: str, query: Mapping[str, str], limit: int) -> tuple[int, bytes]:
        """Return the status of a GET and the start of its body, at most `limit` bytes, whatever they are.

        Raises:
            ApiError: there was no response.
        """
        async with self._request(path, query, {"Accept": "*/*"}) as response:
            body, answer = bytearray(), Answer(response)
            while len(body) < limit and (chunk := await answer.read(self._timing.answer)):
                body += chunk
            return response.status, bytes(body[:limit])

    async def exchange(
        self, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str
    ) -> tuple[int, bytes, str]:
        """Return status, body and content type of the answer to any request, whatever they are.

        Raises:
            ApiError: there was no response.
        """
        headers = {"Accept": "*/*", "Content-Type": content_type}
        async with self._request(path, query, headers, body, method) as response:
            said, answer = bytearray(), Answer(response)
            while chunk := await answer.read(self._timing.answer):
                said += chunk
            return response.status, bytes(said), response.content_type

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Answer]:
        """Open what is read as it comes and is no JSON, such as a log; gives its answer if it is a success.

        Raises:
            ApiError: it is none.
        """
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        async with self._request(path, query, headers) as response:
            answer = Answer(response)
            await answer.check_status(self._timing.answer)
            yield answer

    @asynccontextmanager
    async def websocket(
        self, path: str, query: Mapping[str, str], protocol: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a WebSocket of this subprotocol.

        Raises:
            ApiError: there was no response.
            aiohttp.WSServerHandshakeError: it was refused.
        """
        session, access = await self._open()
        headers = {"Authorization": access.authorization} if access.authorization else {}
        async with asyncio.timeout(self._timing.answer):
            socket = await session.ws_connect(
                yarl.URL(access.server + path).with_query(query),
                protocols=(protocol,),
                headers=headers,
                proxy=access.proxy,
                server_hostname=access.tls.server_name,
            )
        try:
            yield socket
        finally:
            await socket.close()

    async def create(self, path: str, document: Mapping[str, Any]) -> bool:
        """Create an object in the collection at `path`; return False if there is one of its name already.

        Raises:
            ApiError: neither; the `Failure` says why.
        """
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        async with self._request(path, {}, headers, msgspec.json.encode(document)) as response:
            answer = Answer(response)
            if response.status != 409:
                await answer.check(self._timing.answer)
            while await answer.read(self._timing.answer):
                pass  # a connection that was read to its end is used again
            return response.status != 409

    @asynccontextmanager
    async def watch(self, resource: Resource, request: Watch, seconds: float) -> AsyncIterator[Answer]:
        """Open a watch that the server ends after `seconds`; gives its answer once it was accepted.

        Raises:
            ApiError: it was not accepted.
        """
        query = _selectors(resource) | {
            "watch": "1",
            "resourceVersion": request.version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        # Something that compresses on the way would hold events back.
        async with self._get(resource, query, {"Accept-Encoding": "identity"}) as answer:
            yield answer

    @asynccontextmanager
    async def _get(
        self, resource: Resource, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> AsyncIterator[Answer]:
        headers = {"Accept": "application/json", **headers}
        async with self._request(resource.path, query, headers) as response:
            answer = Answer(response)
            await answer.check(self._timing.answer)
            yield answer

    @asynccontextmanager
    async def _request(
        self,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None = None,
        method: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        session, access = await self._open()
        if access.authorization:
            headers = {**headers, "Authorization": access.authorization}
        with _failures("connect"):
            async with asyncio.timeout(self._timing.answer):
                response = await session.request(
                    method or ("GET" if body is None else "POST"),
                    yarl.URL(access.server + path).with_query(query),
                    headers=headers,
                    data=body,
                    proxy=access.proxy,
                    server_hostname=access.tls.server_name,
                    allow_redirects=False,
                )
        try:
            yield response
        finally:
            # A list that was read to its end has given its connection back by now; a watch must not be.
            response.close()

    async def _open(self) -> tuple[aiohttp.ClientSession, Access]:
        try:
            access = self._access = await self._credentials.current()
            if self._session is None or access.tls != self._tls:
                await self.close()
                self._session = self._make_session(access)
                self._tls = access.tls
        except (CredentialsUnavailable, SourceError, OSError) as error:
            raise ApiError(Failure("credentials", str(error))) from error
        return self._session, access

    def _make_session(self, access: Access) -> aiohttp.ClientSession:
        secure: ssl.SSLContext | bool = make_tls(access.tls) if access.server.startswith("https:") else True
        connector = aiohttp.TCPConnector(ssl=secure, limit=self._limit, socket_factory=make_socket)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timing.connect)
        return aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            headers={"User-Agent": self._agent},
            cookie_jar=aiohttp.DummyCookieJar(),
        )


def check_access(access: Access) -> None:
    """See that the certificates are ones.

    Raises:
        SourceError: they are not.
    """
    if access.server.startswith("https:"):
        try:
            make_tls(access.tls)
        except OSError as error:
            files = ", ".join(filter(None, (access.tls.ca_file, access.tls.cert_file, access.tls.key_file)))
            raise SourceError(
                f"the certificates for {access.server} cannot be used ({error}): see {files}"
            ) from error


def read_page(resource: Resource, body: bytes) -> Page:
    """Read a list of this resource.

    Raises:
        ApiError: it is something else. A `{}` with status 200 must not pass for an empty list, or everything
            would be deleted.
    """
    try:
        found = _list_decoder.decode(body)
    except UNREADABLE as error:
        start = body[:80].decode("utf-8", "replace")
        raise ApiError(Failure("malformed", f"not a {resource.kind}List: {error}: {start!r}")) from error
    if found.kind != f"{resource.kind}List" or not found.metadata.resource_version:
        raise ApiError(Failure("malformed", f"a {found.kind!r} instead of a {resource.kind}List"))
    return Page(found.metadata.resource_version, found.metadata.token or "", found.items or [])


def make_tls(settings: TlsSettings) -> ssl.SSLContext:
    """Make a TLS context as kubectl has it.

    Raises:
        OSError: a file cannot be read or holds no certificate (`ssl.SSLError` is one).
    """
    context = ssl.create_default_context(cafile=settings.ca_file)
    # From Python 3.13 on the default refuses CAs without key identifiers, as many clusters have them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class LentSocket(socket.socket):
    """A socket that does not close its descriptor when it is collected, only when it is told to.

    uvloop (0.23 still) closes the descriptor of `create_connection(sock=...)` itself when the server resets
    the connection early, and leaves the number in the socket; its issue 738 is of this family. When an
    ordinary socket is collected, it closes whatever has that number by then. This has broken off answers of
    the admin page while the API server was away.
    """

    def __del__(self) -> None:
        """Forget the descriptor."""
        self.detach()


def make_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket for a connection to the API server, with TCP keepalive.

    Raises:
        OSError: there are no descriptors left.
    """
    family, kind, protocol, _, _ = address
    made = LentSocket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


def _selectors(resource: Resource) -> dict[str, str]:
    selectors = {"labelSelector": resource.label_selector, "fieldSelector": resource.field_selector}
    return {name: value for name, value in selectors.items() if value}


@contextmanager
def _failures(kind: FailureKind) -> Iterator[None]:
    """Turn what aiohttp raises into `ApiError`; `kind` is what a lost connection means at this point."""
    try:
        yield
    except TimeoutError as error:
        raise ApiError(Failure("timeout", "no answer in time")) from error
    except aiohttp.ServerDisconnectedError as error:
        raise ApiError(Failure("cut", "the server closed the connection without an answer")) from error
    except aiohttp.ClientResponseError as error:
        raise ApiError(Failure("malformed", f"not HTTP: {error.message}")) from error
    except (aiohttp.ClientError, OSError) as error:
        raise ApiError(Failure(kind, str(error) or type(error).__name__)) from error
