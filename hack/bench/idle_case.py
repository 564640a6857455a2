"""Memory of a worker that holds 1,000 HTTP/2 connections, each of which has had one request."""

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
from hack.bench.machine import Cores
from hack.bench.peers import Peer
from hack.bench.processes import BenchError, ProcessGroup
from hack.kit.proc import children

CASE = "idle connections"
CONNECTIONS = 1000
_SPARE_FILES = 200
_ANSWER_TIME = 5.0


def measure(
    group: ProcessGroup, cores: Cores, rounds: int, progress: Callable[[str], None]
) -> Iterator[Sample]:
    """Fill a new process of each proxy with connections, `rounds` times; yield a sample for each."""
    allow_files(CONNECTIONS + _SPARE_FILES)
    backend = start_http2_backend(group, cores.load)
    for number in range(rounds):
        with ProcessGroup(group.directory / f"idle-{number}") as inner:
            inner.directory.mkdir()
            others = start_http2_peers(inner, cores.proxy, backend, backend, ("envoy",))
            ours = start_http2_agent(inner, cores.proxy, backend, backend)
            group.commands.update(inner.commands)
            for peer in (*others["http2 to http2"], ours["http2 to http2"]):
                sample = Sample(CASE, peer.name, number, _fill(peer, number))
                shown = ", ".join(f"{name} {value:.1f}" for name, value in sample.values.items())
                progress(f"round {number + 1} of {rounds}: {CASE}, {peer.name}: {shown}")
                yield sample


def allow_files(count: int) -> None:
    """Let this process have this many files open.

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
    # The agent that started our worker has no connections, and is measured with Services.
    pids = children(peer.process.pid) if peer.name == AGENT else [peer.process.pid]
    frames = [request_frames(blocks)[0] for blocks in prepare("paths", CONNECTIONS + 1, 1, seed)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_connection(peer.http, frames[0]))
        before = memory(pids)
        for frame in frames[1:]:
            stack.enter_context(_connection(peer.http, frame))
        return _grown(before, memory(pids))


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
