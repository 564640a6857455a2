"""gRPC: unary calls, client and server by grpcio, directly and through every proxy in turn.

Client and server take most of the time of a call. They have a core of their own, so what a proxy adds shows
in the latency, and its CPU is counted apart; it is far from busy, which makes a call dearer than one of many.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import msgspec

from hack.bench.accounting import cpu_time
from hack.bench.figures import Sample
from hack.bench.http2_cases import start_http2_agent
from hack.bench.http2_peers import start_http2_peers
from hack.bench.http_cases import costs
from hack.bench.load import HttpLoad
from hack.bench.machine import Cores
from hack.bench.peers import Peer
from hack.bench.processes import ProcessGroup, run
from hack.kit.ports import LOCALHOST, free_port, listens
from hack.kit.proc import family
from hack.kit.processes import wait_until

CASE = "grpc"
AT_ONCE = 10
DIRECT = "(no proxy)"
_GRACE = 20.0
_MODULE = "hack.bench.grpc_load"


def measure(
    group: ProcessGroup, cores: Cores, rounds: int, seconds: float, progress: Callable[[str], None]
) -> Iterator[Sample]:
    """Call through every proxy in turn, `rounds` times; yield a sample for each."""
    port = free_port()
    server = group.start("grpc-server", [sys.executable, "-m", _MODULE, "serve", str(port)], cores.load)
    wait_until(lambda: listens(LOCALHOST, port), server)
    others = start_http2_peers(group, cores.proxy, port, port, ("haproxy", "nghttpx", "envoy"))
    ours = start_http2_agent(group, cores.proxy, port, port)
    direct = Peer(DIRECT, server, f"http://{LOCALHOST}:{port}")
    peers = [*others["http2 to http2"], ours["http2 to http2"], direct]
    group.commands["load: grpc"] = shlex.join(_command("http://HOST:0", seconds))
    for peer in peers:
        _call(peer, 1, cores.load)
    for number in range(rounds):
        for peer in peers:
            sample = _measure(peer, number, seconds, cores.load)
            shown = ", ".join(f"{name} {value:.1f}" for name, value in sample.values.items())
            progress(f"round {number + 1} of {rounds}: {CASE}, {peer.name}: {shown}")
            yield sample


def _measure(peer: Peer, number: int, seconds: float, core: int) -> Sample:
    pids = family(peer.process.pid)
    before = cpu_time(pids)
    load = _call(peer, seconds, core)
    all_costs = costs(f"{CASE}, {peer.name}, {peer.http}", load, cpu_time(pids) - before)
    # Without a proxy it would be the server's.
    figures = ("per_second",) if peer.name == DIRECT else ("cpu_us_per_request", "core_share", "per_second")
    values = {name: all_costs[name] for name in figures}
    return Sample(CASE, peer.name, number, {**values, "p50_us": load.p50, "p99_us": load.p99})


def _call(peer: Peer, seconds: float, core: int) -> HttpLoad:
    output = run(_command(peer.http, seconds), core, seconds + _GRACE)
    return msgspec.json.decode(output.rstrip().rpartition("\n")[2], type=HttpLoad)


def _command(url: str, seconds: float) -> list[str]:
    parts = urlsplit(url)
    command = [sys.executable, "-m", _MODULE, "call", str(parts.hostname), str(parts.port)]
    return [*command, "--at-once", str(AT_ONCE), "--seconds", f"{seconds:g}"]
