"""HTTP/2: the same requests through every proxy that speaks it, in turn, round after round."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from hack.bench.accounting import cpu_time
from hack.bench.agent import PORT, Agent, Spec, write_folder
from hack.bench.blocks import PATHS, Kind, prepare, write_blocks
from hack.bench.figures import AGENT, Sample
from hack.bench.http2_load import (
    Http2Load,
    block_load_command,
    h2load_command,
    run_block_load,
    run_h2load,
)
from hack.bench.http2_peers import ANSWER, Peers, Way, start_http2_backend, start_http2_peers
from hack.bench.http_cases import costs, shown
from hack.bench.load import HttpLoad, HttpLoader
from hack.bench.machine import Cores
from hack.bench.peers import Peer, start_backend
from hack.bench.processes import ProcessGroup
from hack.kit.ports import LOCALHOST
from hack.kit.proc import family

BLOCKS_PER_SECOND = 5000
"""Prepared for each of eight connections: 40,000 requests a second, more than proxies do with such blocks."""


class Http2Case(msgspec.Struct, frozen=True):
    """One kind of request. `blocks` says how requests differ, None: not at all. `body` is what is posted."""

    name: str
    title: str
    path: str = "/"
    connections: int = 8
    streams: int = 10
    body: int = 0
    blocks: Kind | None = None
    way: Way = "http2 to http2"


HTTP2_CASES = (
    Http2Case("http2 8x10", "HTTP/2 to HTTP/2, small responses, 8 connections with 10 streams"),
    Http2Case("http2 1x100", "The same, 1 connection with 100 streams", connections=1, streams=100),
    Http2Case("http2 32x1", "The same, 32 connections with 1 stream", connections=32, streams=1),
    Http2Case("http2 10k", "HTTP/2 to HTTP/2, responses of 10 KiB, 8 connections with 10 streams", "/10k"),
    Http2Case("http2 post", "HTTP/2 to HTTP/2, POST of 1 KiB, 8 connections with 10 streams", body=1024),
    Http2Case("http2 paths", f"HTTP/2 to HTTP/2, {PATHS:,} paths, small, 8x10", blocks="paths"),
    Http2Case(
        "http2 unique",
        "HTTP/2 to HTTP/2, each request its own traceparent and x-request-id, small, 8x10",
        blocks="unique",
    ),
    Http2Case("http2 literal", "The same, these two fields in no table of HPACK", blocks="literal"),
    Http2Case("http2 1m", "HTTP/2 to HTTP/2, responses of 1 MiB, 8 connections with 1 stream", "/1m", 8, 1),
    Http2Case(
        "http2 to http1",
        "HTTP/2 to HTTP/1.1, small responses, 8 connections with 10 streams",
        way="http2 to http1",
    ),
    Http2Case(
        "http1 to http2",
        "HTTP/1.1 to HTTP/2, small responses, 32 connections",
        "/",
        32,
        1,
        way="http1 to http2",
    ),
)


def start_http2_agent(group: ProcessGroup, core: int, backend: int, plain_backend: int) -> dict[Way, Peer]:
    """Start our agent with a Service for each kind of back end."""
    specs = [
        Spec("http2", 1, (LOCALHOST,), backend, protocol="http2"),
        Spec("http1", 2, (LOCALHOST,), plain_backend, protocol="http"),
    ]
    folder = group.directory / "cluster"
    write_folder(folder, specs)
    agent = Agent(group, folder, core)
    agent.wait_ready()
    http2, http1 = (Peer(AGENT, agent.process, f"http://{spec.address}:{PORT}") for spec in specs)
    return {"http2 to http2": http2, "http2 to http1": http1, "http1 to http2": http2}


class _Loader:
    """Puts the load of a case on a proxy; `prepare` comes once in a round."""

    def __init__(self, directory: Path, core: int, seconds: float) -> None:
        self._wrk = HttpLoader(directory, core)
        self._directory = directory
        self._core = core
        self._seconds = seconds

    def prepare(self, case: Http2Case, number: int) -> None:
        """Write what the case needs: blocks that no round before has sent, a body."""
        if case.blocks is not None:
            count = max(1, round(self._seconds * BLOCKS_PER_SECOND))
            write_blocks(self._file(case), prepare(case.blocks, case.connections, count, number))
        elif case.body:
            self._file(case).write_bytes(b"x" * case.body)

    def command(self, case: Http2Case, url: str) -> list[str]:
        """Return the command line."""
        if case.way == "http1 to http2":
            return self._wrk.command(url, case.connections, self._seconds, ())
        if case.blocks is not None:
            return block_load_command(self._file(case), url, case.streams, self._seconds, len(ANSWER))
        body = self._file(case) if case.body else None
        return h2load_command(url, case.connections, case.streams, self._seconds, body)

    def run(self, case: Http2Case, url: str) -> HttpLoad | Http2Load:
        """Put load on `url`."""
        if case.way == "http1 to http2":
            return self._wrk.run(url, case.connections, self._seconds)
        go = run_h2load if case.blocks is None else run_block_load
        return go(self.command(case, url), self._seconds, self._core)

    def _file(self, case: Http2Case) -> Path:
        return self._directory / f"{case.name.replace(' ', '-')}.data"


def measure(
    group: ProcessGroup,
    cores: Cores,
    cases: Sequence[Http2Case],
    rounds: int,
    seconds: float,
    progress: Callable[[str], None],
) -> Iterator[Sample]:
    """Run every case through every proxy in turn, `rounds` times; yield a sample for each."""
    backend = start_http2_backend(group, cores.load)
    _, plain_backend = start_backend(group, cores.load)
    peers = _peers(group, cores, backend, plain_backend)
    loader = _Loader(group.directory, cores.load, seconds)
    _warm_up(group.directory, cores.load, cases, peers)
    for case in cases:
        group.commands[f"load: {case.name}"] = shlex.join(loader.command(case, f"URL{case.path}"))
    for number in range(rounds):
        for case in cases:
            loader.prepare(case, number)
            for peer in peers[case.way]:
                sample = _measure(loader, case, peer, number)
                progress(f"round {number + 1} of {rounds}: {case.name}, {peer.name}: {shown(sample)}")
                yield sample


def _peers(group: ProcessGroup, cores: Cores, backend: int, plain_backend: int) -> Peers:
    others = start_http2_peers(group, cores.proxy, backend, plain_backend)
    ours = start_http2_agent(group, cores.proxy, backend, plain_backend)
    return {way: [*others[way], ours[way]] for way in ours}


def _warm_up(directory: Path, core: int, cases: Sequence[Http2Case], peers: Peers) -> None:
    """Fill pools and caches, and let each process be as large as it gets."""
    loader = _Loader(directory, core, 1)
    for way in dict.fromkeys(case.way for case in cases):
        case = next(case for case in HTTP2_CASES if case.way == way)
        for peer in peers[way]:
            loader.run(case, peer.http + case.path)


def _measure(loader: _Loader, case: Http2Case, peer: Peer, number: int) -> Sample:
    url = peer.http + case.path
    pids = family(peer.process.pid)
    before = cpu_time(pids)
    load = loader.run(case, url)
    used = cpu_time(pids) - before
    return Sample(case.name, peer.name, number, costs(f"{case.name}, {peer.name}, {url}", load, used))
