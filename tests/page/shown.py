"""An agent's admin server with Services that are made up: what the page is tested with."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import msgspec

from discovery.files.reading import read_once
from discovery.model import PodKey, PodObject
from nodeagent.admin.backing import backing_of
from nodeagent.admin.plan_page import PlanPage
from nodeagent.admin.readiness import Readiness
from nodeagent.admin.resolve import Resolution
from nodeagent.admin.server import AdminServer, AdminView
from nodeagent.agent.explain_page import ExplainPage
from nodeagent.agent.tapping import TapDoor
from nodeagent.control.tap import TappedLine, Watchers
from nodeagent.meshctl.check import node_settings, plan_of
from nodeagent.plan.model import EMPTY_PLAN, BackendKey, NodePlan
from nodeagent.plan.render import InForce, in_force_document
from nodeagent.stats.failures import FailureLine, FailureMemory
from nodeagent.stats.overview import Backing
from nodeagent.stats.signals import NodeStats, Promise
from tests.cli.stats import counted, node_stats

MARKUP = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
BOLD = "set x-shop=<b>one</b>"


def manifest(namespace: str, name: str, annotations: dict[str, str] | None = None, pods: int = 2) -> str:
    """Return the YAML of a Service and its endpoints."""
    number = zlib.crc32(f"{namespace}/{name}".encode()) % 60000 + 1
    written = {"svc.mesh/enabled": "true", **(annotations or {})}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "annotations": written},
        "spec": {"clusterIP": f"10.96.{number >> 8}.{number & 255}", "ports": [{"name": "http", "port": 80}]},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": namespace, "name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {
                "addresses": [f"10.1.0.{number + 1}"],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "name": f"{name}-5d8f9c-abcd{number}"},
            }
            for number in range(pods)
        ],
    }
    return "".join(f"---\n{msgspec.json.encode(one).decode()}\n" for one in (service, endpoints))


SHOP = "".join(
    (
        manifest("shop", "front", {"svc.mesh/retry-attempts": "2", "svc.mesh/health-check": "http /healthz"}),
        manifest(
            "shop",
            "cart",
            {"svc.mesh/retry-attempts": MARKUP, "svc.mesh/request-headers": "set x-shop=<b>one</b>"},
        ),
        manifest("shop", "pay", {"svc.mesh/timeout": "2s"}),
        manifest("shop", "stock"),
        manifest("bank", "ledger", pods=0),
    )
)


def many(count: int) -> str:
    """Return the YAML of so many Services."""
    return "".join(manifest(f"team-{number % 20}", f"service-{number}") for number in range(count))


def with_promises(stats: NodeStats, promises: Mapping[str, Promise]) -> NodeStats:
    """Return stats in which Services of these names have an objective for each port."""
    ports = [msgspec.structs.replace(port, promise=promises.get(port.service)) for port in stats.ports]
    return msgspec.structs.replace(stats, ports=ports)


def shop_stats(cart_fails: int = 30) -> NodeStats:
    """Return what is asked in the shop."""
    return node_stats(
        "node-1",
        {
            "shop/front:80": {"/node": counted(good=2000, bucket=4), "/unknown": counted(good=10)},
            "shop/cart:80": {"shop/deployment/front": counted(good=970, bad=cart_fails, bucket=5)},
            "shop/stock:80": {
                "shop/deployment/front": counted(good=500, bucket=2),
                "shop/deployment/cart": counted(good=400, bucket=2),
            },
            "shop/pay:80": {"shop/deployment/cart": counted(good=50, bad=50, bucket=11)},
            "bank/ledger:80": {"shop/deployment/pay": counted(good=95, bad=1, bucket=7)},
            "shop/gone:80": {f"shop/{MARKUP}": counted(good=1)},
        },
    )


PODS = {"10.1.0.77": PodObject(PodKey("shop", "front-1"), "deployment/front")}
FAILED: dict[str, object] = {
    "time": "2026-01-01T09:30:00.25Z",
    "node": "node-1",
    "kind": "request",
    "by": "endpoint",
    "service": "shop/cart",
    "port": 80,
    "method": "POST",
    "path": "/orders",
    "status": 503,
    "reason": "connect_failed",
    "detail": "10.1.0.2:8080 refused",
    "endpoint": "10.1.0.2:8080",
    "took_ms": 900.0,
    "tries": 2,
    "decided": "2 tries: 10.1.0.1:8080 502, 10.1.0.2:8080 connect_failed",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "source": "10.1.0.9",
    "source_pod": "shop/front-1",
    "source_workload": "shop/deployment/front",
    "worker": 0,
    "stages": [
        {"kind": "queue", "start_ms": 0, "end_ms": 120},
        {"kind": "connect", "start_ms": 120, "end_ms": 200, "endpoint": "10.1.0.1:8080", "try": 1},
        {
            "kind": "try", "start_ms": 200, "end_ms": 500, "endpoint": "10.1.0.1:8080", "try": 1,
            "outcome": "502", "answered_ms": 480,
        },
        {"kind": "backoff", "start_ms": 500, "end_ms": 700},
        {"kind": "middleware", "start_ms": 700, "end_ms": 710},
        {
            "kind": "connect", "start_ms": 710, "end_ms": 900, "endpoint": "10.1.0.2:8080", "try": 2,
            "outcome": "connect_failed",
        },
    ],
}  # fmt: skip
"""As an agent tells it."""
REFUSED: dict[str, object] = {
    "time": "2026-01-01T09:30:01Z",
    "node": "node-1",
    "kind": "request",
    "by": "mesh",
    "layer": "rate-limit",
    "service": "shop/pay",
    "port": 80,
    "method": "GET",
    "path": f"/{MARKUP}",
    "status": 429,
    "reason": "rate_limited",
    "detail": "more than 5/s",
    "took_ms": 0.1,
    "source": "10.1.0.10",
    "worker": 0,
}
STRANGER: dict[str, object] = {
    "time": "2026-01-01T09:30:02Z",
    "node": "node-1",
    "kind": "connection",
    "by": "mesh",
    "reason": "no_route",
    "detail": "no Service has this address",
    "destination": "240.0.0.9:80",
    "source": "10.1.0.11",
    "worker": 0,
}
SOME_FAILURES = (FAILED, REFUSED, STRANGER)


ANSWERED: dict[str, object] = {
    **{
        name: value
        for name, value in FAILED.items()
        if name not in ("node", "kind", "by", "reason", "detail")
    },
    "method": "GET",
    "path": "/items",
    "status": 200,
    "took_ms": 12.5,
}
"""A request as a worker tells it to who watches."""


class Shown:
    """A server whose Services and stats a test changes."""

    def __init__(self, yaml: str, stats: NodeStats) -> None:
        self.in_force = InForce(EMPTY_PLAN)
        self.now = stats
        self.plans = 0
        """How often a plan was written."""
        self.memory = FailureMemory("node-1", 1767225600.0)
        self.watchers = Watchers(lambda _: None)
        self.put(yaml)
        view = AdminView(
            Readiness(),
            lambda _: iter(()),
            PlanPage(lambda: self.in_force, self._document).page,
            self._resolve,
            self._stats,
            backing=self._backing,
            tap=TapDoor(self.watchers, lambda service: service in self._meshed),
            failures=self.memory.show,
            explain=ExplainPage(lambda: self.in_force, lambda: PODS, node_settings()).body,
        )
        self.server = AdminServer(("127.0.0.1", 0), view)

    def put(self, yaml: str) -> None:
        """Put other Services in force; two endpoints of the shop's are out of use."""
        plan: NodePlan = plan_of(read_once(texts={"-": yaml.encode()}), node_settings())
        keys = {f"{key.namespace}/{key.name}": BackendKey(key, 80) for key in plan.services}
        cart, pay = keys.get("shop/cart"), keys.get("shop/pay")
        self.in_force = InForce(
            plan,
            {cart: {("10.1.0.1", 8080): f"connection refused {MARKUP}"}} if cart else {},
            {pay: {("10.1.0.2", 8080): "5 failures in a row"}} if pay else {},
        )

    def fail(self, *failures: dict[str, object], left_out: int = 0) -> None:
        """Have failures come from a worker."""
        lines = [FailureLine(str(one.get("service", "")), msgspec.json.encode(one)) for one in failures]
        self.memory.heard(lines, [("shop/cart", left_out)] if left_out else [])

    def tell(self, *requests: dict[str, object], dropped: int = 0) -> None:
        """Have requests come from a worker, for all who watch."""
        numbers = tuple(watch.number for watch in self.watchers.watches)
        lines = [TappedLine(numbers, msgspec.json.encode(one)) for one in requests]
        self.watchers.heard(lines, [(number, dropped) for number in numbers] if dropped else [])

    @property
    def _meshed(self) -> set[str]:
        return {f"{key.namespace}/{key.name}" for key in self.in_force.plan.services}

    @property
    def url(self) -> str:
        host, port = self.server.address
        return f"http://{host}:{port}"

    def _document(self, shown: InForce) -> dict[str, object]:
        self.plans += 1
        return in_force_document(shown)

    async def _stats(self, seconds: float) -> NodeStats:
        return self.now

    async def _backing(self) -> Backing:
        return backing_of(self.in_force.plan)

    async def _resolve(self, name: str) -> Resolution:
        raise AssertionError(f"nobody asks for {name} here")
