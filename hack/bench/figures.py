"""Samples, what is made of them, and the figures to reach.

The machine drifts, so two peers are compared within a round only: the figure is the median over the rounds
of the ratio of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Literal

import msgspec

AGENT = "svc.mesh"
RESILIENT = "svc.mesh, resilient"
RESILIENT_ENVOY = "envoy, resilient"
"""The same with retries, a circuit breaker, a timeout and outlier detection."""
EVERYTHING = "access log of all, 1 % tracing"
TAPPED = "watched by `meshctl tap`"
"""What `hack.bench.observe_case` measures beside the bare agent."""
PLAIN_PYTHON = "no middleware"
MOST_PYTHON = 0.70
"""A little above 0.66, which is what it is now that known heads are looked up."""


class Sample(msgspec.Struct, frozen=True):
    """What one peer did in one case of one round; the names of `values` carry their units."""

    case: str
    peer: str
    round: int
    values: Mapping[str, float]


class Target(msgspec.Struct, frozen=True):
    """A figure to reach. `value` is None if it was not measured; `bound` is what it may be."""

    name: str
    value: float | None
    relation: Literal["at most", "at least"]
    bound: float
    unit: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether it is reached, None if it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.bound if self.relation == "at most" else self.value >= self.bound


def middle(samples: Iterable[Sample], case: str, peer: str, figure: str) -> float | None:
    """Return the median of a figure over the rounds."""
    values = [s.values[figure] for s in samples if s.case == case and s.peer == peer and figure in s.values]
    return median(values) if values else None


def ratio(samples: Iterable[Sample], case: str, figure: str, peer: str, other: str) -> float | None:
    """Return the median over the rounds of `peer`'s figure by `other`'s in the same round."""
    found: dict[tuple[str, int], float] = {
        (sample.peer, sample.round): sample.values[figure]
        for sample in samples
        if sample.case == case and figure in sample.values
    }
    ratios = [
        value / found[other, number]
        for (name, number), value in found.items()
        if name == peer and found.get((other, number))
    ]
    return median(ratios) if ratios else None


def quantile(values: Iterable[float], percent: float) -> float:
    """Return the value that `percent` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(1, -int(-len(ordered) * percent // 100))
    return ordered[rank - 1]


def targets(samples: list[Sample]) -> list[Target]:
    """Return the figures to reach with what was measured."""
    mib = "cpu_ms_per_mib"
    return [
        Target(
            "Python of a plain request / reference work",
            middle(samples, "python", PLAIN_PYTHON, "by_reference"),
            "at most",
            MOST_PYTHON,
        ),
        *_http1(samples),
        Target(
            "CPU per MiB of TCP, svc.mesh / HAProxy",
            ratio(samples, "tcp", mib, AGENT, "haproxy"),
            "at most",
            1.0,
        ),
        Target(
            "DNS queries per second on a core, svc.mesh / dnsmasq",
            ratio(samples, "dns", "per_second", AGENT, "dnsmasq"),
            "at least",
            0.8,
        ),
        Target(
            "an endpoint added to 1 of 1,000 Services: first request reaches it, p99",
            middle(samples, "endpoint added", AGENT, "p99_ms"),
            "at most",
            50.0,
            "ms",
        ),
        Target(
            "1,000 Services with 10 endpoints each: ready",
            middle(samples, "1000 services", AGENT, "ready_s"),
            "at most",
            3.0,
            "s",
        ),
        Target(
            "1,000 Services: memory of agent and one worker (PSS)",
            middle(samples, "1000 services", AGENT, "pss_mib"),
            "at most",
            120.0,
            "MiB",
        ),
        Target(
            "10 Services: memory of agent and one worker (PSS)",
            middle(samples, "10 services", AGENT, "pss_mib"),
            "at most",
            80.0,
            "MiB",
        ),
        Target(
            "a scrape with 10,000 Services, one in ten busy: CPU of the agent",
            middle(samples, "scrape", AGENT, "cpu_ms"),
            "at most",
            200.0,
            "ms",
        ),
        *_observed(samples),
        *_http2(samples),
        *_large_cluster(samples),
    ]


def _http1(samples: list[Sample]) -> list[Target]:
    """Return the figures of HTTP/1.1, each against a peer in the same round."""
    request, mib = "cpu_us_per_request", "cpu_ms_per_mib"
    figures = (
        ("CPU per request, small", "small", request, AGENT, "envoy", 0.38),
        ("CPU per request, small", "small", request, AGENT, "nginx", 1.4),
        ("CPU per request, small", "small", request, AGENT, "traefik", 0.32),
        ("CPU per request, each its traceparent", "traced", request, AGENT, "envoy", 0.48),
        ("CPU per request, each its traceparent", "traced", request, AGENT, "nginx", 1.7),
        ("CPU per request", "small", request, RESILIENT, RESILIENT_ENVOY, 0.5),
        ("CPU per MiB, responses of 1 MiB", "1m", mib, AGENT, "haproxy", 1.0),
    )
    return [
        Target(f"{name}: {ours} / {peer}", ratio(samples, case, figure, ours, peer), "at most", bound)
        for name, case, figure, ours, peer, bound in figures
    ] + [
        Target(
            "9,900 idle HTTP/1.1 connections: memory of the worker (RSS)",
            middle(samples, "idle http1", AGENT, "rss_mib"),
            "at most",
            99.0,
            "MiB",
        )
    ]


def _observed(samples: list[Sample]) -> list[Target]:
    """Return what watching requests may add to the CPU of a bare one."""
    figures = ((EVERYTHING, 1.2), (TAPPED, 1.05))
    return [
        Target(
            f"CPU per request, {way} / bare",
            ratio(samples, "observed", "cpu_us_per_request", way, AGENT),
            "at most",
            bound,
        )
        for way, bound in figures
    ]


def _http2(samples: list[Sample]) -> list[Target]:
    """Return the figures of HTTP/2 and gRPC: against Envoy in the same round, but memory."""
    cpu = "cpu_us_per_request"
    figures = (
        ("HTTP/2 to HTTP/2, small, 8 connections x 10 streams", "http2 8x10", 0.5),
        ("HTTP/2 to HTTP/2, small, 32 x 1", "http2 32x1", 0.55),
        ("HTTP/2 to HTTP/2, header blocks that never repeat", "http2 unique", 0.95),
        ("HTTP/2 to HTTP/2, 10 KiB", "http2 10k", 0.6),
        ("HTTP/2 to HTTP/2, 1 MiB", "http2 1m", 1.0),
        ("HTTP/1 to HTTP/2, small", "http1 to http2", 0.45),
        ("HTTP/2 to HTTP/1, small", "http2 to http1", 0.45),
    )
    return [
        Target(f"{name}: CPU, svc.mesh / Envoy", ratio(samples, case, cpu, AGENT, "envoy"), "at most", bound)
        for name, case, bound in figures
    ] + [
        Target(
            "gRPC unary, 10 calls at once: p99, svc.mesh / Envoy",
            ratio(samples, "grpc", "p99_us", AGENT, "envoy"),
            "at most",
            1.0,
        ),
        Target(
            "1,000 idle HTTP/2 connections: memory of the worker (RSS)",
            middle(samples, "idle connections", AGENT, "rss_mib"),
            "at most",
            60.0,
            "MiB",
        ),
    ]


def _large_cluster(samples: list[Sample]) -> list[Target]:
    """Return the figures for 10,000 Services, if they were asked for."""
    case = "10000 services"
    figures = (
        ("10,000 Services at an API server: ready", case, "ready_s", 15.0, "s"),
        ("10,000 Services: memory of the agent (RSS)", case, "agent_rss_mib", 350.0, "MiB"),
        ("10,000 Services: memory of a worker (RSS)", case, "worker_rss_mib", 200.0, "MiB"),
        ("10,000 Services: one change, p99", "one change in 10000 services", "p99_ms", 50.0, "ms"),
        ("10,000 Services: one more, p99", "a new one beside 10000 services", "p99_ms", 50.0, "ms"),
        ("10,000 Services: the agent's share of a core", "100 changes a second", "core_share", 0.5, ""),
    )
    return [
        Target(name, value, "at most", bound, unit)
        for name, of, figure, bound, unit in figures
        if (value := middle(samples, of, AGENT, figure)) is not None
    ]
