"""Lists of a resource, page by page, for commands that people run: what fails is not tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from discovery.kube.connection import Connection
from discovery.kube.failure import UNREADABLE, ApiError, Failure
from discovery.kube.reflection import ListPage
from discovery.kube.resource import Resource
from discovery.source import SourceError

PAGE_SIZE = 100

_decode = msgspec.json.Decoder(dict[str, Any]).decode


async def list_items(connection: Connection, resource: Resource) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the objects of a resource page by page.

    Raises:
        SourceError: they cannot be listed, or not to the end; the message says why.
    """
    try:
        async for items in list_pages(connection, resource):
            yield items
    except ApiError as error:
        raise SourceError(f"cannot list {resource.kind}s: {error.failure.reason}") from error


async def list_pages(connection: Connection, resource: Resource) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the objects of a resource page by page.

    Raises:
        ApiError: they cannot be listed, or not to the end.
    """
    request = ListPage(limit=PAGE_SIZE)
    while True:
        page = await connection.list_page(resource, request)
        try:
            items = [_decode(item) for item in page.items]
        except UNREADABLE as error:
            raise ApiError(Failure("malformed", f"not an object: {error}")) from error
        yield items
        if not page.continue_token:
            return
        request = ListPage(page.continue_token, PAGE_SIZE)
