"""The Services of a soak: what each asks of the mesh, and how it is changed meanwhile. Values only.

Between them they use every annotation. `variants` are taken into use one after another, in random order; in a
bad one some value cannot be used, so that what was in force before stays in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from hack.kit.manifests import ENABLED

NAMESPACE = "soak"
ZONE = "svc.mesh"
PORT = 18090

PODS = "PODS"
"""An annotation's value that stands for the places of all good endpoints that stay."""

Annotations = Mapping[str, str]
Bad = Literal["refuse", "reset", "stall"]
"""What a bad endpoint does: accept no connection, reset it when a request is there, never answer."""


Speaks = Literal["http", "tcp", "http2", "grpc"]
"""The protocols of endpoints of a Service: HTTP/1.1, bytes, HTTP/2 without TLS, or gRPC."""


class SoakService(msgspec.Struct, frozen=True):
    """One Service. `bad` are the endpoints that may be among its good ones for a while."""

    name: str
    number: int
    """Makes its ClusterIP."""
    annotations: Annotations = {}
    variants: tuple[Annotations, ...] = ()
    bad: tuple[Bad, ...] = ()
    protocol: Speaks = "http"
    may_leave: bool = False
    """Some variant takes it out of the mesh."""

    @property
    def mesh_name(self) -> str:
        """Its name in the mesh zone."""
        return f"{self.name}.{NAMESPACE}.{ZONE}"

    @property
    def cluster_ip(self) -> str:
        """Its ClusterIP; its mesh address has the same last two numbers."""
        return f"10.96.4.{self.number}"

    @property
    def port_name(self) -> str:
        """The name of its port, which says what it speaks; for HTTP/2 annotations do."""
        return {"http": "http", "tcp": "tcp-soak"}.get(self.protocol, "soak")


def _asked(settings: Annotations) -> Annotations:
    return {**ENABLED, **{f"svc.mesh/{name}": value for name, value in settings.items()}}


def _service(
    name: str,
    number: int,
    settings: Annotations | None = None,
    *variants: Annotations,
    bad: tuple[Bad, ...] = (),
    protocol: Speaks = "http",
) -> SoakService:
    asked = _asked(settings or {})
    return SoakService(name, number, asked, (asked, *map(_asked, variants)), bad, protocol)


_RETRY = {"retry-attempts": "3", "per-try-timeout": "1s"}
_SPLIT = {"split": "split-a=70 split-b=30", "split-by": "header x-version"}

SERVICES: tuple[SoakService, ...] = (
    _service(
        "plain",
        10,
        {},
        {"max-connections": "none"},
        {"upstream-protocol": "http1"},
        {"upstream-protocol": "quic", "upstream-protocol.http": "http1"},
        {"upstream-protocol": "quic"},
        {"health-check": "http path=/status/200 interval=1s unhealthy=2"},
        {"health-check": "tcp interval=2s timeout=500ms healthy=2"},
        {"health-check": "ping"},
        {"outlier-detection": "all consecutive=3 ejection=1s longest=5s", "locality": "prefer"},
        {"outlier-detection.http": "5xx,timeout", "locality.http": "strict", "failover.http": "retry"},
        {"outlier-detection": "6xx", "locality": "near", "failover": "no_name"},
        {"failover": "retry", "health-check": "tcp interval=1s"},
        {"access-log": "errors slow=10ms 1%", "access-log.http": "all"},
        {"access-log": "most"},
        {"objective": "99.9% 250ms", "objective.http": "99.95% 100ms latency=99%"},
        {"objective": "100% 300ms"},
        {"load-balancing": "least-request", "slow-start": "5s", "session-affinity": "cookie max-age=1m"},
        {"load-balancing": "consistent-hash header=x-soak", "session-affinity.http": "cookie name=soak"},
        {"load-balancing.http": "ewma decay=2s", "slow-start.http": "2s recovered=on"},
        {"load-balancing": "fastest", "slow-start": "soon"},
        {"endpoints": PODS},
        {"endpoints.http": PODS, "max-connections": "none"},
        {"middleware": "nobody"},
        {"tracing": "10% slow=100ms errors=on"},
        {"tracing": "often"},
        {"server-timing": "on", "tracing": "1%"},
        {"server-timing": "on-request"},
        {"server-timing": "always"},
        {"cache": "on size=1Mi stale-while-revalidate=5s stale-if-error=1m"},
        {"cache": "on size=1Mi", "cache-purge": "soak-1 path=/status/"},
        {"cache": "on size=1Mi", "cache-purge": "soak-1 path=/status/ soak-2"},
        {"cache": "on size=1Mi", "cache-purge": "/status/"},
        {"cache": "on size=lots"},
        bad=("refuse",),
    ),
    _service(
        "retry",
        11,
        {**_RETRY, "retry-on": "gateway-error"},
        {**_RETRY, "retry-on": "5xx,429"},
        {**_RETRY, "retry-attempts": "5", "retry-budget": "50% min=20/s"},
        {**_RETRY, "retry-on": "5xx", "retry-backoff": "5ms max=50ms retry-after=ignore"},
        {**_RETRY, "retry-methods": "PATCH", "retry-backoff": "soon"},
        {**_RETRY, "retry-attempts": "0", "retry-attempts.http": "4", "retry-on.18090": "5xx"},
        {**_RETRY, "hedge": "90%", "retry-budget": "50% min=20/s"},
        {**_RETRY, "retry-attempts": "many"},
        {**_RETRY, "retry-attempts.http": "few"},
        {**_RETRY, "retry-on": "sometimes"},
        bad=("refuse", "reset", "stall"),
    ),
    _service(
        "breaker",
        12,
        {"circuit-breaker": "ResponseCodeRatio(500, 600, 0, 600) > 0.3"},
        {"circuit-breaker": "NetworkErrorRatio() > 0.5 || ResponseCodeRatio(500, 600, 0, 600) > 0.2"},
        {"circuit-breaker": "LatencyAtQuantileMS(50.0) > 20", "circuit-breaker-recovery": "3s after=1s"},
        {
            "circuit-breaker": "NetworkErrorRatio() > 0.5 && RequestThreshold() >= 5",
            "circuit-breaker-samples": "10",
            "circuit-breaker-recovery": "1s after=1s check=50ms",
            "circuit-breaker-fallback": "429",
        },
        {"circuit-breaker-force": "closed"},
        {"circuit-breaker": "NetworkErrorRatio() > 0.5", "circuit-breaker-fallback": "200"},
        {"circuit-breaker": "NetworkErrorRatio( >"},
        bad=("reset",),
    ),
    _service(
        "limited",
        13,
        {"rate-limit": "20/s burst=20"},
        {"rate-limit": "5/s burst=5 per=source"},
        {"rate-limit": "100/m"},
        {"rate-limit": "5/s burst=5 per=workload headers=on"},
        {"rate-limit": "5/s burst=5 per=header:x-secret keys=2"},
        {"rate-limit": "20/s scope=cluster away=open"},
        {"rate-limit": "-1/s"},
    ),
    _service(
        "crowded",
        31,
        {"max-requests": "8 queue=16 queue-time=500ms"},
        {"max-requests": "2"},
        {"max-requests": "adaptive min=2 max=50 queue=20"},
        {"max-requests": "1 queue=0"},
        {"max-requests": "lots"},
    ),
    _service(
        "timed",
        14,
        {"timeout": "4s", "connect-timeout": "2s", "idle-timeout": "30s"},
        {"timeout": "5s", "per-try-timeout": "4s"},
        {"timeout": "soon"},
        {"timeout": "4s", "connect-timeout": "-1s"},
    ),
    _service(
        "headers",
        15,
        {"request-headers": "set x-soak=1; remove x-secret", "response-headers": "set x-mesh=1"},
        {
            "request-headers": "set x-soak=2; remove x-secret; add x-more=yes",
            "response-headers": "set x-mesh=2; remove server",
            "forwarded-headers": "x-forwarded",
        },
        {
            "request-headers": "set x-soak=3; remove x-secret",
            "response-headers": "set x-mesh=3",
            "forwarded-headers": "x-forwarded keep",
        },
        {"request-headers": "turn x-soak=4", "response-headers": "set x-mesh=1"},
    ),
    _service(
        "routes",
        25,
        {"rewrite": "prefix /nothing /else; strip /none", "cors": "https://shop.example max-age=1m"},
        {"mirror": "split-a 10%"},
        {"mirror": "split-b.soak"},
        {"redirect": "307 prefix=/nowhere path=/there", "cors": "*"},
        {"rewrite": r"regex /no-([a-z]+) /\1", "redirect": "308 prefix=/nowhere path=/there port=81"},
        {"rewrite": "turn /a /b", "redirect": "200"},
    ),
    _service(
        "fault",
        16,
        {"fault": "delay 20ms 10%; abort 503 5%"},
        {"fault": "abort 503 20%"},
        {"fault": "delay 50ms 50%; by-header"},
        {"fault": "abort 200"},
    ),
    _service(
        "split",
        17,
        _SPLIT,
        {**_SPLIT, "split-sticky": "1h"},
        {**_SPLIT, "split": "split-a=0 split-b=1"},
        {"split": "split=10 split-a=45 split-b=45", "split-by": "cookie version", "split-sticky": "true"},
        {**_SPLIT, "split": "split-a=most"},
    ),
    _service("split-a", 18, {}, {"retry-attempts": "1"}, bad=("refuse",)),
    _service("split-b", 19, {}, {"connect-timeout": "1s"}),
    _service(
        "narrow",
        20,
        {"max-connections": "2"},
        {"max-connections": "3", "request-trailers": "pass"},
        {"max-connections": "4", "request-trailers": "drop"},
        {"max-connections": "0"},
    ),
    _service(
        "stream",
        21,
        {},
        {"idle-timeout": "1m"},
        {"protocol.tcp-soak": "tcp", "connect-timeout": "1s"},
        {"health-check.tcp-soak": "tcp interval=1s unhealthy=1"},
        {"idle-timeout": "0s"},
        bad=("refuse",),
        protocol="tcp",
    ),
    _service(
        "two",
        23,
        {"protocol": "http2"},
        {"protocol": "h2c", "max-connections": "2"},
        {"upstream-protocol": "http2"},
        {"protocol": "http", "upstream-protocol": "http2", "retry-attempts": "2"},
        {"protocol.soak": "h2c", "health-check": "tcp interval=1s"},
        {"protocol": "http2", "upstream-protocol": "spdy"},
        {"protocol": "http2", "timeout": "20s"},
        bad=("refuse",),
        protocol="http2",
    ),
    _service(
        "grpc",
        24,
        {"protocol": "grpc"},
        {"protocol": "grpc", "health-check": "grpc interval=1s"},
        {"protocol.soak": "grpc", "retry-attempts": "2", "retry-on": "resource-exhausted"},
        {"protocol": "grpc", "timeout": "25s", "connect-timeout": "2s"},
        {"protocol": "grpc", "outlier-detection": "5xx consecutive=3 ejection=1s"},
        {"protocol": "grpc", "retry-attempts": "few"},
        bad=("refuse",),
        protocol="grpc",
    ),
    SoakService(
        "toggled",
        22,
        _asked({}),
        (_asked({}), _asked({"protocol": "tcp"}), {}, _asked({"protocol": "quic"})),
        ("reset", "stall"),
        may_leave=True,
    ),
)
BY_NAME: Mapping[str, SoakService] = {service.name: service for service in SERVICES}
