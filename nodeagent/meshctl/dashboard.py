"""The page of the whole cluster: a server on this machine that asks the agents for what the page shows.

It listens on 127.0.0.1. Others on this machine may reach that address, and pages of elsewhere may have a
browser ask it. So everything stands below a secret path, which is new each time, and only requests for
127.0.0.1 or localhost are answered.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

import msgspec
from aiohttp import web

from discovery.source import SourceError
from middleware.values import InvalidValue, parse_duration
from nodeagent.admin.failures_page import failures_body, failures_response, read_failures_query
from nodeagent.admin.tap_page import NoTap, Tap, show_tap
from nodeagent.admin.ui import HEADERS, PageFiles, etag_of, page_document, tagged, to_page
from nodeagent.explain.question import KNOWN
from nodeagent.meshctl.asking import Agents
from nodeagent.meshctl.explaining import ask_explanation
from nodeagent.meshctl.failures import ask_failures, share_of
from nodeagent.meshctl.live import ask_live
from nodeagent.meshctl.plans import ask_plan, read_backing
from nodeagent.stats.overview import Backing
from nodeagent.stats.signals import LONGEST

T = TypeVar("T")

ADDRESS: Final = "127.0.0.1"
FRESH: Final = {"live": 1.0, "plan": 5.0, "failures": 3.0}
"""Seconds for which an answer is given again, however many windows of a browser ask for it."""
REMEMBERED: Final = 64
"""Answers that are kept at most."""
LONGEST_NAME: Final = 253
"""Of an agent, as the page may ask for it."""


NO_TAP: Final = NoTap()


class _Plan(msgspec.Struct, frozen=True):
    """What an agent has told, and what is made of it."""

    body: bytes
    etag: str
    backing: Backing


NO_PLAN: Final = _Plan(b"", "", Backing({}))


class Dashboard:
    """Answers for the page. `now` is a clock that never goes back."""

    def __init__(self, agents: Agents, tap: Tap = NO_TAP, now: Callable[[], float] = time.monotonic) -> None:
        self._agents = agents
        self._tap_of_all = tap
        self._now = now
        self._files = PageFiles()
        self._plans = _Recent[_Plan](FRESH["plan"], now)
        self._lives = _Recent[bytes](FRESH["live"], now)
        self._failed = _Recent[bytes](FRESH["failures"], now)
        self._count = 0
        """How many agents there were when all were last asked for failures; 0: they have not been."""
        self.secret = secrets.token_urlsafe(24)

    def application(self) -> web.Application:
        """Return what is to be served."""
        application = web.Application(middlewares=[_guard])
        for path, handler in (
            ("/plan", self._plan),
            ("/failures", self._failures),
            ("/explain", self._explain),
            ("/tap", self._tap),
            ("/ui", to_page),
            ("/ui/live", self._live),
            ("/ui/{name:[^/]*}", self._files.serve),
        ):
            application.router.add_get(f"/{self.secret}{path}", handler)
        return application

    async def _plan(self, request: web.Request) -> web.Response:
        found = await self._plan_of(_agent(request))
        if found is NO_PLAN:
            return web.Response(text="no agent tells its plan\n", status=502, headers=HEADERS)
        headers = {"Cache-Control": "no-store", "Content-Type": "application/json"}
        return tagged(request, found.body, found.etag, headers)

    async def _live(self, request: web.Request) -> web.Response:
        window, agent = request.query.get("window", "10s"), _agent(request)
        try:
            parse_duration(window, least=1.0, most=LONGEST)
        except InvalidValue as error:
            return web.Response(text=f"window: {error}\n", status=400, headers=HEADERS)

        async def make() -> bytes:
            backing = (await self._plan_of(agent)).backing
            return page_document(await ask_live(self._agents, window, agent, backing), "cluster")

        body = await self._lives.get(f"{window} {agent}", make)
        headers = {"Cache-Control": "no-store"}
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _failures(self, request: web.Request) -> web.Response:
        agent = _agent(request)
        try:
            service, limit = read_failures_query(request.query)
        except InvalidValue as error:
            return web.Response(text=f"{error}\n", status=400, headers=HEADERS)

        async def make() -> bytes:
            each = limit if agent else share_of(limit, self._count or len(await self._agents.names()))
            said = await ask_failures(self._agents, service, limit, agent, each)
            if not agent:
                self._count = len(said.agents)
            asked = {"each": each} if each < limit else {}
            return failures_body({**said.document(), **asked})

        return failures_response(request, await self._failed.get(f"{service} {limit} {agent}", make))

    async def _explain(self, request: web.Request) -> web.Response:
        asked = {name: request.query[name] for name in KNOWN if name in request.query}
        answer = await ask_explanation(self._agents, asked, _agent(request))
        status, kind = (400, "text/plain") if answer.reason else (200, "application/json")
        headers = {**HEADERS, "Cache-Control": "no-store"}
        text = answer.reason or answer.text
        return web.Response(text=text, status=status, content_type=kind, headers=headers)

    async def _tap(self, request: web.Request) -> web.StreamResponse:
        return await show_tap(request, self._tap_of_all, time.monotonic)

    async def _plan_of(self, agent: str) -> _Plan:
        async def make() -> _Plan:
            answer = await ask_plan(self._agents, agent)
            return NO_PLAN if answer is None else await asyncio.to_thread(_read_plan, answer.text)

        return await self._plans.get(agent, make)


def _read_plan(text: str) -> _Plan:
    body = text.encode()
    return _Plan(body, etag_of(body), read_backing(text))


def _agent(request: web.Request) -> str:
    return request.query.get("agent", "")[:LONGEST_NAME]


class _Recent(Generic[T]):
    """What was asked for lately, by what was asked. Who asks meanwhile waits for the same answer."""

    def __init__(self, fresh: float, now: Callable[[], float]) -> None:
        self._fresh = fresh
        self._now = now
        self._made: dict[str, tuple[float, T]] = {}
        self._making: dict[str, asyncio.Lock] = {}

    async def get(self, key: str, make: Callable[[], Awaitable[T]]) -> T:
        """Return what is known and fresh, or make it."""
        async with self._making.setdefault(key, asyncio.Lock()):
            known = self._made.get(key)
            if known is not None and self._now() - known[0] < self._fresh:
                return known[1]
            value = await make()
            self._made.pop(key, None)
            self._made[key] = (self._now(), value)
            while len(self._made) > REMEMBERED:
                oldest = next(iter(self._made))
                del self._made[oldest]
                self._making.pop(oldest, None)
            return value


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    if request.url.host not in (ADDRESS, "localhost"):
        return web.Response(text="this is not asked for by that name\n", status=403, headers=HEADERS)
    try:
        return await handler(request)
    except SourceError as error:
        return web.Response(text=f"{error}\n", status=502, headers=HEADERS)


@asynccontextmanager
async def serve_dashboard(agents: Agents, port: int = 0, tap: Tap = NO_TAP) -> AsyncIterator[str]:
    """Serve the page, and give its address. `tap` is where live requests come from.

    Raises:
        OSError: the port is in use.
    """
    dashboard = Dashboard(agents, tap)
    runner = web.AppRunner(dashboard.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, ADDRESS, port)
        await site.start()
        chosen = runner.addresses[0][1]
        yield f"http://{ADDRESS}:{chosen}/{dashboard.secret}/ui/"
    finally:
        await runner.cleanup()
