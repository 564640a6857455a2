"""HTTP and TCP: the same requests through every proxy in turn, round after round."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence

import msgspec

from hack.bench.accounting import cpu_time
from hack.bench.agent import PORT, Agent, Spec, write_folder
from hack.bench.figures import AGENT, RESILIENT, Sample
from hack.bench.http2_load import Http2Load
from hack.bench.load import HttpLoad, HttpLoader
from hack.bench.machine import Cores
from hack.bench.peers import Peer, start_backend, start_peers
from hack.bench.processes import BenchError, ProcessGroup
from hack.kit.ports import LOCALHOST
from hack.kit.proc import family

CONNECTIONS = 32
MIB = 1024 * 1024
BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: http://shop.example/catalogue/books?page=3&sort=price",
    "Cookie: session=6f1e2f0c9ab84c1b8d7e0a5f4d3c2b1a; consent=essential; theme=dark",
    "Sec-Fetch-Site: same-origin",
    "X-Request-Id: 0d9f7c52-54c7-4f0e-9a9d-0b6c0f6f7a11",
)
RESILIENCE = {
    "svc.mesh/retry-attempts": "2",
    "svc.mesh/circuit-breaker": "NetworkErrorRatio() > 0.5",
    "svc.mesh/timeout": "15s",
    "svc.mesh/outlier-detection": "5xx,connect-failure consecutive=5",
}
"""What `hack.bench.peers` asks of Envoy, too."""


class Case(msgspec.Struct, frozen=True):
    """One kind of request."""

    name: str
    title: str
    path: str = "/"
    headers: tuple[str, ...] = ()
    connections: int = CONNECTIONS
    tcp: bool = False
    traced: bool = False
    """Whether each request has a `traceparent` of its own, so that no two heads are equal."""


HTTP_CASES = (
    Case("small", "HTTP/1.1, small responses, requests of wrk (one header field), 32 connections"),
    Case(
        "browser", "HTTP/1.1, small responses, requests as a browser sends them (9 fields)", headers=BROWSER
    ),
    Case("traced", "HTTP/1.1, small responses, each request with a `traceparent` of its own", traced=True),
    Case(
        "browser traced",
        "HTTP/1.1, small responses, requests of a browser, each with a `traceparent` of its own",
        headers=BROWSER,
        traced=True,
    ),
    Case("10k", "HTTP/1.1, responses of 10 KiB", "/10k"),
    Case("1m", "HTTP/1.1, responses of 1 MiB", "/1m"),
)
LATENCY_CASES = (Case("latency", "HTTP/1.1, small responses, one connection", connections=1),)
TCP_CASES = (Case("tcp", "TCP bytes, 1 MiB responses through a tcp port", "/1m", tcp=True),)


def start_agent(group: ProcessGroup, core: int, backend: int) -> list[Peer]:
    """Start our agent; it is two peers: a Service without and one with middleware."""
    specs = [
        Spec("plain", 1, (LOCALHOST,), backend),
        Spec("resilient", 2, (LOCALHOST,), backend, annotations=RESILIENCE),
        Spec("raw", 3, (LOCALHOST,), backend, protocol="tcp"),
    ]
    folder = group.directory / "cluster"
    write_folder(folder, specs)
    agent = Agent(group, folder, core)
    agent.wait_ready()
    plain, resilient, raw = (f"http://{spec.address}:{PORT}" for spec in specs)
    return [Peer(AGENT, agent.process, plain, raw), Peer(RESILIENT, agent.process, resilient)]


def measure(
    group: ProcessGroup,
    cores: Cores,
    cases: Sequence[Case],
    rounds: int,
    seconds: float,
    progress: Callable[[str], None],
) -> Iterator[Sample]:
    """Run every case through every proxy in turn, `rounds` times; yield a sample for each."""
    backend, port = start_backend(group, cores.load)
    loader = HttpLoader(group.directory, cores.load)
    peers = start_peers(group, cores, port) + start_agent(group, cores.proxy, port)
    direct = Peer("(no proxy)", backend, f"http://{LOCALHOST}:{port}")
    for peer in peers:  # fill pools and caches
        for url in filter(None, (peer.http, peer.tcp)):
            loader.run(f"{url}/", CONNECTIONS, 1)
    for case in cases:
        group.commands[f"wrk: {case.name}"] = shlex.join(
            loader.command(f"URL{case.path}", case.connections, seconds, case.headers, case.traced)
        )
    for number in range(rounds):
        for case in cases:
            able = [peer for peer in peers if (peer.tcp if case.tcp else peer.http)]
            if case.connections == 1:
                able.append(direct)
            for peer in able:
                sample = _measure(loader, case, peer, number, seconds)
                progress(f"round {number + 1} of {rounds}: {case.name}, {peer.name}: {shown(sample)}")
                yield sample


def _measure(loader: HttpLoader, case: Case, peer: Peer, number: int, seconds: float) -> Sample:
    url = (peer.tcp if case.tcp else peer.http) + case.path
    pids = family(peer.process.pid)
    before = cpu_time(pids)
    load = loader.run(url, case.connections, seconds, case.headers, case.traced)
    values = costs(f"{case.name}, {peer.name}, {url}", load, cpu_time(pids) - before)
    return Sample(case.name, peer.name, number, {**values, "p50_us": load.p50, "p99_us": load.p99})


def costs(what: str, load: HttpLoad | Http2Load, used: float) -> dict[str, float]:
    """Return what a proxy used for this load, in seconds of CPU, by request and by size.

    Raises:
        BenchError: not all requests were answered as they should be.
    """
    if any(load.errors.values()) or not load.requests:
        kinds = ", ".join(f"{kind} {count}" for kind, count in load.errors.items() if count)
        raise BenchError(f"of {load.requests} requests some failed ({kinds}): {what}")
    duration = load.microseconds / 1e6
    return {
        "cpu_us_per_request": used * 1e6 / load.requests,
        "cpu_ms_per_mib": used * 1e3 / (load.bytes / MIB),
        "per_second": load.requests / duration,
        "mib_per_second": load.bytes / MIB / duration,
        "core_share": used / duration,
    }


def shown(sample: Sample) -> str:
    """Return the figures of a sample that one looks at while it runs."""
    values = sample.values
    return f"{values['cpu_us_per_request']:.1f} us CPU, {values['per_second']:,.0f}/s"
