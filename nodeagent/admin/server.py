"""The admin server: health, readiness, metrics and the plan, on an address of its own.

It shares the agent's loop with DNS, so long pages are sent in pieces and the plan is written by a thread. It
changes nothing: GET and HEAD only. Before each page stands the checkpoint of `nodeagent.admin.access`. What a
client can use up is bounded: sizes, idle time, the time of a response, and the number of connections; when
there are too many, the oldest is closed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
import structlog
from aiohttp import web

from middleware.values import InvalidValue, parse_duration
from nodeagent.admin.access import FORWARDED_FIELDS, LOOPBACK, Asker, advice, refusal, wants_loopback
from nodeagent.admin.failures_page import failures_body, failures_response, read_failures_query
from nodeagent.admin.formats import TextFormat, choose
from nodeagent.admin.malformed import MalformedRequests
from nodeagent.admin.plan_page import PlanText
from nodeagent.admin.readiness import Readiness
from nodeagent.admin.resolve import NotOurs, Resolution
from nodeagent.admin.tap_page import NoTap, Tap, show_tap
from nodeagent.admin.ui import PageFiles, compressed, page_document, tagged, to_page
from nodeagent.stats.failures import Failures
from nodeagent.stats.overview import AgentSaid, Backing, Live, merge_nodes
from nodeagent.stats.signals import LONGEST, NodeStats

log = structlog.get_logger()

MAX_CONNECTIONS = 64
MAX_LINE = 4096
KEEPALIVE = 30.0
"""Seconds that an idle connection is kept."""
RESPONSE_TIME = 30.0
"""Seconds in which a client has to take a long response."""

WINDOW = "10s"
"""What `/stats` tells of if nothing else is asked for."""

PAGES = {
    "/healthz": "200 while this process runs",
    "/readyz": "200 when the mesh is served, 503 before that and while draining; ?verbose says more",
    "/metrics": "Prometheus metrics of the agent and all its workers",
    "/plan": "what this node does now, as JSON; ?service=NAMESPACE/NAME for one Service",
    "/stats": "rates, success and latency of the last seconds by port and source, as JSON; ?window=10s",
    "/ui/": "a page for people: the map of calls, Services with their settings, problems, endpoints",
    "/tap": "requests of ?service=NAMESPACE/NAME as they end, a JSON object a line; see docs/meshctl.md",
    "/failures": "the latest requests that failed or were refused, with reasons, as JSON; ?service=, &limit=",
    "/explain": "what the mesh would do with a request, as JSON; ?url=, &method=, &header=, &from=",
    "/resolve": "what the mesh's DNS says on this node, as JSON; ?name= asks for a name of its zones",
}
"""Every page; who may read one says `nodeagent.admin.access`."""


async def no_backing() -> Backing:
    """Return that nothing is known of which Service a source belongs to."""
    return Backing({})


def no_failures(service: str, limit: int) -> Failures:
    """Return that nothing has failed: there are no workers."""
    return Failures("", 0.0, 0, 0, 0, ())


class AdminView(msgspec.Struct, frozen=True):
    """What the admin server shows."""

    readiness: Readiness
    metrics: Callable[[TextFormat], Iterator[bytes]]
    plan: Callable[[str], Awaitable[PlanText]]
    """Tells the plan, or what it says of a Service `namespace/name`."""
    resolve: Callable[[str], Awaitable[Resolution]]
    """Asks DNS for a name; raises `NotOurs`."""
    stats: Callable[[float], Awaitable[NodeStats]]
    """Returns the stats of so many seconds."""
    notes: Callable[[], Iterable[str]] = tuple
    """Further lines of `/readyz?verbose`; readiness does not depend on them."""
    backing: Callable[[], Awaitable[Backing]] = no_backing
    """Tells which Service a source belongs to."""
    tap: Tap = NoTap()
    """Where live requests come from."""
    failures: Callable[[str, int], Failures] = no_failures
    """Returns so many of the latest failures, of one Service or (empty) of all."""
    explain: Callable[[Mapping[str, Sequence[str]]], Awaitable[bytes]] | None = None
    """Writes the explanation that a query asks for; raises `NoExplanation`. None: there is no such page."""


class NoExplanation(Exception):
    """There is nothing to explain; the message says what is wrong with the question."""


class AdminListenError(Exception):
    """The agent cannot listen on the admin address; the message says what to change."""


class AdminServer:
    """Serves an `AdminView` on an address, from `start` to `close`, and at `LOOPBACK` too, where port
    forwarding arrives.

    With `share` a successor may listen beside its predecessor (SO_REUSEPORT).
    """

    def __init__(self, listen: tuple[str, int], view: AdminView, share: bool = False) -> None:
        self._listen = listen
        self._share = share or None
        self._view = view
        self._runner: web.AppRunner | None = None
        self._servers: list[asyncio.Server] = []
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
        if not self._servers:
            return self._listen
        name = self._servers[0].sockets[0].getsockname()
        return (name[0], name[1])

    async def start(self) -> None:
        """Listen.

        Raises:
            AdminListenError: the address is in use, does not exist here, or needs privileges.
        """
        app = web.Application(middlewares=[_guard, self._checkpoint], client_max_size=MAX_LINE)
        for path, handler in (
            ("/", self._index),
            ("/healthz", self._healthz),
            ("/readyz", self._readyz),
            ("/metrics", self._metrics),
            ("/plan", self._plan),
            ("/stats", self._stats),
            ("/tap", self._tap),
            ("/failures", self._failures),
            ("/resolve", self._resolve),
            ("/ui", to_page),
            ("/ui/live", self._live),
            ("/ui/{name:[^/]*}", PageFiles().serve),
            ("/explain", self._explain),
            ("/{path:.*}", self._not_found),
        ):
            app.router.add_get(path, handler)
        app.on_response_prepare.append(_as_it_says)
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
        self._runner = runner
        try:
            await self._listen_at(runner, *self._listen)
            if wants_loopback(self._listen[0]):
                await self._listen_at(runner, LOOPBACK, self.address[1])
        except AdminListenError:
            await self.close()
            raise
        log.info("admin_listening", address=f"{self.address[0]}:{self.address[1]}")

    async def _listen_at(self, runner: web.AppRunner, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: _admit(runner), host, port, backlog=128, reuse_port=self._share
            )
        except OSError as error:
            raise AdminListenError(_describe(host, port, error)) from error
        self._servers.append(server)

    async def close(self) -> None:
        """Stop listening and close the connections, a response in progress after a second."""
        servers, self._servers = self._servers, []
        runner, self._runner = self._runner, None
        for server in servers:
            server.close()
        if runner is not None:
            await runner.cleanup()

    @web.middleware
    async def _checkpoint(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Show a page only to who may read it; a path that is no page is treated as one that is guarded."""
        resource = request.match_info.route.resource
        reason = refusal(resource.canonical, _asker(request)) if resource is not None else ""
        if not reason:
            return await handler(request)
        log.debug("admin_request_refused", path=request.path[:200], source=request.remote, reason=reason)
        return _text(f"{request.path[:200]} is not shown here: {reason}. {advice(self.address[1])}\n", 403)

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
        form = choose(", ".join(request.headers.getall("Accept", ())))
        headers = {"Content-Type": form.content_type, "Cache-Control": "no-store", "Vary": "Accept"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        try:
            async with asyncio.timeout(RESPONSE_TIME):
                await self._send(response, self._view.metrics(form))
        except ConnectionError:
            log.debug("admin_client_left", path=request.path)
        except TimeoutError:
            log.warning("admin_response_abandoned", path=request.path, reason="the client does not read it")
            _abort(request)
        except Exception:
            log.exception("admin_request_failed", path=request.path)
            _abort(request)  # its head has been sent: a page that is cut short must not look complete
        return response

    async def _plan(self, request: web.Request) -> web.Response:
        page = await self._view.plan(request.query.get("service", ""))
        headers = {"Cache-Control": "no-store", "Content-Type": "application/json"}
        return tagged(request, page.body, page.etag, headers)

    async def _stats(self, request: web.Request) -> web.Response:
        try:
            stats = await self._last_seconds(request)
        except InvalidValue as error:
            return _text(f"window: {error}\n", 400)
        return _json(msgspec.json.encode(stats) + b"\n")

    async def _live(self, request: web.Request) -> web.Response:
        try:
            stats = await self._last_seconds(request)
        except InvalidValue as error:
            return _text(f"window: {error}\n", 400)
        live = Live(merge_nodes([stats], await self._view.backing()), (AgentSaid(stats.node, ""),))
        headers = {"Cache-Control": "no-store", "Content-Type": "application/json"}
        return compressed(page_document(live, "node"), headers)

    async def _last_seconds(self, request: web.Request) -> NodeStats:
        """Return the stats that are asked for; raises `InvalidValue` if there are none of that time."""
        seconds = parse_duration(request.query.get("window", WINDOW), least=1.0, most=LONGEST)
        return await self._view.stats(seconds)

    async def _resolve(self, request: web.Request) -> web.Response:
        try:
            found = await self._view.resolve(request.query.get("name", ""))
        except NotOurs as error:
            return _text(f"{error}\n", 400)
        return _json(msgspec.json.encode(found) + b"\n")

    async def _tap(self, request: web.Request) -> web.StreamResponse:
        return await show_tap(request, self._view.tap, time.monotonic)

    async def _failures(self, request: web.Request) -> web.Response:
        try:
            service, limit = read_failures_query(request.query)
        except InvalidValue as error:
            return _text(f"{error}\n", 400)
        return failures_response(request, failures_body(self._view.failures(service, limit)))

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


async def _as_it_says(_: web.Request, response: web.StreamResponse) -> None:
    """Have browsers take a page for what it says it is: text that holds what somebody sent is no HTML."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")


def _asker(request: web.Request) -> Asker:
    transport = request.transport
    names = [transport.get_extra_info(name) if transport else None for name in ("peername", "sockname")]
    peer, local = (str(name[0]) if name else "" for name in names)
    return Asker(peer, local, request.host, any(name in request.headers for name in FORWARDED_FIELDS))


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


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})


def _paths() -> str:
    return "".join(f"{path:<10} {text}\n" for path, text in PAGES.items())


def _describe(host: str, port: int, error: OSError) -> str:
    # asyncio wraps the system's words in its own; the number says it plainly.
    why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return f"cannot listen on {host}:{port} for the admin server: {why}; choose another with --admin-listen"
