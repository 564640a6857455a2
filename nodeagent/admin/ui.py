"""The page `/ui/`: its files, and what a browser may do with them. `meshctl dashboard` serves the same.

The files are those in `static/`. Nothing from elsewhere is ever loaded, and no markup is made of text
(`require-trusted-types-for`), so that whatever stands in a cluster stays text.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from importlib.resources import files
from typing import Any, Final

import msgspec
from aiohttp import web

from nodeagent.stats.overview import Live, live_document

TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}
INDEX: Final = "index.html"
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


BY_THREAD: Final = 2048
"""Bytes from which a body is compressed, which a thread does: the loop answers DNS meanwhile."""


class _File(msgspec.Struct, frozen=True):
    body: bytes
    kind: str
    etag: str


class PageFiles:
    """The files of the page, read once."""

    def __init__(self) -> None:
        self._files: Mapping[str, _File] = {
            one.name: _File(body, TYPES[one.name.rpartition(".")[2]], etag_of(body))
            for one in files("nodeagent.admin").joinpath("static").iterdir()
            if one.name.rpartition(".")[2] in TYPES
            for body in (one.read_bytes(),)
        }

    async def serve(self, request: web.Request) -> web.Response:
        """Answer for `/ui/{name}`; without a name with the page itself."""
        found = self._files.get(request.match_info.get("name") or INDEX)
        if found is None:
            return web.Response(text="the page has no such file\n", status=404, headers=HEADERS)
        return tagged(request, found.body, found.etag, {**HEADERS, "Content-Type": found.kind})


def etag_of(body: bytes) -> str:
    """Return what stands for these bytes in `ETag`."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def tagged(request: web.Request, body: bytes, etag: str, headers: Mapping[str, str]) -> web.Response:
    """Answer with a body, or with 304 if the client has it already."""
    if any(etag == f'"{known.value}"' for known in request.if_none_match or ()):
        return web.Response(status=304, headers={"ETag": etag, "Cache-Control": headers["Cache-Control"]})
    return compressed(body, {**headers, "ETag": etag})


def compressed(body: bytes, headers: Mapping[str, str]) -> web.Response:
    """Answer with a body, compressed if it is long and the client takes that."""
    response = web.Response(body=body, headers=headers, zlib_executor_size=BY_THREAD)
    if len(body) >= BY_THREAD:
        response.headers["Vary"] = "Accept-Encoding"
        response.enable_compression()
    return response


async def to_page(request: web.Request) -> web.StreamResponse:
    """Lead from `/ui` to `/ui/`, whatever stands before it in the address."""
    return web.Response(status=307, headers={"Location": "ui/"})


def page_document(live: Live, scope: str) -> bytes:
    """Return what the page asks for every few seconds; the scope is `node` or `cluster`."""
    document: dict[str, Any] = live_document(live, "services", "edges")
    return msgspec.json.encode({"scope": scope, **document})
