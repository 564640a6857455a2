"""The Python of one request alone: the real data plane between transports that do nothing.

`python -m hack.bench.python_case` prints the cost in µs, plain and with layers, and by a reference: a fixed
piece of work of the same kind, run in turn with it, so that the figure means the same on any machine. The
system calls, which are half of a request, are not in it; `make bench` has both.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

from discovery.model import Endpoint
from hack.bench.figures import PLAIN_PYTHON, Sample
from hack.bench.http_cases import RESILIENCE
from hack.bench.services import start_data_plane
from nodeagent.proxy.http1.client import Http1Upstream
from nodeagent.proxy.http1.server import Http1Connection
from nodeagent.proxy.pool import Pool
from nodeagent.proxy.streams import Source

CASE: Final = "python"
TRACED, REFERENCE = "each its traceparent", "reference"
_TWO: Final = {"svc.mesh/retry-attempts": "2", "svc.mesh/circuit-breaker": "NetworkErrorRatio() > 0.5"}
SAMPLED: Final = "1 % tracing"
LAYERS: Final[Mapping[str, Mapping[str, str]]] = {
    PLAIN_PYTHON: {},
    TRACED: {},
    SAMPLED: {"svc.mesh/tracing": "1%"},
    "retry+breaker": _TWO,
    "resilient": RESILIENCE,
}
REQUEST: Final = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:18080\r\n\r\n"
_TRACED_REQUEST: Final = REQUEST[:-2] + b"traceparent: 00-%032x-%016x-01\r\n\r\n"
RESPONSE: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 28 Nov 2026 07:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
)
REPEATS: Final = 2000
_LINES: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e]*+)?+\r\n((?:[!-9;-~]++:[^\r]*+\r\n)*+)\r\n"
)
_FIELD: Final = re.compile(rb"\n(?i:connection|content-length):[ \t]*+([^\r]*+)")


class IdleTransport:
    """A transport that does nothing."""

    def write(self, data: bytes) -> None:
        """Send nothing."""

    def is_closing(self) -> bool:
        """It is open for ever."""
        return False

    def pause_reading(self) -> None:
        """It reads nothing anyway."""

    def resume_reading(self) -> None:
        """It reads nothing anyway."""

    def get_extra_info(self, name: str) -> None:
        """It has no socket."""

    def abort(self) -> None:
        """Refuse: a connection that is not good for another request would make the figure wrong."""
        raise AssertionError("the connection was given up")


class _Counter:
    """What the reference calls."""

    __slots__ = ("cells", "total")

    def __init__(self) -> None:
        self.cells = [0] * 8
        self.total = 0

    def add(self, size: int) -> None:
        self.total += size
        self.cells[size & 7] += 1


def reference() -> Callable[[], None]:
    """Return the fixed piece of work: matching, small objects, calls, bytes put together."""
    counter = _Counter()

    def work() -> None:
        for _ in range(4):
            match = _LINES.match(RESPONSE)
            assert match is not None
            minor, status, fields = match.groups()
            for value in _FIELD.findall(RESPONSE):
                counter.add(len(value))
            other = _Counter()
            other.add(int(status))
            out = b"HTTP/1.%b %b\r\n%b\r\n%b" % (minor, status, fields, RESPONSE[match.end() :])
            counter.add(len(out))

    return work


def one_request(
    loop: asyncio.AbstractEventLoop, annotations: Mapping[str, str], requests: Iterator[bytes]
) -> Callable[[], None]:
    """Return what passes one request to an endpoint, and its response back, over kept connections."""
    data_plane = start_data_plane(loop, "127.64.0.10", Endpoint("127.0.0.1", 8080), [(80, annotations)])
    listener = data_plane.listeners.get(("127.64.0.10", 80))
    assert listener is not None
    assert listener.rule is not None
    assert listener.rule.backend is not None
    transport = cast("asyncio.Transport", IdleTransport())
    (target,) = listener.rule.backend.targets
    pool = target.pool = data_plane.backends.pools.acquire(target.address, "http1")
    assert isinstance(pool, Pool)
    upstream = Http1Upstream(pool)
    upstream.connection_made(transport)
    pool.give_back(upstream, data_plane.runtime.now())
    data_plane.runtime.admit("10.1.2.3")
    client = Http1Connection(listener, data_plane.listeners, Source("10.1.2.3"), 3.0, None)
    client.connection_made(transport)

    def pass_on() -> None:
        client.data_received(next(requests))
        upstream.data_received(RESPONSE)

    return pass_on


def _traced_requests() -> Iterator[bytes]:
    """Yield requests of which no two are equal soon."""
    return itertools.cycle([_TRACED_REQUEST % (number << 64, number) for number in range(1, 20_000)])


def measure(rounds: int, progress: Callable[[str], None], core: int | None = None) -> Iterator[Sample]:
    """Measure plain and layered requests and the reference in turn, on one core; yield a sample for each."""
    allowed = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield from _measure(rounds, progress)
    finally:
        os.sched_setaffinity(0, allowed)


def _measure(rounds: int, progress: Callable[[str], None]) -> Iterator[Sample]:
    loop = asyncio.new_event_loop()
    requests = {TRACED: _traced_requests()}
    work: dict[str, Callable[[], None]] = {
        name: one_request(loop, asked, requests.get(name, itertools.repeat(REQUEST)))
        for name, asked in LAYERS.items()
    }
    work[REFERENCE] = reference()
    for one in work.values():
        _time(one)
    for number in range(rounds):
        timed = [{name: _time(one) for name, one in work.items()} for _ in range(5)]
        best = {name: min(once[name] for once in timed) for name in work}
        for name, cost in best.items():
            progress(f"round {number + 1} of {rounds}: python: {name}: {cost:.2f} us")
            yield Sample(CASE, name, number, {"python_us": cost, "by_reference": cost / best[REFERENCE]})


def _time(work: Callable[[], Any]) -> float:
    enabled = gc.isenabled()
    gc.disable()
    try:
        started = time.thread_time()
        for _ in range(REPEATS):
            work()
        return (time.thread_time() - started) / REPEATS * 1e6
    finally:
        if enabled:
            gc.enable()


def main() -> None:
    """Print the costs."""
    samples = list(measure(10, lambda _: None))
    for name in (*LAYERS, REFERENCE):
        mine = [sample.values for sample in samples if sample.peer == name]
        cost = min(values["python_us"] for values in mine)
        ratio = sorted(values["by_reference"] for values in mine)[len(mine) // 2]
        print(f"{name:22} {cost:6.2f} us  {ratio:.3f} of the reference")


if __name__ == "__main__":
    main()
