"""Size: how long a start takes and what it weighs with many Services, and how soon a change is in force.

Agent and worker share one core, as with a CPU limit of 1; the prober and the endpoints have the other.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Iterator

from hack.bench.accounting import cpu_time, memory
from hack.bench.agent import PORT, Agent, Spec, many_specs, write_folder
from hack.bench.figures import AGENT, Sample, quantile
from hack.bench.machine import Cores
from hack.bench.peers import start_backend
from hack.bench.processes import BenchError, ProcessGroup
from hack.kit.proc import family

MANY = 1000
FEW = 10
ENDPOINTS = tuple(f"127.20.0.{number}" for number in range(1, 12))
"""Ten that are there from the beginning and the one that is added."""
REACH_TIME = 5.0
QUIET = (0.06, 0.12)
"""Seconds between two changes, so that each comes alone and none is in step with anything else."""
_REQUEST = b"GET / HTTP/1.1\r\nHost: probe\r\n\r\n"


class Prober:
    """One keep-alive connection that asks who answers, as fast as it is answered."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.create_connection((address, port), timeout=REACH_TIME)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self) -> str:
        """Send a request; return the address of the endpoint that answered.

        Raises:
            BenchError: the request failed.
        """
        self._socket.sendall(_REQUEST)
        data = b""
        while True:
            piece = self._socket.recv(65536)
            data += piece
            head, end, body = data.partition(b"\r\n\r\n")
            if not piece:
                raise BenchError("a request failed while an endpoint was added")
            if end and len(body) >= _length(head):
                return body.decode()

    def ask_for(self, seconds: float) -> set[str]:
        """Go on asking for so long; return who answered."""
        seen = set()
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            seen.add(self.ask())
        return seen

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise BenchError(f"an answer without a length: {head!r}")


def measure(
    group: ProcessGroup, cores: Cores, rounds: int, changes: int, progress: Callable[[str], None]
) -> Iterator[Sample]:
    """Start agents of both sizes `rounds` times, then change one Service of many; yield samples."""
    _, port = start_backend(group, cores.load, ENDPOINTS, "$server_addr")
    probed = Spec("service-0500", 500, ENDPOINTS[:-1], port)
    for count in (FEW, MANY):
        specs = many_specs(count)
        if count == MANY:
            specs[probed.number] = probed
        folder = group.directory / f"cluster-{count}"
        write_folder(folder, specs)
        if count == FEW:  # once unmeasured, for the byte code
            group.stop(_start(group, cores, count, 0)[0].process)
        for number in range(rounds):
            agent, sample = _start(group, cores, count, number)
            shown = ", ".join(f"{name} {value:.2f}" for name, value in sample.values.items())
            progress(f"round {number + 1} of {rounds}: {sample.case}: {shown}")
            yield sample
            if count == MANY and number == rounds - 1:
                yield _change(group, probed, changes, progress)
            group.stop(agent.process)


def _start(group: ProcessGroup, cores: Cores, count: int, number: int) -> tuple[Agent, Sample]:
    started = time.perf_counter()
    folder, compiled = group.directory / f"cluster-{count}", group.directory / "bytecode"
    agent = Agent(group, folder, cores.proxy, f"agent-{count}", compiled)
    agent.wait_ready()
    ready = time.perf_counter() - started
    pids = family(agent.process.pid)
    used = memory(pids)
    values = {"ready_s": ready, "cpu_s": cpu_time(pids), "pss_mib": used.pss, "rss_mib": used.rss}
    for name, pid in zip(("agent", "worker"), pids, strict=False):
        values[f"{name}_pss_mib"] = memory([pid]).pss
        values[f"{name}_rss_mib"] = memory([pid]).rss
    return agent, Sample(f"{count} services", AGENT, number, values)


def _change(group: ProcessGroup, probed: Spec, changes: int, progress: Callable[[str], None]) -> Sample:
    """Add and remove an endpoint `changes` times while requests go on."""
    target = group.directory / f"cluster-{MANY}" / f"{probed.name}.yaml"
    more = Spec(probed.name, probed.number, ENDPOINTS, probed.target_port).render()
    prober = Prober(probed.address, PORT)
    times = []
    try:
        for number in range(changes):
            prober.ask_for(random.uniform(*QUIET))
            times.append(_reach(group, target, more, prober) * 1000)
            _replace(group, target, probed.render())
            prober.ask_for(random.uniform(*QUIET))
            if ENDPOINTS[-1] in prober.ask_for(0.005):
                raise BenchError(f"change {number}: an endpoint is still asked long after it was removed")
            if number % 10 == 9:
                progress(f"endpoint added {number + 1} times of {changes}: last {times[-1]:.1f} ms")
    finally:
        prober.close()
    values = {"p50_ms": quantile(times, 50), "p99_ms": quantile(times, 99), "most_ms": max(times)}
    return Sample("endpoint added", AGENT, 0, {**values, "changes": float(changes)})


def _reach(group: ProcessGroup, target: os.PathLike[str], text: str, prober: Prober) -> float:
    """Add the endpoint; return the seconds until an answer of its own was back."""
    changed = _replace(group, target, text)
    while prober.ask() != ENDPOINTS[-1]:
        if time.perf_counter() - changed > REACH_TIME:
            raise BenchError(f"an added endpoint got no request within {REACH_TIME:g} s")
    return time.perf_counter() - changed


def _replace(group: ProcessGroup, target: os.PathLike[str], text: str) -> float:
    """Replace a file in one step; return when."""
    draft = group.directory / "draft.yaml"
    draft.write_text(text)
    now = time.perf_counter()
    draft.rename(target)
    return now
