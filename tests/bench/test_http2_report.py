"""HTTP/2 in the report: each case has its title, its columns and its goal."""

from __future__ import annotations

import pytest
import yaml

from hack.bench.__main__ import NEEDED, PARTS, PEERS, TITLES
from hack.bench.figures import AGENT, Sample, Target, targets
from hack.bench.grpc_case import CASE as GRPC
from hack.bench.http2_cases import HTTP2_CASES
from hack.bench.http2_load import Http2Load
from hack.bench.http2_peers import envoy_config
from hack.bench.http_cases import costs
from hack.bench.idle_case import CASE as IDLE
from hack.bench.machine import PACKAGES
from hack.bench.processes import BenchError
from hack.bench.report import COLUMNS, Report, render_report

CASES = [case.name for case in HTTP2_CASES] + [GRPC, IDLE]


def sample(case: str, peer: str, number: int, **values: float) -> Sample:
    figures = {figure: 1.0 for _, figure, _ in COLUMNS[case]}
    return Sample(case, peer, number, {**figures, **values})


def report(samples: list[Sample]) -> str:
    cores = {"proxy": 0, "load": 1}
    return render_report(Report({}, {}, 1, 1, cores, {}, [], TITLES, samples, targets(samples)))


def goal(samples: list[Sample], words: str) -> Target:
    (found,) = (target for target in targets(samples) if words in target.name)
    return found


@pytest.mark.parametrize("case", CASES)
def test_each_case_is_in_the_report(case: str) -> None:
    assert case in TITLES
    assert TITLES[case] in report([sample(case, "envoy", 0), sample(case, AGENT, 0)])


def test_what_a_part_needs_can_be_installed_or_comes_with_make_bench() -> None:
    assert set(NEEDED) == set(PARTS)
    programs = {name for part in ("http2", "grpc", "idle") for name in (*NEEDED[part], *PEERS[part])}
    assert programs - set(PACKAGES) == {"envoy"}


@pytest.mark.parametrize(
    ("words", "case", "bound"),
    [
        ("8 connections x 10 streams", "http2 8x10", 0.5),
        ("32 x 1", "http2 32x1", 0.55),
        ("never repeat", "http2 unique", 0.95),
        ("HTTP/2 to HTTP/2, 10 KiB", "http2 10k", 0.6),
        ("HTTP/2 to HTTP/2, 1 MiB", "http2 1m", 1.0),
        ("HTTP/1 to HTTP/2", "http1 to http2", 0.45),
        ("HTTP/2 to HTTP/1", "http2 to http1", 0.45),
    ],
)
def test_goals_are_medians_of_ratios_within_a_round(words: str, case: str, bound: float) -> None:
    ours, theirs = (10.0, 30.0, 90.0), (100.0, 100.0, 100.0)
    samples = []
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        samples.append(sample(case, AGENT, number, cpu_us_per_request=mine))
        samples.append(sample(case, "envoy", number, cpu_us_per_request=other))
    target = goal(samples, words)
    assert target.value == pytest.approx(0.3)
    assert (target.relation, target.bound) == ("at most", bound)
    assert goal([], words).reached is None


def test_grpc_is_compared_by_cpu_and_by_p99() -> None:
    samples = [
        sample(GRPC, "envoy", 0, cpu_us_per_request=200.0, p99_us=8000.0),
        sample(GRPC, AGENT, 0, cpu_us_per_request=150.0, p99_us=10000.0),
        Sample(GRPC, "(no proxy)", 0, {"p50_us": 1.0, "p99_us": 5000.0, "per_second": 1.0}),
    ]
    target = goal(samples, "gRPC")
    assert (target.value, target.reached) == (1.25, False)
    lines = report(samples).splitlines()
    (envoy,) = (line.split() for line in lines if line.startswith("  envoy"))
    assert envoy[-2:] == ["0.75", "1.25"]
    (direct,) = (line.split() for line in lines if line.startswith("  (no proxy)"))
    assert direct[-1] == "2.00"


def test_memory_is_that_of_the_worker() -> None:
    assert goal([sample(IDLE, AGENT, 0, rss_mib=61.0)], "1,000 idle").reached is False
    assert goal([sample(IDLE, AGENT, 0, rss_mib=60.0)], "1,000 idle").reached is True


def test_costs_are_by_request_and_by_size() -> None:
    values = costs("a case", Http2Load(1000, 2_000_000, 4 * 1024 * 1024), 0.5)
    assert values == {
        "cpu_us_per_request": 500.0,
        "cpu_ms_per_mib": 125.0,
        "per_second": 500.0,
        "mib_per_second": 2.0,
        "core_share": 0.25,
    }


@pytest.mark.parametrize("load", [Http2Load(10, 1, 1, {"failed": 2, "errored": 0}), Http2Load(0, 1, 1)])
def test_a_case_with_failures_has_no_figures(load: Http2Load) -> None:
    with pytest.raises(BenchError, match=f"of {load.requests} requests some failed .*: a case, a proxy"):
        costs("a case, a proxy", load, 1.0)


def test_envoy_has_a_listener_for_each_way_and_the_same_streams_on_both_sides() -> None:
    ports = {"http2_port": 1, "http1_port": 2, "mixed_port": 3}
    resources = yaml.safe_load(envoy_config(8, 9, ports))["static_resources"]
    ways = {}
    for listener in resources["listeners"]:
        (chain,) = listener["filter_chains"]
        manager = chain["filters"][0]["typed_config"]
        route = manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
        port = listener["address"]["socket_address"]["port_value"]
        ways[port] = (manager["codec_type"], route["cluster"])
        assert manager["http2_protocol_options"] == {"max_concurrent_streams": 100}
    assert ways == {1: ("HTTP2", "http2"), 2: ("HTTP1", "http2"), 3: ("HTTP2", "http1")}
    backends = {}
    for cluster in resources["clusters"]:
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        options = [*cluster.get("typed_extension_protocol_options", {}).values()]
        http2 = [option["explicit_http_config"] for option in options]
        backends[cluster["name"]] = (endpoint["address"]["socket_address"]["port_value"], http2)
    streams = {"http2_protocol_options": {"max_concurrent_streams": 100}}
    assert backends == {"http2": (8, [streams]), "http1": (9, [])}
