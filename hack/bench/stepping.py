"""What a Task for each request would cost: the data plane alone, its chains stepped eagerly or run as Tasks.

`python -m hack.bench.stepping --backend PORT --plain PORT --layered PORT [--tasks]` serves the same endpoint
at two ports of 127.0.0.1, without middleware and with retry and circuit breaker.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvloop

from discovery.model import Endpoint
from hack.bench.accounting import cpu_time
from hack.bench.figures import Sample
from hack.bench.http_cases import CONNECTIONS, RESILIENCE
from hack.bench.load import HttpLoader
from hack.bench.machine import Cores
from hack.bench.peers import start_backend
from hack.bench.processes import BenchError
from hack.bench.processes import ProcessGroup as Crew
from hack.bench.services import Service, start_data_plane
from hack.kit.ports import LOCALHOST, free_port, listens
from hack.kit.proc import family
from hack.kit.processes import Process as Child
from hack.kit.processes import wait_until
from middleware.contract import ExchangeError
from nodeagent.proxy import exchange
from nodeagent.proxy.accept import local_address
from nodeagent.proxy.chain import ChainOwner

PLAIN, EAGER, TASKS = "no middleware", "retry+breaker, stepped eagerly", "retry+breaker, in a Task"

CASES = {"stepping": CONNECTIONS, "stepping, one": 1}
"""Connections by case."""


class TaskChain:
    """`nodeagent.proxy.chain.Chain` as it would be with a Task for each request."""

    __slots__ = ("_coroutine", "_owner", "_task", "waiter")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], owner: ChainOwner, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._coroutine = coroutine
        self._owner = owner
        self.waiter: asyncio.Future[Any] = loop.create_future()
        self._task: asyncio.Task[None] | None = None

    def step(self, outcome: Any) -> None:
        """Start the Task, or give it what it waits for."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif isinstance(outcome, BaseException):
            self.waiter.set_exception(outcome)
        else:
            self.waiter.set_result(outcome)

    def close(self) -> None:
        """End the Task."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            response = await self._coroutine
        except ExchangeError as error:
            self._owner.chain_raised(error)
        else:
            self._owner.chain_returned(response)


async def _forward(self: Any) -> Any:
    """`Exchange.forward` for a `TaskChain`."""
    chain = self._chain
    chain.waiter = asyncio.get_running_loop().create_future()
    self.dispatch()
    return await chain.waiter


def measure(
    crew: Crew, cores: Cores, rounds: int, seconds: float, progress: Callable[[str], None]
) -> Iterator[Sample]:
    """Measure the three in turn, `rounds` times; yield a sample for each."""
    _, backend = start_backend(crew, cores.load)
    loader = HttpLoader(crew.directory, cores.load)
    peers = []
    for name, extra in ((EAGER, []), (TASKS, ["--tasks"])):
        plain, layered = free_port(), free_port()
        ports = ["--backend", str(backend), "--plain", str(plain), "--layered", str(layered)]
        child = crew.start(name, [sys.executable, "-m", "hack.bench.stepping", *ports, *extra], cores.proxy)
        wait_until(lambda port=layered: listens(LOCALHOST, port), child)  # type: ignore[misc]
        if not extra:
            peers.append((PLAIN, child, plain))
        peers.append((name, child, layered))
    for _, _, port in peers:
        loader.run(f"http://{LOCALHOST}:{port}/", CONNECTIONS, 1)
    for number in range(rounds):
        for case, connections in CASES.items():
            for name, child, port in peers:
                sample = _measure(loader, case, connections, name, child, port, number, seconds)
                cost = sample.values["cpu_us_per_request"]
                progress(f"round {number + 1} of {rounds}: {case}: {name}: {cost:.1f} us CPU")
                yield sample


def _measure(
    loader: HttpLoader,
    case: str,
    connections: int,
    name: str,
    child: Child,
    port: int,
    number: int,
    seconds: float,
) -> Sample:
    pids = family(child.pid)
    before = cpu_time(pids)
    load = loader.run(f"http://{LOCALHOST}:{port}/", connections, seconds)
    used = cpu_time(pids) - before
    if any(load.errors.values()):
        raise BenchError(f"requests failed: {name}: {load.errors}")
    values = {
        "cpu_us_per_request": used * 1e6 / load.requests,
        "per_second": load.requests * 1e6 / load.microseconds,
        "p50_us": float(load.p50),
    }
    return Sample(case, name, number, values)


async def _serve(backend: int, ports: tuple[int, int]) -> None:
    loop = asyncio.get_running_loop()
    plain, layered = ports
    services: list[Service] = [(plain, {}), (layered, RESILIENCE)]
    data_plane = start_data_plane(loop, LOCALHOST, Endpoint(LOCALHOST, backend), services)
    for port in ports:
        await loop.create_server(lambda: data_plane.accepted(local_address), LOCALHOST, port, backlog=4096)
    gc.collect()
    gc.freeze()
    await loop.create_future()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="stepping", description=__doc__)
    for name in ("backend", "plain", "layered"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--tasks", action="store_true")
    given = parser.parse_args()
    if given.tasks:
        exchange.Chain = TaskChain  # type: ignore[attr-defined,assignment]
        exchange.Exchange.forward = _forward  # type: ignore[method-assign]
    gc.set_threshold(20_000, 20, 50)  # as in a worker
    uvloop.run(_serve(given.backend, (given.plain, given.layered)))


if __name__ == "__main__":
    main()
