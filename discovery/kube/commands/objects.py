"""Single objects at the API server, for commands that a person runs: read, written, and pods reached.

Paths are those of the Kubernetes API (`/api/v1/namespaces/kube-system/configmaps/coredns`). Writes carry the
`resourceVersion` that was read, so that a change by somebody else in between is not lost.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from discovery.kube.commands.agents import AgentPod, AgentReader, Page, Wanted, read_page
from discovery.kube.commands.forwarding import Forwarded, forward
from discovery.kube.commands.reading import PATIENCE, Cluster, connect
from discovery.kube.connection import FAILURE_BODY, Connection
from discovery.kube.failure import UNREADABLE, ApiError, Failure, read_failure

AT_ONCE = 16
"""Requests and forwarded ports under way."""
FIELD_MANAGER = "meshctl"
PAGE_SIZE = "500"
Document = dict[str, Any]

_document_decoder = msgspec.json.Decoder(Document)


class Conflict(Exception):
    """An object was changed, made or deleted by somebody else since it was read (409)."""


class ObjectClient:
    """Requests over a connection; use `open_objects`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._agents = AgentReader(connection)

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

    async def submit(self, path: str, document: Document, **query: str) -> Document:
        """Send a document to the collection `path` and return what the server makes of it.

        For reviews (what may I do?) and for trials with `dryRun="All"`, which leave nothing behind.

        Raises:
            Conflict: it exists.
            ApiError: it was refused, or there was no usable answer.
        """
        found = await self._request("POST", path, query, document)
        if found is None:
            raise ApiError(Failure("refused", f"status 404: nothing can be sent to {path}", status=404))
        return _decode(found)

    async def items(self, path: str, **query: str) -> list[Document] | None:
        """Return all objects of a collection, page by page; None if the server has no such collection.

        Raises:
            ApiError: there was no usable answer.
        """
        found: list[Document] = []
        more = {"limit": PAGE_SIZE}
        while True:
            page = await self.get(path, **query, **more)
            if page is None:
                return None
            found += page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            more = {"limit": PAGE_SIZE, "continue": token}

    async def page(self, path: str, **query: str) -> Page:
        """Return what a pod answers through the API server's proxy; a failure is in the page."""
        return await read_page(self._connection, path, query)

    async def agent_pages(self, pod: AgentPod, port: int, *wanted: Wanted) -> tuple[Page, ...]:
        """Return pages of an agent's admin server, as `AgentReader` does; a failure is in the page."""
        return await self._agents.pages(pod, port, *wanted)

    async def patch(self, path: str, document: Document) -> None:
        """Change an object by a JSON merge patch (RFC 7396).

        Raises:
            Conflict: `metadata.resourceVersion` of the patch is not the present one, or the object is gone.
            ApiError: it was refused, or there was no answer.
        """
        if await self._request("PATCH", path, {"fieldManager": FIELD_MANAGER}, document) is None:
            raise Conflict(f"{path} does not exist any more")

    async def delete(self, path: str, **query: str) -> None:
        """Delete an object; it is no error if there is none.

        Raises:
            ApiError: it was refused, or there was no answer.
        """
        await self._request("DELETE", path, query, None)

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
        async with forward(self._connection, namespace, pod, port, PATIENCE.answer) as forwarded:
            yield forwarded

    async def _request(
        self, method: str, path: str, query: Mapping[str, str], document: Document | None
    ) -> bytes | None:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        body = None if document is None else msgspec.json.encode(document)
        status, answer, content_type = await self._connection.exchange(method, path, query, body, kind)
        if status == 404:
            return None
        if status == 409:
            raise Conflict(read_failure(409, answer[:FAILURE_BODY]).reason)
        if status >= 300:
            raise ApiError(read_failure(status, answer[:FAILURE_BODY], content_type=content_type))
        return answer


@asynccontextmanager
async def open_objects(
    kubeconfig: str = "", context: str = "", environment: Mapping[str, str] = os.environ
) -> AsyncIterator[ObjectClient]:
    """Give a client with the configuration that kubectl would use.

    Raises:
        SourceError: there is none, or it cannot be used; the message says why.
    """
    async with connect(Cluster(kubeconfig, context), AT_ONCE, environment) as connection:
        yield ObjectClient(connection)


def _decode(data: bytes) -> Document:
    try:
        return _document_decoder.decode(data)
    except UNREADABLE as error:
        start = data[:80].decode("utf-8", "replace")
        raise ApiError(Failure("malformed", f"not JSON from the API server: {error}: {start!r}")) from error
