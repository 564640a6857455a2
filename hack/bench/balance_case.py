"""Balancers: what a pick costs, and how long requests take when one of four endpoints is slow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from hack.bench.agent import PORT, Agent, Spec, write_folder
from hack.bench.balance_simulation import p99_ms
from hack.bench.figures import Sample
from hack.bench.http_cases import CONNECTIONS
from hack.bench.load import HttpLoader
from hack.bench.machine import Cores, program
from hack.bench.peers import Peer, start_envoy
from hack.bench.processes import BenchError, ProcessGroup
from hack.kit.ports import free_port, listens
from hack.kit.processes import wait_until
from nodeagent.plan.model import Balance
from nodeagent.proxy.balance import BALANCERS, make_balancer

CASE: Final = "balance"
PICK: Final = "balance: pick"
WORKERS: Final = "balance: workers"
MILLISECONDS: Final = (5.0, 5.0, 5.0, 50.0)
"""What a request takes at each, without waiting."""
COUNTS: Final = (10, 1000)
WORKER_COUNTS: Final = (1, 2, 4, 8)
POLICIES: Final = tuple(name for name in BALANCERS if name != "consistent-hash")
"""Without keys, `consistent-hash` is a round robin."""
_PICKS: Final = 20_000


def measure(
    group: ProcessGroup, cores: Cores, rounds: int, seconds: float, progress: Callable[[str], None]
) -> Iterator[Sample]:
    """Yield the cost of picks, the simulated workers once, and what real requests take in each round."""
    for policy in POLICIES:
        figures = {
            f"p99_ms_{workers}": p99_ms(policy, workers, [ms / 1e3 for ms in MILLISECONDS], CONNECTIONS)
            for workers in WORKER_COUNTS
        }
        yield Sample(WORKERS, policy, 0, figures)
    peers = _start(group, cores)
    loader = HttpLoader(group.directory, cores.load)
    for number in range(rounds):
        for policy in BALANCERS:
            costs = {f"pick_us_{count}": pick_cost(policy, count) for count in COUNTS}
            progress(f"round {number + 1} of {rounds}: {PICK}: {policy}: {costs['pick_us_10']:.2f} us")
            yield Sample(PICK, policy, number, costs)
        for peer in peers:
            load = loader.run(peer.http, CONNECTIONS, seconds)
            if any(load.errors.values()):
                raise BenchError(f"requests failed: {peer.name}: {load.errors}")
            progress(f"round {number + 1} of {rounds}: {CASE}: {peer.name}: p99 {load.p99 / 1e3:.1f} ms")
            values = {
                "p99_ms": load.p99 / 1e3,
                "p50_ms": load.p50 / 1e3,
                "per_second": load.requests * 1e6 / load.microseconds,
            }
            yield Sample(CASE, peer.name, number, values)


def pick_cost(policy: str, count: int) -> float:
    """Return what a pick among so many endpoints costs, in microseconds of CPU."""
    endpoints = tuple(f"10.0.{number // 250}.{number % 250}:80" for number in range(count))
    balancer = make_balancer(Balance(policy))
    balancer.keep(endpoints)
    for endpoint in endpoints:
        balancer.begun(endpoint, 0.0)
        balancer.answered(endpoint, 0.01, 0.0)
    keys = [b"user-%d" % number for number in range(_PICKS)]
    pick = balancer.pick
    began = time.thread_time()
    for key in keys:
        pick(endpoints, (), key, 1.0)
    return (time.thread_time() - began) * 1e6 / _PICKS


def _endpoints(number: int) -> tuple[str, ...]:
    """Return endpoints of a peer's own: what one leaves in their queues must not hold the next one up."""
    return tuple(f"127.0.{number}.{one}" for one in range(1, len(MILLISECONDS) + 1))


def _start(group: ProcessGroup, cores: Cores) -> list[Peer]:
    port = free_port()
    addresses = [_endpoints(number) for number in range(1, len(POLICIES) + 2)]
    words = [f"{one}={ms}" for own in addresses for one, ms in zip(own, MILLISECONDS, strict=True)]
    backend = group.start(
        "uneven", [sys.executable, "-m", "hack.bench.uneven_backend", str(port), *words], cores.load
    )
    wait_until(lambda: all(listens(one, port) for own in addresses for one in own), backend)
    specs = [
        Spec(policy, number, own, port, annotations={"svc.mesh/load-balancing": policy})
        for number, (policy, own) in enumerate(zip(POLICIES, addresses, strict=False), 1)
    ]
    folder = group.directory / "cluster"
    write_folder(folder, specs)
    agent = Agent(group, folder, cores.proxy)
    agent.wait_ready()
    peers = [Peer(spec.name, agent.process, f"http://{spec.address}:{PORT}/") for spec in specs]
    if program("envoy"):
        places = [(one, port) for one in addresses[-1]]
        envoy = start_envoy(group, cores.proxy, places, "LEAST_REQUEST")
        peers.append(Peer("envoy least-request", envoy.process, f"{envoy.http}/"))
    return peers
