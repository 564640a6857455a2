"""Memory of a worker that holds idle connections, each of which has had one request: HTTP/2 and HTTP/1.1."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from hack.bench.accounting import Memory, memory
from hack.bench.block_load import OPENING, Answers, Refused, request_frames
from hack.bench.blocks import prepare
from hack.bench.figures import AGENT, Sample
from hack.bench.http2_cases import start_http2_agent
from hack.bench.http2_peers import start_http2_backend, start_http2_peers
from hack.bench.http_cases import start_agent
from hack.bench.machine import Cores, program
from hack.bench.peers import Peer, start_backend, start_envoy
from hack.bench.processes import BenchError, ProcessGroup
from hack.kit.ports import LOCALHOST
from hack.kit.proc import children

CASE = "idle connections"
CONNECTIONS = 1000
HTTP1_CASE = "idle http1"
HTTP1_CONNECTIONS = 9_900
"""What a worker takes with the usual 20,000 files: each client may need a connection to an endpoint too."""
_SOURCES = 4
"""Client addresses: one may not have all connections of a worker (`--max-connections-per-source`)."""
_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
_SPARE_FILES = 100
_ANSWER_TIME = 5.0


def measure(
    group: ProcessGroup, cores: Cores, rounds: int, progress: Callable[[str], None]
) -> Iterator[Sample]:
    """Fill a new process of each proxy with connections, `rounds` times; yield a sample for each."""
    allow_files(2 * HTTP1_CONNECTIONS + _SPARE_FILES)
    yield from _measure_http1(group, cores, rounds, progress)
    backend = start_http2_backend(group, cores.load)
    for number in range(rounds):
        with ProcessGroup(group.directory / f"idle-{number}") as inner:
            inner.directory.mkdir()
            others = start_http2_peers(inner, cores.proxy, backend, backend, ("envoy",))
            ours = start_http2_agent(inner, cores.proxy, backend, backend)
            group.commands.update(inner.commands)
            for peer in (*others["http2 to http2"], ours["http2 to http2"]):
                yield _told(Sample(CASE, peer.name, number, _fill(peer, number)), rounds, progress)


def _measure_http1(
    group: ProcessGroup, cores: Cores, rounds: int, progress: Callable[[str], None]
) -> Iterator[Sample]:
    """The same with HTTP/1.1."""
    _, backend = start_backend(group, cores.load)
    for number in range(rounds):
        with ProcessGroup(group.directory / f"idle-http1-{number}") as inner:
            inner.directory.mkdir()
            peers = [start_agent(inner, cores.proxy, backend)[0]]
            if program("envoy"):
                peers.insert(0, start_envoy(inner, cores.proxy, [(LOCALHOST, backend)]))
            group.commands.update(inner.commands)
            for peer in peers:
                yield _told(Sample(HTTP1_CASE, peer.name, number, _fill_http1(peer)), rounds, progress)


def _told(sample: Sample, rounds: int, progress: Callable[[str], None]) -> Sample:
    shown = ", ".join(f"{name} {value:.1f}" for name, value in sample.values.items())
    progress(f"round {sample.round + 1} of {rounds}: {sample.case}, {sample.peer}: {shown}")
    return sample


def allow_files(count: int) -> None:
    """Let this process, and those that it starts, have this many files open.

    Raises:
        BenchError: it may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != hard < count:
        raise BenchError(f"this needs {count} open files, and the hard limit is {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _fill(peer: Peer, seed: int) -> dict[str, float]:
    """Open the connections; return the memory of the process that has them, before and with them."""
    pids = _holders(peer)
    frames = [request_frames(blocks)[0] for blocks in prepare("paths", CONNECTIONS + 1, 1, seed)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_connection(peer.http, frames[0]))
        before = memory(pids)
        for frame in frames[1:]:
            stack.enter_context(_connection(peer.http, frame))
        return _grown(before, memory(pids))


def _fill_http1(peer: Peer) -> dict[str, float]:
    """As `_fill`, with HTTP/1.1."""
    pids = _holders(peer)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_http1_connection(peer.http, 0))
        before = memory(pids)
        for number in range(1, HTTP1_CONNECTIONS):
            stack.enter_context(_http1_connection(peer.http, number))
        return _grown(before, memory(pids))


def _holders(peer: Peer) -> list[int]:
    """Return the processes that hold the connections."""
    # The agent that started our worker has none, and is measured with Services.
    return list(children(peer.process.pid)) if peer.name == AGENT else [peer.process.pid]


@contextlib.contextmanager
def _http1_connection(url: str, number: int) -> Iterator[None]:
    """As `_connection`, from one of a few addresses."""
    parts = urlsplit(url)
    place = (str(parts.hostname), int(parts.port or 80))
    source = (f"127.0.1.{1 + number % _SOURCES}", 0)
    with socket.create_connection(place, _ANSWER_TIME, source_address=source) as connected:
        connected.sendall(_REQUEST)
        answer = b""
        while not answer.endswith(b"ok\n"):
            answer += _received(connected)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise BenchError(f"a connection to {url} got {answer[:64]!r}")
        yield


def _grown(before: Memory, after: Memory) -> dict[str, float]:
    return {
        "rss_mib": after.rss,
        "pss_mib": after.pss,
        "rss_grown_mib": after.rss - before.rss,
        "pss_grown_mib": after.pss - before.pss,
    }


@contextlib.contextmanager
def _connection(url: str, frame: bytes) -> Iterator[None]:
    """Open a connection, send a request on it, wait for the answer, and keep the connection."""
    parts = urlsplit(url)
    answers = Answers()
    with socket.create_connection((str(parts.hostname), int(parts.port or 80)), _ANSWER_TIME) as connected:
        connected.sendall(OPENING + frame)
        try:
            while not answers.feed(_received(connected)):
                pass
        except (Refused, OSError) as error:
            raise BenchError(f"a connection to {url} got no answer: {error}") from error
        connected.sendall(answers.replies)
        yield


def _received(connected: socket.socket) -> bytes:
    data = connected.recv(65536)
    if not data:
        raise ConnectionError("it was closed")
    return data
