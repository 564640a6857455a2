"""The load of HTTP/2: h2load where all requests are alike, `block_load` where they are not."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from hack.bench.machine import program
from hack.bench.processes import BenchError, run

_GRACE: Final = 20.0
_UNITS: Final[Mapping[str, int]] = {"us": 1, "ms": 1000, "s": 1_000_000}
_FINISHED: Final = re.compile(r"^finished in ([\d.]+)(us|ms|s),", re.MULTILINE)
_REQUESTS: Final = re.compile(
    r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.MULTILINE
)
_TRAFFIC: Final = re.compile(r"^traffic: .*?\((\d+)\) total", re.MULTILINE)


class Http2Load(msgspec.Struct, frozen=True):
    """The result of one run: answered requests, the time it took, and the bytes that were received."""

    requests: int
    microseconds: int
    bytes: int
    errors: Mapping[str, int] = {}


def h2load_command(
    url: str, connections: int, streams: int, seconds: float, body: Path | None = None
) -> list[str]:
    """Return the command line of one run of h2load: with a body it sends POST."""
    posted = ["-d", str(body)] if body is not None else []
    duration = str(max(1, round(seconds)))
    return [
        program("h2load") or "h2load", "-t1", f"-c{connections}", f"-m{streams}", "-D", duration, *posted, url
    ]  # fmt: skip


def read_h2load(output: str) -> Http2Load:
    """Return what h2load says it did.

    Raises:
        BenchError: these are not the words of h2load.
    """
    finished, counts, traffic = (p.search(output) for p in (_FINISHED, _REQUESTS, _TRAFFIC))
    if finished is None or counts is None or traffic is None:
        raise BenchError(f"h2load did not say what it did:\n{output}")
    done, _, failed, errored, timeout = map(int, counts.groups())
    return Http2Load(
        done,
        round(float(finished[1]) * _UNITS[finished[2]]),
        int(traffic[1]),
        {"failed": failed, "errored": errored, "timeout": timeout},
    )


def run_h2load(command: Sequence[str], seconds: float, core: int) -> Http2Load:
    """Put load on a proxy and return what came of it."""
    return read_h2load(run(command, core, seconds + _GRACE))


def block_load_command(blocks: Path, url: str, streams: int, seconds: float, answer: int) -> list[str]:
    """Return the command line of one run of `hack.bench.block_load`."""
    command = [sys.executable, "-m", "hack.bench.block_load", str(blocks), url]
    return [*command, "--streams", str(streams), "--seconds", f"{seconds:g}", "--answer", str(answer)]


def run_block_load(command: Sequence[str], seconds: float, core: int) -> Http2Load:
    """Send prepared header blocks and return what came of it."""
    output = run(command, core, seconds + _GRACE)
    return msgspec.json.decode(output.rstrip().rpartition("\n")[2], type=Http2Load)
