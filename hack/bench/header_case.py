"""Only the Python code for header blocks: reading and writing them, for several kinds of traffic, compared
with the `hpack` library.

`python -m hack.bench.header_case` prints µs per block, ours and the library's (which checks nothing and makes
no head), both the best of several rounds in turn. `make bench` has whole requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Final

import hpack

from nodeagent.proxy.http2.headers import HeaderDecoder, HeaderEncoder, Shared
from nodeagent.proxy.message import RequestHead, split_fields
from nodeagent.proxy.streams import Source
from nodeagent.settings import Limits

ROUNDS: Final = 7
BLOCKS: Final = 2000
USUAL: Final = (
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"whoami.default.svc.mesh"),
    (b":path", b"/api/items"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"x-request-class", b"batch"),
)
SOURCE: Final = Source("10.0.0.7")
Fields = Sequence[tuple[bytes, bytes]]


def _paths(random: Random) -> Fields:
    path = b"/api/items/%d?q=%08x" % (random.randrange(5000), random.getrandbits(32))
    return [*USUAL[:3], hpack.NeverIndexedHeaderTuple(b":path", path), *USUAL[4:]]


def _traced(random: Random) -> Fields:
    trace = b"00-%032x-%016x-01" % (random.getrandbits(128), random.getrandbits(64))
    return [*_paths(random), hpack.NeverIndexedHeaderTuple(b"traceparent", trace)]


def _unique(random: Random) -> Fields:
    return [*USUAL[:4], *((b"x-h-%d" % number, b"%016x" % random.getrandbits(64)) for number in range(6))]


KINDS: Final[dict[str, Callable[[Random], Fields]]] = {
    "blocks that repeat": lambda _: USUAL,
    "each its path": _paths,
    "each its path and traceparent": _traced,
    "six values that never repeat": _unique,
}


def _cost(work: Callable[..., object], items: Iterable[Any], *more: Any) -> float:
    """Return the seconds that it takes to do this to all of them."""
    started = time.perf_counter()
    for item in items:
        work(item, *more)
    return time.perf_counter() - started


def _fields(head: RequestHead) -> list[tuple[bytes, bytes]]:
    first = [(b":method", head.method), (b":scheme", b"http"), (b":path", head.target)]
    return first + [(name.encode(), value.encode("latin-1")) for name, value in split_fields(head.fields)]


def measure(kind: Callable[[Random], Fields]) -> tuple[float, float, float, float]:
    """Return µs per block: read by us and by the library, written by us and by the library."""
    random, encoder = Random(1), hpack.Encoder()
    blocks = [encoder.encode(kind(random)) for _ in range(BLOCKS)]
    best = [float("inf")] * 4
    for _ in range(ROUNDS):
        ours, theirs = HeaderDecoder(Limits(), 4096, Shared()), hpack.Decoder()
        read = _cost(ours.request, blocks, True)
        read_theirs = _cost(theirs.decode, blocks, True)
        again = HeaderDecoder(Limits(), 4096, Shared())
        heads = [again.request(block, True) for block in blocks]
        lists = [_fields(head) for head in heads]
        writer, writer_theirs = HeaderEncoder(), hpack.Encoder()
        written = _cost(writer.request, heads, SOURCE)
        written_theirs = _cost(writer_theirs.encode, lists)
        best = [min(pair) for pair in zip(best, (read, read_theirs, written, written_theirs), strict=True)]
    read, read_theirs, written, written_theirs = (seconds / BLOCKS * 1e6 for seconds in best)
    return read, read_theirs, written, written_theirs


def main() -> None:
    """Measure and print."""
    print(f"{'µs per block':32}{'read':>8}{'hpack':>8}{'written':>9}{'hpack':>8}")
    for name, kind in KINDS.items():
        read, read_theirs, written, written_theirs = measure(kind)
        print(f"{name:32}{read:8.2f}{read_theirs:8.2f}{written:9.2f}{written_theirs:8.2f}")


if __name__ == "__main__":
    main()
