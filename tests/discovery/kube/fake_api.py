"""An API server for tests that can do at once what a real one does once a year.

It follows the documented conventions for the collections we watch: lists with `limit` and `continue`,
watches with `resourceVersion`, bookmarks and `timeoutSeconds`, 410 for versions that are too old. `script()`
gives the next requests of a collection another answer; `end_watches`, `cut_watches`, `bookmark` and `send`
act on the watches that are open.
"""

from __future__ import annotations

import asyncio
import copy
import json
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.discovery.kube.forwarded import open_forward, pump

Document = dict[str, Any]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

PATHS = {
    "Service": "/api/v1/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/endpointslices",
    "Namespace": "/api/v1/namespaces",
    "Pod": "/api/v1/pods",
}

CUSTOM_KINDS = {
    "traffictargets": "TrafficTarget",
    "trafficsplits": "TrafficSplit",
    "httproutegroups": "HTTPRouteGroup",
    "tcproutes": "TCPRoute",
}

EVENTS = "/apis/events.k8s.io/v1/namespaces/{namespace}/events"


def status(code: int, reason: str, message: str, **details: Any) -> Document:
    """A `Status` object as the API server sends it."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
        "details": details,
    }


EXPIRED = status(410, "Expired", "The provided resource version is too old")


def answer(code: int, document: Document, **headers: str) -> Answer:
    """An answer that is a JSON document."""

    async def send(request: web.Request) -> web.StreamResponse:
        return web.json_response(document, status=code, headers=headers)

    return send


def raw(code: int, body: bytes, content_type: str = "application/json") -> Answer:
    """An answer of any bytes."""

    async def send(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, body=body, content_type=content_type)

    return send


def cut_after(body: bytes) -> Answer:
    """An answer whose connection is reset after these bytes of its body."""

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(body)
        assert request.transport is not None
        request.transport.close()
        return response

    return send


async def hang(request: web.Request) -> web.StreamResponse:
    """No answer at all."""
    await asyncio.Event().wait()
    raise AssertionError


async def hang_after_head(request: web.Request) -> web.StreamResponse:
    """A watch that is accepted and then says nothing for ever, as over a connection that is half open."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await asyncio.Event().wait()
    return response


class FakeApi:
    """The server; `objects` are by kind, namespace and name."""

    def __init__(self) -> None:
        self.version = 1000
        self.oldest = 0
        """Watches from an earlier version get 410."""
        self.token = ""
        """If set, the bearer token that is asked for."""
        self.objects: dict[tuple[str, str, str], Document] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """`list`, `check` (a list of one object) or `watch`, the kind, and the query, in order."""
        self.pages: dict[tuple[str, str], Answer] = {}
        """What pods answer through the proxy, by `name:port` and path."""
        self.forwards: dict[str, tuple[str, int] | int] = {}
        """Where port forwarding of a pod leads, or the status with which it is refused; else 404."""
        self.logs: dict[str, Answer] = {}
        """The logs of pods."""
        self.events: dict[tuple[str, str], Document] = {}
        """Events by namespace and name."""
        self.resources: dict[str, list[Document]] = {}
        """What custom resources hold, by the path of their list."""
        self.answers: dict[str, Answer] = {}
        """What is answered in place of anything else, by path; not for collections of `PATHS`."""
        self._groups: dict[str, tuple[str, ...]] = {}
        self._history: list[tuple[int, str, Document]] = []
        self._scripts: dict[tuple[str, str], deque[Answer]] = {}
        self._watches: dict[str, list[asyncio.Queue[bytes | None]]] = {kind: [] for kind in PATHS}
        self._runner: web.AppRunner | None = None
        self.port = 0

    # -- running ---------------------------------------------------------------------------------------

    async def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        """Listen on 127.0.0.1."""
        app = web.Application()
        for kind, path in PATHS.items():
            app.router.add_get(path, partial(self._serve, kind))
            group, _, plural = path.rpartition("/")
            app.router.add_get(f"{group}/namespaces/{{namespace}}/{plural}", partial(self._serve, kind))
            one = f"{group}/namespaces/{{namespace}}/{plural}/{{name}}"
            app.router.add_get(one, partial(self._serve_one, "get", kind))
            app.router.add_patch(one, partial(self._serve_one, "patch", kind))
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/proxy/{path}", self._proxy)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/portforward", self._forward)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/log", self._log)
        app.router.add_post(EVENTS, self._create_event)
        app.router.add_get("/apis/{path:.*}", self._serve_custom)
        app.router.add_get("/{path:.*}", self._serve_other)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Go away, with all connections."""
        self.cut_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def write_kubeconfig(self, path: Path, user: Document | None = None, ca: Path | None = None) -> str:
        """Write a kubeconfig that leads here (with a CA: over TLS) and return its path."""
        cluster = {"server": f"{'https' if ca else 'http'}://127.0.0.1:{self.port}/"}
        if ca is not None:
            cluster["certificate-authority"] = str(ca)
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "contexts": [{"name": "test", "context": {"cluster": "fake", "user": "tester"}}],
                    "clusters": [{"name": "fake", "cluster": cluster}],
                    "users": [{"name": "tester", "user": user or {}}],
                }
            )
        )
        return str(path)

    # -- content ---------------------------------------------------------------------------------------

    def put(self, document: Document) -> None:
        """Create or replace an object; watchers are told."""
        kind, metadata = document["kind"], document["metadata"]
        key = (kind, metadata.get("namespace", ""), metadata["name"])
        stored = copy.deepcopy(document)
        self.version += 1
        stored["metadata"]["resourceVersion"] = str(self.version)
        stored["metadata"].setdefault("uid", "-".join(filter(None, key)))
        self._happened("MODIFIED" if key in self.objects else "ADDED", stored)
        self.objects[key] = stored

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object; watchers are told."""
        gone = self.objects.pop((kind, namespace, name))
        self.version += 1
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._happened("DELETED", gone)

    def forget_history(self) -> None:
        """Compact: a watch from any version before now gets 410."""
        self.version += 1
        self.oldest = self.version

    def restore(self, version: int) -> None:
        """Go back to an earlier version, as a store does that was restored from a backup."""
        self.version, self.oldest = version, 0
        self._history.clear()

    def install(self, group: str, *versions: str) -> None:
        """Have a group of custom resources, the last version preferred; `resources` says what they hold."""
        self._groups[f"/apis/{group}"] = tuple(f"{group}/{version}" for version in versions)

    # -- misbehaviour ----------------------------------------------------------------------------------

    def script(self, verb: str, kind: str, *answers: Answer) -> None:
        """Answer the next requests of this verb (`list`, `watch`) and kind like this."""
        self._scripts.setdefault((verb, kind), deque()).extend(answers)

    def send(self, kind: str, data: bytes) -> None:
        """Send bytes on every open watch of this kind."""
        for queue in self._watches[kind]:
            queue.put_nowait(data)

    def bookmark(self, kind: str) -> None:
        """Send a bookmark of the current version."""
        self.send(kind, _line("BOOKMARK", {"kind": kind, "metadata": {"resourceVersion": str(self.version)}}))

    def end_watches(self, kind: str) -> None:
        """End the open watches of this kind in order."""
        self.send(kind, b"")

    def cut_watches(self, *kinds: str, after: bytes = b"") -> None:
        """Cut the connections of open watches, after these bytes."""
        for kind in kinds or PATHS:
            for queue in self._watches[kind]:
                if after:
                    queue.put_nowait(after)
                queue.put_nowait(None)

    def watching(self, kind: str) -> int:
        """How many watches of this kind are open."""
        return len(self._watches[kind])

    def count(self, verb: str, kind: str) -> int:
        """How many such requests have come."""
        return sum(1 for request in self.requests if request[:2] == (verb, kind))

    def queries(self, verb: str, kind: str) -> list[dict[str, str]]:
        """The queries of such requests."""
        return [
            query for seen_verb, seen_kind, query in self.requests if (seen_verb, seen_kind) == (verb, kind)
        ]

    # -- serving ---------------------------------------------------------------------------------------

    async def _serve(self, kind: str, request: web.Request) -> web.StreamResponse:
        query = {**request.query, **request.match_info}
        verb = "watch" if query.get("watch") == "1" else "check" if query.get("limit") == "1" else "list"
        self.requests.append((verb, kind, query))
        scripted = self._scripts.get((verb, kind))
        if scripted:
            return await scripted.popleft()(request)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return await answer(401, status(401, "Unauthorized", "Unauthorized"))(request)
        return await self._watch(kind, query, request) if verb == "watch" else self._list(kind, query)

    async def _serve_one(self, verb: str, kind: str, request: web.Request) -> web.StreamResponse:
        """Answer for a single object: `get`, or `patch` with a merge patch of its metadata."""
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        self.requests.append((verb, kind, {**request.query, **request.match_info}))
        scripted = self._scripts.get((verb, kind))
        if scripted:
            return await scripted.popleft()(request)
        found = self.objects.get((kind, namespace, name))
        if found is None:
            return await answer(404, status(404, "NotFound", f"{kind} {name!r} not found"))(request)
        if verb == "patch":
            change = json.loads(await request.text())["metadata"]
            if change["resourceVersion"] != found["metadata"]["resourceVersion"]:
                message = "the object has been modified; please apply your changes to the latest version"
                return await answer(409, status(409, "Conflict", message))(request)
            changed = copy.deepcopy(found)
            changed["metadata"].setdefault("annotations", {}).update(change["annotations"])
            self.put({"kind": kind, "apiVersion": "v1", **changed})
            found = self.objects[kind, namespace, name]
        return web.json_response(found)

    async def _serve_custom(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path in self.answers:
            return await self.answers[path](request)
        if path in self._groups:
            versions = [{"groupVersion": version} for version in self._groups[path]]
            group = {"kind": "APIGroup", "versions": versions, "preferredVersion": versions[-1]}
            return web.json_response(group)
        if any(path.removeprefix("/apis/") in versions for versions in self._groups.values()):
            names = [{"name": known.rpartition("/")[2]} for known in self.resources if known.startswith(path)]
            return web.json_response({"kind": "APIResourceList", "resources": names})
        everywhere, inside, rest = path.partition("/namespaces/")
        namespace, _, plural = rest.partition("/")
        found = self.resources.get(f"{everywhere}/{plural}" if inside else path)
        if found is not None:
            kind, metadata = CUSTOM_KINDS[path.rpartition("/")[2]], {"resourceVersion": "1"}
            items = [item for item in found if not inside or item["metadata"]["namespace"] == namespace]
            return web.json_response({"kind": f"{kind}List", "metadata": metadata, "items": items})
        return web.Response(status=404, text="404 page not found")

    async def _serve_other(self, request: web.Request) -> web.StreamResponse:
        found = self.answers.get(request.path)
        return web.Response(status=404, text="404 page not found") if found is None else await found(request)

    async def _proxy(self, request: web.Request) -> web.StreamResponse:
        """Answer for a pod's port, and for one that nobody listens on as a real server does."""
        found = self.pages.get((request.match_info["pod"], request.match_info["path"]))
        if found is None:
            message = "error trying to reach service: dial tcp 10.0.0.1:15000: connect: connection refused"
            return await answer(503, status(503, "ServiceUnavailable", message))(request)
        return await found(request)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        pod = request.match_info["pod"]
        self.requests.append(("forward", "Pod", {**request.query, **request.match_info}))
        to = self.forwards.get(pod, 404)
        if isinstance(to, int):
            return await answer(to, status(to, "Refused", "pods/portforward is refused"))(request)
        socket = await open_forward(request)
        await pump(socket, *to)
        return socket

    async def _log(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(("log", "Pod", {**request.query, **request.match_info}))
        found = self.logs.get(request.match_info["pod"])
        if found is None:
            return await answer(404, status(404, "NotFound", "the pod is not found"))(request)
        return await found(request)

    async def _create_event(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(("create", "Event", {**request.query, **request.match_info}))
        scripted = self._scripts.get(("create", "Event"))
        if scripted:
            return await scripted.popleft()(request)
        document = json.loads(await request.text())
        key = (request.match_info["namespace"], document["metadata"]["name"])
        if key in self.events:
            return await answer(409, status(409, "AlreadyExists", f"events {key[1]!r} already exists"))(
                request
            )
        self.events[key] = document
        return web.json_response(document, status=201)

    def _list(self, kind: str, query: dict[str, str]) -> web.Response:
        found = [
            {name: part for name, part in document.items() if name not in ("kind", "apiVersion")}
            for key, document in sorted(self.objects.items())
            if key[0] == kind and _selected(document, query)
        ]
        version, start = str(self.version), 0
        if "continue" in query:
            version, _, offset = query["continue"].partition("/")
            start = int(offset)
            if int(version) < self.oldest:
                return web.json_response(EXPIRED, status=410)
        end = start + int(query.get("limit", "0")) if "limit" in query else len(found)
        metadata: Document = {"resourceVersion": version}
        if end < len(found):
            metadata["continue"] = f"{version}/{end}"
            metadata["remainingItemCount"] = len(found) - end
        # An empty list is a null where Go programs write it.
        return web.json_response(
            {
                "kind": f"{kind}List",
                "apiVersion": "v1",
                "metadata": metadata,
                "items": found[start:end] or None,
            }
        )

    async def _watch(self, kind: str, query: dict[str, str], request: web.Request) -> web.StreamResponse:
        since = int(query["resourceVersion"])
        if since < self.oldest:
            return web.json_response(EXPIRED, status=410)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for version, type_, document in self._history:
            if version > since and document["kind"] == kind and _selected(document, query):
                queue.put_nowait(_line(type_, document))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._watches[kind].append(queue)
        try:
            while data := await queue.get():
                await response.write(data)
        finally:
            self._watches[kind].remove(queue)
        if data is None:
            assert request.transport is not None
            request.transport.close()
        return response

    def _happened(self, type_: str, document: Document) -> None:
        self._history.append((self.version, type_, document))
        # Selectors are only looked at where a watch begins: tests change no selected field of a live object.
        self.send(document["kind"], _line(type_, document))


def _line(type_: str, document: Document) -> bytes:
    return json.dumps({"type": type_, "object": document}).encode() + b"\n"


def _selected(document: Document, query: dict[str, str]) -> bool:
    namespace = document["metadata"].get("namespace", "")
    if query.get("namespace", namespace) != namespace:
        return False
    labels = document["metadata"].get("labels", {})
    for term in filter(None, query.get("labelSelector", "").split(",")):
        name, equals, value = term.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    fields = {
        "spec.nodeName": document.get("spec", {}).get("nodeName", ""),
        "status.phase": document.get("status", {}).get("phase", ""),
    }
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        name, equals, value = term.partition("!=") if "!=" in term else term.partition("=")
        if (fields[name] == value) != (equals == "="):
            return False
    return True
