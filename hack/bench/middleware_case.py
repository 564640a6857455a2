"""What each middleware costs a request: the real data plane with it and without, between idle transports.

`python -m hack.bench.middleware_case` prints the tables of docs/performance.md: for each middleware in its
usual ways the µs of Python of a request with it alone, the ratio to a plain one, and what is its own. That is
what it adds to a layer that does nothing: the price of having layers is paid once, however many there are.
Everything is measured in turn, and the least of all rounds counts. In the folder of compiled modules, with
that folder in PYTHONPATH, it prints the figures of these; the table's heading says which they are.

System calls of sockets are not in it. The locks that several workers take on a shared rate limit are.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Any, Final, NamedTuple, cast

import msgspec

from discovery.model import Endpoint, ServiceKey
from hack.bench.python_case import REQUEST, RESPONSE, IdleTransport
from hack.bench.services import layers_of
from middleware.contract import Grant
from middleware.registry import MIDDLEWARES
from nodeagent.plan.model import BackendKey, BackendSpec, Listener, Rule, Weighted
from nodeagent.proxy import exchange
from nodeagent.proxy.data_plane import DataPlane
from nodeagent.proxy.http1.client import Http1Upstream
from nodeagent.proxy.http1.server import Http1Connection
from nodeagent.proxy.pool import Pool
from nodeagent.proxy.streams import Source
from nodeagent.settings import Limits
from nodeagent.stats.cells import SharedCells
from nodeagent.stats.columns import FIRST_SLOT, REFUSALS, Layout
from nodeagent.stats.windows import SharedWindows

REPEATS: Final = 250
ADDRESS: Final = "127.64.0.10"
NAMESPACE: Final = "bench"
OTHER: Final = "other"
"""The Service that layers choose, or copy to."""

PAGE: Final = REQUEST.replace(b"\r\n\r\n", b"\r\nOrigin: https://shop.example\r\n\r\n")
CATALOG: Final = REQUEST.replace(b"GET /", b"GET /catalog/items")
TENANT: Final = REQUEST.replace(b"\r\n\r\n", b"\r\nX-Tenant: a\r\n\r\n")
TIMED: Final = REQUEST.replace(b"\r\n\r\n", b"\r\nX-SvcMesh-Timing: 1\r\n\r\n")
LANGUAGE: Final = REQUEST.replace(b"\r\n\r\n", b"\r\nAccept-Language: en\r\n\r\n")
FRESH: Final = RESPONSE.replace(b"\r\n\r\nok", b"\r\nCache-Control: max-age=86400\r\n\r\nok")
FRESH_BY_LANGUAGE: Final = FRESH.replace(b"\r\n\r\nok", b"\r\nVary: Accept-Language\r\n\r\nok")
PRIVATE: Final = RESPONSE.replace(b"\r\n\r\nok", b"\r\nCache-Control: private\r\n\r\nok")
RATE: Final = "1000000/s"
"""Such that nothing is refused."""


class Case(msgspec.Struct, frozen=True):
    """One way to use a middleware."""

    middleware: str
    """Its name in the registry; empty: none."""
    shown: str
    """What the table says of it."""
    annotations: Mapping[str, str]
    request: bytes = REQUEST
    response: bytes = RESPONSE
    answers: tuple[str, ...] = ("own",)
    """Which endpoints get a request and answer it: the Service's own, the other one's, both, or none."""
    turns: bool = False
    """It needs turns of the loop before there is something to answer."""
    workers: int = 1
    """Of the node: several take a lock to count."""
    like: bytes = REQUEST
    """The plain request that it is compared with."""


PLAIN: Final = Case("", "no middleware", {})
EMPTY: Final = Case(
    "circuit-breaker", "a layer that does nothing", {"svc.mesh/circuit-breaker-force": "closed"}
)
CASES: Final = (
    EMPTY,
    Case("tracing", "tracing 1%", {"svc.mesh/tracing": "1%"}),
    Case("server-timing", "server-timing", {"svc.mesh/server-timing": "on"}),
    Case(
        "server-timing",
        "server-timing on-request, asked for",
        {"svc.mesh/server-timing": "on-request"},
        TIMED,
        like=TIMED,
    ),
    Case(
        "server-timing", "server-timing on-request, not asked for", {"svc.mesh/server-timing": "on-request"}
    ),
    Case("cors", "cors, from a page", {"svc.mesh/cors": "https://shop.example"}, PAGE, like=PAGE),
    Case("cors", "cors, not from a page", {"svc.mesh/cors": "https://shop.example"}),
    Case("cors", "cors, any origin, from a page", {"svc.mesh/cors": "*"}, PAGE, like=PAGE),
    Case("rate-limit", "rate-limit", {"svc.mesh/rate-limit": RATE}),
    Case("rate-limit", "rate-limit, several workers", {"svc.mesh/rate-limit": RATE}, workers=2),
    Case("rate-limit", "rate-limit per=source", {"svc.mesh/rate-limit": f"{RATE} per=source"}),
    Case(
        "rate-limit",
        "rate-limit per=source, several workers",
        {"svc.mesh/rate-limit": f"{RATE} per=source"},
        workers=2,
    ),
    Case(
        "rate-limit",
        "rate-limit per=header:x-tenant",
        {"svc.mesh/rate-limit": f"{RATE} per=header:x-tenant"},
        TENANT,
        like=TENANT,
    ),
    Case("rate-limit", "rate-limit headers=on", {"svc.mesh/rate-limit": f"{RATE} headers=on"}),
    Case(
        "rate-limit",
        "rate-limit scope=cluster",
        {"svc.mesh/rate-limit": f"{RATE} scope=cluster"},
        turns=True,
    ),
    Case("timeout", "timeout", {"svc.mesh/timeout": "10s"}),
    Case("max-requests", "max-requests", {"svc.mesh/max-requests": "100"}),
    Case("max-requests", "max-requests, adaptive", {"svc.mesh/max-requests": "adaptive"}),
    Case("split", "split", {"svc.mesh/split": f"{OTHER}=100"}, answers=("other",)),
    Case("headers", "headers, one added to the request", {"svc.mesh/request-headers": "add x-env=prod"}),
    Case("headers", "headers, one set in the request", {"svc.mesh/request-headers": "set x-env=prod"}),
    Case("headers", "headers, one set in the response", {"svc.mesh/response-headers": "set x-env=prod"}),
    Case("redirect", "redirect, of other paths", {"svc.mesh/redirect": "308 prefix=/old path=/new"}),
    Case("redirect", "redirect", {"svc.mesh/redirect": "308 host=shop.example"}, answers=()),
    Case("rewrite", "rewrite", {"svc.mesh/rewrite": "prefix /catalog /"}, CATALOG, like=CATALOG),
    Case("mirror", "mirror, not copied", {"svc.mesh/mirror": f"{OTHER} 0.01%"}),
    Case("mirror", "mirror, copied", {"svc.mesh/mirror": OTHER}, answers=("own", "other"), turns=True),
    Case("fault", "fault, not asked for", {"svc.mesh/fault": "by-header"}),
    Case("cache", "cache, a hit", {"svc.mesh/cache": "on"}, REQUEST, FRESH, answers=()),
    Case(
        "cache",
        "cache, a hit with Vary",
        {"svc.mesh/cache": "on"},
        LANGUAGE,
        FRESH_BY_LANGUAGE,
        answers=(),
        like=LANGUAGE,
    ),
    Case("cache", "cache, a miss that is not kept", {"svc.mesh/cache": "on"}, REQUEST, PRIVATE),
    Case("circuit-breaker", "circuit-breaker", {"svc.mesh/circuit-breaker": "NetworkErrorRatio() > 0.5"}),
    Case(
        "circuit-breaker",
        "circuit-breaker, by latency",
        {"svc.mesh/circuit-breaker": "LatencyAtQuantileMS(50.0) > 100"},
    ),
    Case("retry", "retry", {"svc.mesh/retry-attempts": "2"}),
    Case("retry", "retry, and hedge", {"svc.mesh/retry-attempts": "2", "svc.mesh/hedge": "95%"}),
    Case("per-try-timeout", "per-try-timeout", {"svc.mesh/per-try-timeout": "5s"}),
)
"""Those of requests; what a middleware of connections costs is paid once for each of these."""


class TurningLoop(asyncio.SelectorEventLoop):
    """A loop that never runs: what it is to call soon is called by `turn`."""

    def __init__(self) -> None:
        self._soon: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        super().__init__()

    def call_soon(  # type: ignore[override]  # of any arguments
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """Keep it until the next turn."""
        self._soon.append((callback, args))
        return asyncio.Handle(callback, args, self, context)

    def turn(self) -> None:
        """Call what is due."""
        soon, self._soon = self._soon, []
        for callback, args in soon:
            callback(*args)


class Generous:
    """A store of the cluster's limits that grants everything at once. Implements `TokenStore`."""

    def take(
        self, key: str, interval: float, burst: int, most: int, answered: Callable[[Grant | None], None]
    ) -> None:
        """Give all that is asked for."""
        answered(Grant(most, 0.0))


def one_request(case: Case, loop: TurningLoop) -> Callable[[], None]:
    """Return what passes one request through the data plane, and its response back, over kept connections."""
    layout = Layout(MIDDLEWARES, REFUSALS)
    cells = memoryview(bytearray(8 * (FIRST_SLOT + 2) * layout.slot_columns)).cast("q")
    windows = SharedWindows.create(case.workers)
    shared = SharedCells.create(exclusive=case.workers == 1)
    data_plane = DataPlane(loop, Limits(), layout, cells, shared, windows, tokens=Generous())
    own, other = (BackendKey(ServiceKey(NAMESPACE, name), 80) for name in ("own", OTHER))
    outer, inner = layers_of(case.annotations)
    rule = Rule("all", (Weighted(own),), layers=inner)
    listener = Listener(own.service, "http", ADDRESS, 80, 80, "http", (rule,), outer, ((OTHER, other),))
    endpoints = {"own": Endpoint("127.0.0.1", 8080), "other": Endpoint("127.0.0.2", 8080)}
    specs = [(BackendSpec(own, (endpoints["own"],)), FIRST_SLOT)]
    specs.append((BackendSpec(other, (endpoints["other"],)), FIRST_SLOT + 1))
    data_plane.apply([(listener, FIRST_SLOT)], (), specs)
    running = data_plane.listeners.get((ADDRESS, 80))
    assert running is not None
    assert running.rule is not None
    assert running.rule.backend is not None
    transport = cast("asyncio.Transport", IdleTransport())
    upstreams = {}
    for name, backend in (("own", running.rule.backend), ("other", running.backend_named(OTHER))):
        (target,) = backend.targets
        pool = target.pool = data_plane.backends.pools.acquire(target.address, "http1")
        assert isinstance(pool, Pool)
        upstreams[name] = Http1Upstream(pool)
        upstreams[name].connection_made(transport)
        pool.give_back(upstreams[name], data_plane.runtime.now())
    data_plane.runtime.admit("10.1.2.3")
    client = Http1Connection(running, data_plane.listeners, Source("10.1.2.3"), 3.0, None)
    client.connection_made(transport)
    request, response, take = case.request, case.response, client.data_received
    answers = [upstreams[name].data_received for name in case.answers]
    if case.middleware == "cache" and not answers:  # what is to be found has to be put there first
        take(request)
        upstreams["own"].data_received(response)

    def pass_on() -> None:
        take(request)
        for answer in answers:
            answer(response)

    def pass_on_in_turns() -> None:
        take(request)
        for answer in answers:
            loop.turn()
            answer(response)

    return pass_on_in_turns if case.turns else pass_on


class Cost(NamedTuple):
    """What requests take, in µs: in the way of a case, plain, and through a layer that does nothing."""

    case: Case
    took: float
    plain: float
    empty: float


def measure(rounds: int, shown: str = "") -> Iterator[Cost]:
    """Measure the cases whose line has this text."""
    cases = [case for case in CASES if shown in case.shown]
    least: dict[str, float] = {}
    loop, other = TurningLoop(), TurningLoop()
    asyncio._set_running_loop(loop)  # layers make their futures on it
    try:
        work = {case.shown: one_request(case, loop if case.turns else other) for case in cases}
        for case in cases:
            for bare in (PLAIN, EMPTY):
                like = msgspec.structs.replace(bare, request=case.like)
                work[_compared(bare, case)] = one_request(like, other)
        for _ in range(rounds):
            gc.collect()
            for name, one in work.items():
                least[name] = min(least.get(name, inf), _time(one))
    finally:
        asyncio._set_running_loop(None)
        loop.close()
        other.close()
    for case in cases:
        plain, empty = (least[_compared(bare, case)] for bare in (PLAIN, EMPTY))
        yield Cost(case, least[case.shown], plain, empty)


def _compared(bare: Case, case: Case) -> str:
    return f"{bare.shown}: {case.like!r}"


def _time(work: Callable[[], None]) -> float:
    gc.disable()
    for _ in range(10):
        work()  # the caches are cold
    try:
        started = time.perf_counter()
        for _ in range(REPEATS):
            work()
        return (time.perf_counter() - started) / REPEATS * 1e6
    finally:
        gc.enable()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="middleware_case", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", default="", metavar="TEXT", help="lines that have this text")
    given = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    kind = "plain Python" if exchange.__file__.endswith(".py") else "compiled"
    print(f"| {kind} | µs with it | to a plain request | its own µs |\n|---|---|---|---|")
    for case, took, plain, empty in measure(given.rounds, given.only):
        print(f"| {case.shown} | {took:.1f} | {took / plain:.2f} | {took - empty:.1f} |")


if __name__ == "__main__":
    main()
