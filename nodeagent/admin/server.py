"""The admin server: health, readiness, metrics and the plan, on an address of its own.

It shares the agent's loop with DNS, so long pages are sent in pieces and the plan is written by a thread. It
changes nothing: GET and HEAD only. What a client can use up is bounded: sizes, idle time, the time of a
response, and the number of connections; when there are too many, the oldest is closed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
import structlog
from aiohttp import web

from nodeagent.admin.malformed import MalformedRequests
from nodeagent.admin.metrics import CONTENT_TYPE
from nodeagent.admin.readiness import Readiness
from nodeagent.admin.resolve import NotOurs, Resolution

log = structlog.get_logger()

MAX_CONNECTIONS = 64
MAX_LINE = 4096
KEEPALIVE = 30.0
"""Seconds that an idle connection is kept."""
RESPONSE_TIME = 30.0
"""Seconds in which a client has to take a long response."""

PAGES = {
    "/healthz": "200 while this process runs",
    "/readyz": "200 when the mesh is served, 503 before that and while draining; ?verbose says more",
    "/metrics": "Prometheus metrics of the agent and all its workers",
    "/plan": "what this node does now, as JSON",
    "/explain": "what the mesh would do with a request, as JSON; ?url=, &method=, &header=, &from=",
    "/resolve": "what the mesh's DNS says on this node, as JSON; ?name= asks for a name of its zones",
}


class AdminView(msgspec.Struct, frozen=True):
    """What the admin server shows."""

    readiness: Readiness
    metrics: Callable[[], Iterator[bytes]]
    plan: Callable[[], Awaitable[bytes]]
    resolve: Callable[[str], Awaitable[Resolution]]
    """Asks DNS for a name; raises `NotOurs`."""
    notes: Callable[[], Iterable[str]] = tuple
    """Further lines of `/readyz?verbose`; readiness does not depend on them."""
    explain: Callable[[Mapping[str, Sequence[str]]], Awaitable[bytes]] | None = None
    """Writes the explanation that a query asks for; raises `NoExplanation`. None: there is no such page."""


class NoExplanation(Exception):
    """There is nothing to explain; the message says what is wrong with the question."""


class AdminListenError(Exception):
    """The agent cannot listen on the admin address; the message says what to change."""


class AdminServer:
    """Serves an `AdminView` on an address, from `start` to `close`.

    With `share` a successor may listen beside its predecessor (SO_REUSEPORT).
    """

    def __init__(self, listen: tuple[str, int], view: AdminView, share: bool = False) -> None:
        self._listen = listen
        self._share = share or None
        self._view = view
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._malformed = MalformedRequests()
        self._making = asyncio.Lock()
        """Held while a piece of a response is made: one piece at a time."""

    @property
    def malformed(self) -> int:
        """How many requests were not HTTP, or broke a limit."""
        return self._malformed.count

    @property
    def address(self) -> tuple[str, int]:
        """The address it listens on: with the port that the system chose, if port 0 was asked for."""
        if self._server is None:
            return self._listen
        name = self._server.sockets[0].getsockname()
        return (name[0], name[1])

    async def start(self) -> None:
        """Listen.

        Raises:
            AdminListenError: the address is in use, does not exist here, or needs privileges.
        """
        app = web.Application(middlewares=[_guard], client_max_size=MAX_LINE)
        for path, handler in (
            ("/", self._index),
            ("/healthz", self._healthz),
            ("/readyz", self._readyz),
            ("/metrics", self._metrics),
            ("/plan", self._plan),
            ("/resolve", self._resolve),
            ("/explain", self._explain),
            ("/{path:.*}", self._not_found),
        ):
            app.router.add_get(path, handler)
        runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=KEEPALIVE,
            lingering_time=1.0,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            shutdown_timeout=1.0,
            logger=self._malformed.logger(),
        )
        await runner.setup()
        host, port = self._listen
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: _admit(runner), host, port, backlog=128, reuse_port=self._share
            )
        except OSError as error:
            await runner.cleanup()
            raise AdminListenError(_describe(host, port, error)) from error
        self._runner = runner
        log.info("admin_listening", address=f"{self.address[0]}:{self.address[1]}")

    async def close(self) -> None:
        """Stop listening and close the connections, a response in progress after a second."""
        server, self._server = self._server, None
        runner, self._runner = self._runner, None
        if server is not None:
            server.close()
        if runner is not None:
            await runner.cleanup()

    async def _index(self, _: web.Request) -> web.Response:
        return _text("svc.mesh node agent\n\n" + _paths())

    async def _not_found(self, request: web.Request) -> web.Response:
        return _text(f"there is no {request.path[:200]} here\n\n" + _paths(), 404)

    async def _healthz(self, _: web.Request) -> web.Response:
        return _text("ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        readiness = self._view.readiness
        status = 200 if readiness.ready else 503
        missing = [*(("draining",) if readiness.draining else ()), *readiness.pending]
        if "verbose" in request.query:
            lines = [*(f"[+] {name}" for name in readiness.released), *(f"[-] {name}" for name in missing)]
            verdict = "ready" if readiness.ready else "not ready"
            return _text("\n".join([*lines, *self._view.notes(), verdict]) + "\n", status)
        return _text("ready\n" if readiness.ready else f"not ready: {', '.join(missing)}\n", status)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        try:
            async with asyncio.timeout(RESPONSE_TIME):
                await self._send(response, self._view.metrics())
        except ConnectionError:
            log.debug("admin_client_left", path=request.path)
        except TimeoutError:
            log.warning("admin_response_abandoned", path=request.path, reason="the client does not read it")
            _abort(request)
        except Exception:
            log.exception("admin_request_failed", path=request.path)
            _abort(request)  # its head has been sent: a page that is cut short must not look complete
        return response

    async def _plan(self, _: web.Request) -> web.Response:
        body = await self._view.plan()
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def _resolve(self, request: web.Request) -> web.Response:
        try:
            found = await self._view.resolve(request.query.get("name", ""))
        except NotOurs as error:
            return _text(f"{error}\n", 400)
        body = msgspec.json.encode(found) + b"\n"
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def _explain(self, request: web.Request) -> web.Response:
        if self._view.explain is None:
            return await self._not_found(request)
        query = {name: request.query.getall(name) for name in request.query}
        try:
            body = await self._view.explain(query)
        except NoExplanation as error:
            return _text(f"{error}\n", 400)
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def _send(self, response: web.StreamResponse, pieces: Iterator[bytes]) -> None:
        """Send a long page in pieces. DNS queries are answered between two pieces, however many pages are
        requested.
        """
        while True:
            async with self._making:
                piece = next(pieces, None)
                await asyncio.sleep(0)
            if piece is None:
                break
            if piece:
                await response.write(piece)
        await response.write_eof()


def _admit(runner: web.AppRunner) -> asyncio.Protocol:
    server = runner.server
    assert server is not None
    connections = server.connections
    if len(connections) >= MAX_CONNECTIONS:
        connections[0].force_close()
    return server()


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception:
        log.exception("admin_request_failed", path=request.path)
        return _text("this page could not be made; see the agent's log\n", 500)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _text(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, headers={"Cache-Control": "no-store"})


def _paths() -> str:
    return "".join(f"{path:<10} {text}\n" for path, text in PAGES.items())


def _describe(host: str, port: int, error: OSError) -> str:
    # asyncio wraps the system's words in its own; the number says it plainly.
    why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return f"cannot listen on {host}:{port} for the admin server: {why}; choose another with --admin-listen"
