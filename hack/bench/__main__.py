"""`python -m hack.bench`: every comparison in one go; prints tables and writes `build/bench.json`."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from hack.bench import (
    balance_case,
    cluster_case,
    dns_case,
    grpc_case,
    http2_cases,
    http_cases,
    idle_case,
    observe_case,
    python_case,
    scale_case,
    scrape_case,
    stepping,
)
from hack.bench.figures import Sample, targets
from hack.bench.http2_cases import HTTP2_CASES
from hack.bench.http_cases import CONNECTIONS, HTTP_CASES, LATENCY_CASES, TCP_CASES
from hack.bench.machine import Cores, choose_cores, describe_machine, install_missing, program, versions
from hack.bench.processes import BenchError, ProcessGroup
from hack.bench.report import Report, render_report, write_report
from hack.kit.processes import ProcessFailed

PARTS = (
    "python",
    "http",
    "http2",
    "grpc",
    "idle",
    "observe",
    "latency",
    "tcp",
    "dns",
    "scale",
    "scrape",
    "stepping",
    "balance",
    "cluster",
)
ON_REQUEST = ("balance", "cluster")
"""Parts that need more than the rest and take long: run only when named."""
NEEDED: Mapping[str, tuple[str, ...]] = {
    "python": (),
    "http": ("wrk", "nginx"),
    "http2": ("h2load", "nghttpd", "wrk", "nginx"),
    "grpc": (),
    "idle": ("nghttpd", "nginx"),
    "observe": ("wrk", "nginx"),
    "latency": ("wrk", "nginx"),
    "tcp": ("wrk", "nginx"),
    "dns": ("dnsperf",),
    "scale": ("nginx",),
    "scrape": (),
    "stepping": ("wrk", "nginx"),
    "balance": ("wrk",),
    "cluster": ("nginx", "nft"),
}
"""Without these a part cannot be measured at all; every other program is a peer."""
PEERS: Mapping[str, tuple[str, ...]] = {
    "http": ("haproxy", "traefik", "envoy"),
    "http2": ("haproxy", "nghttpx", "envoy"),
    "grpc": ("haproxy", "nghttpx", "envoy"),
    "idle": ("envoy",),
    "latency": ("haproxy", "traefik", "envoy"),
    "tcp": ("haproxy", "traefik", "envoy"),
    "dns": ("dnsmasq",),
    "balance": ("envoy",),
}
TITLES = {
    **{case.name: case.title for case in (*HTTP_CASES, *HTTP2_CASES, *LATENCY_CASES, *TCP_CASES)},
    python_case.CASE: "The Python of one request: transports that do nothing, beside a fixed piece of work",
    grpc_case.CASE: f"gRPC, unary calls by grpcio, {grpc_case.AT_ONCE} at once",
    idle_case.HTTP1_CASE: (
        f"{idle_case.HTTP1_CONNECTIONS:,} idle HTTP/1.1 connections: the process that holds them"
    ),
    idle_case.CASE: f"{idle_case.CONNECTIONS:,} idle HTTP/2 connections: the process that holds them",
    observe_case.CASE: f"Small responses, {CONNECTIONS} connections, each Service watched in another way",
    "dns": f"DNS over UDP, {dns_case.NAMES} names that exist, type A",
    "stepping": "The data plane alone, 32 connections: layers stepped eagerly, and in a Task a request",
    "stepping, one": "The same, one connection",
    balance_case.WORKERS: (
        "The balancers in a time of their own: four endpoints, one of them ten times as slow; p99 by workers"
    ),
    balance_case.PICK: "What the choice of an endpoint costs",
    balance_case.CASE: f"Four endpoints, one of them ten times as slow, {CONNECTIONS} connections",
    "10 services": "10 Services with 10 endpoints, agent and one worker on one core",
    "1000 services": "1,000 Services with 10 endpoints, agent and one worker on one core",
    "10000 services": "10,000 Services with 10 endpoints, a real API server, agent and worker on one core",
    "one change in 10000 services": "10,000 Services, an endpoint added to one: until it answers",
    "a new one beside 10000 services": "10,000 Services, and one more: until its endpoint answers",
    "100 changes a second": "the agent process alone, 10,000 Services",
    scrape_case.SOME: f"/metrics with {scrape_case.SERVICES:,} Services, one in ten of them busy",
    scrape_case.ALL: f"/metrics with {scrape_case.SERVICES:,} Services, all of them busy",
    scrape_case.OPEN: "the same as OpenMetrics, with as many exemplars as there may be",
    "endpoint added": "1,000 Services, an endpoint added to one: from rename() to the first answer from it",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--rounds", type=click.IntRange(1, 50), default=5, show_default=True, help="How often each is measured."
)
@click.option(
    "--seconds", type=click.IntRange(1, 60), default=2, show_default=True, help="Of load in one measurement."
)
@click.option(
    "--only",
    type=click.Choice(PARTS),
    multiple=True,
    help="Leave out the other parts; may be repeated. `balance` and `cluster` run only so.",
)
@click.option(
    "--case",
    "named",
    type=click.Choice([case.name for case in (*HTTP_CASES, *HTTP2_CASES)]),
    multiple=True,
    help="Leave out the other cases of `http` and `http2`; may be repeated.",
)
@click.option(
    "--quick", is_flag=True, help="Two rounds of one second and few changes: for a look, not for figures."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build/bench.json"),
    show_default=True,
    help="Where the raw figures go.",
)
def main(
    rounds: int, seconds: int, only: tuple[str, ...], named: tuple[str, ...], quick: bool, output: Path
) -> None:
    """Compare the agent with the usual proxies and dnsmasq, each on one core, and measure it at size."""
    if sys.platform != "linux":
        raise click.ClickException("the benchmark needs Linux")
    if quick:
        rounds, seconds = 2, 1
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    parts = tuple(part for part in PARTS if part in (only or set(PARTS).difference(ON_REQUEST)))
    notes = install_missing(dict.fromkeys(p for part in parts for p in NEEDED[part] + PEERS.get(part, ())))
    cores = choose_cores()
    if cores.shared:
        notes.append("there is one core only: proxy and load share it, so the figures mean little")
    machine = describe_machine()
    changes = 20 if quick else 100
    samples: list[Sample] = []
    commands: dict[str, str] = {}
    try:
        for part in parts:
            if absent := [name for name in NEEDED[part] if program(name) is None]:
                notes.append(f"{part} is left out: it needs {' and '.join(absent)}")
                continue
            samples += _measure(part, cores, rounds, seconds, changes, named, commands)
    except (BenchError, ProcessFailed) as error:
        raise click.ClickException(str(error)) from error
    report = Report(
        machine=machine,
        versions=versions(),
        rounds=rounds,
        seconds=seconds,
        cores={"proxy": cores.proxy, "load": cores.load},
        commands=commands,
        notes=notes,
        titles=TITLES,
        samples=samples,
        targets=targets(samples),
    )
    write_report(report, output)
    click.echo(render_report(report))
    click.echo(f"\nraw figures: {output}")


def _measure(
    part: str,
    cores: Cores,
    rounds: int,
    seconds: float,
    changes: int,
    named: Collection[str],
    commands: dict[str, str],
) -> list[Sample]:
    """Run one part with processes and a directory of its own; note the commands."""
    http = [case for case in HTTP_CASES if not named or case.name in named]
    http2 = [case for case in HTTP2_CASES if not named or case.name in named]
    # nginx and dnsmasq must be able to read it when they run as another user.
    with tempfile.TemporaryDirectory(prefix="svcmesh-bench-") as name, ProcessGroup(Path(name)) as group:
        runs: Mapping[str, Callable[[], Iterator[Sample]]] = {
            "python": lambda: python_case.measure(rounds, _progress, cores.proxy),
            "http": lambda: http_cases.measure(group, cores, http, rounds, seconds, _progress),
            "http2": lambda: http2_cases.measure(group, cores, http2, rounds, seconds, _progress),
            "grpc": lambda: grpc_case.measure(group, cores, rounds, seconds, _progress),
            "idle": lambda: idle_case.measure(group, cores, min(rounds, 3), _progress),
            "observe": lambda: observe_case.measure(group, cores, rounds, seconds, _progress),
            "latency": lambda: http_cases.measure(group, cores, LATENCY_CASES, rounds, seconds, _progress),
            "tcp": lambda: http_cases.measure(group, cores, TCP_CASES, rounds, seconds, _progress),
            "dns": lambda: dns_case.measure(group, cores, rounds, seconds, _progress),
            "stepping": lambda: stepping.measure(group, cores, rounds, seconds, _progress),
            "balance": lambda: balance_case.measure(group, cores, rounds, seconds, _progress),
            "cluster": lambda: cluster_case.measure(
                cores, changes, 60.0 if changes > 20 else 10.0, _progress
            ),
            "scrape": lambda: scrape_case.measure(rounds, _progress, cores.proxy),
            "scale": lambda: scale_case.measure(group, cores, min(rounds, 3), changes, _progress),
        }
        samples = list(runs[part]())
        commands.update(group.commands)
        return samples


def _progress(line: str) -> None:
    click.echo(f"bench: {line}", err=True)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
