"""The load: wrk for HTTP, dnsperf for DNS, and what they report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hack.bench.machine import program
from hack.bench.processes import BenchError, run
from hack.kit.ports import LOCALHOST

_GRACE = 20.0
_SUMMARY = """\
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests": %d, "microseconds": %d, "bytes": %d, "p50": %d, "p99": %d, '
    .. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
"""
_TRACED = """\
local before, number = nil, 0
init = function(args)
  math.randomseed(os.time())
  before = string.format('00-%08x%08x', math.random(0, 2147483647), math.random(0, 2147483647))
end
request = function()
  number = number + 1
  wrk.headers['traceparent'] = before .. string.format('%016x-%016x-01', number, number)
  return wrk.format()
end
"""
"""Gives each request a `traceparent` that no other has."""
_DNS_FIGURES = {
    "completed": re.compile(r"Queries completed:\s+(\d+)"),
    "lost": re.compile(r"Queries lost:\s+(\d+)"),
    "seconds": re.compile(r"Run time \(s\):\s+([\d.]+)"),
}
_NOERROR = re.compile(r"Response codes:\s+NOERROR (\d+)")


class HttpLoad(msgspec.Struct, frozen=True):
    """The result of one run of wrk; percentiles of the latency in microseconds, `errors` by wrk's kinds."""

    requests: int
    microseconds: int
    bytes: int
    p50: int
    p99: int
    errors: dict[str, int]


class DnsLoad(msgspec.Struct, frozen=True):
    """The result of one run of dnsperf."""

    queries: int
    seconds: float
    lost: int


class HttpLoader:
    """Runs wrk on a core."""

    def __init__(self, directory: Path, core: int) -> None:
        self._script = directory / "summary.lua"
        self._script.write_text(_SUMMARY)
        self._traced = directory / "traced.lua"
        self._traced.write_text(_TRACED + _SUMMARY)
        self._core = core

    def command(
        self, url: str, connections: int, seconds: float, headers: Sequence[str], traced: bool = False
    ) -> list[str]:
        """Return the command line of one run; wrk takes whole seconds. `traced`: no two heads are equal."""
        extra = [word for header in headers for word in ("-H", header)]
        duration = f"{max(1, round(seconds))}s"
        wrk = program("wrk") or "wrk"
        script = str(self._traced if traced else self._script)
        return [wrk, "-t1", f"-c{connections}", f"-d{duration}", *extra, "-s", script, url]

    def run(
        self,
        url: str,
        connections: int,
        seconds: float,
        headers: Sequence[str] = (),
        traced: bool = False,
    ) -> HttpLoad:
        """Put load on `url` and return what came of it."""
        command = self.command(url, connections, seconds, headers, traced)
        output = run(command, self._core, seconds + _GRACE)
        return msgspec.json.decode(output.rstrip().rpartition("\n")[2], type=HttpLoad)


def dnsperf_command(names: Path, port: int, seconds: float) -> list[str]:
    """Return the command line of one run: eight sockets, at most 200 queries under way."""
    command = [program("dnsperf") or "dnsperf", "-s", LOCALHOST, "-p", str(port), "-d", str(names)]
    return [*command, "-l", str(max(1, round(seconds))), "-c", "8", "-q", "200"]


def run_dnsperf(names: Path, port: int, seconds: float, core: int) -> DnsLoad:
    """Ask for the names of a dnsperf file over UDP, again and again.

    Raises:
        BenchError: not every answer was NOERROR.
    """
    command = dnsperf_command(names, port, seconds)
    output = run(command, core, seconds + _GRACE)
    figures = {name: pattern.search(output) for name, pattern in _DNS_FIGURES.items()}
    good = _NOERROR.search(output)
    if good is None or any(match is None for match in figures.values()):
        raise BenchError(f"dnsperf did not get the answers it asked for:\n{output}")
    values = {name: float(match[1]) for name, match in figures.items() if match is not None}
    if int(good[1]) != int(values["completed"]):
        raise BenchError(f"dnsperf got answers other than NOERROR:\n{output}")
    return DnsLoad(int(values["completed"]), values["seconds"], int(values["lost"]))
