"""Values for the tests of the plan: Services in a line, two middlewares, settings of both captures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from discovery.model import Endpoint, MeshSnapshot, Service, ServiceKey, ServiceObject, ServicePort
from middleware.contract import Annotation, Middleware, Problem
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.diff import PlanDelta, diff_plans, diff_services
from nodeagent.plan.model import EMPTY_PLAN, NodePlan, ServicePlan
from nodeagent.settings import LOOPBACK_RANGE, NFTABLES_RANGE, CaptureKind, Settings


def make_settings(capture: CaptureKind = "nftables", first_bindable_port: int = 1) -> Settings:
    return Settings(
        source="file:.",
        capture=capture,
        mesh_range=LOOPBACK_RANGE if capture == "loopback" else NFTABLES_RANGE,
        zone="svc.mesh",
        alias_zones=("mesh.internal",),
        dns_listen=("127.0.0.1", 10053),
        admin_listen=("127.0.0.1", 15000),
        workers=1,
        node_name="node-a",
        drain_timeout=30.0,
        log_level="info",
        log_format="json",
        first_bindable_port=first_bindable_port,
    )


SETTINGS = make_settings()
LAPTOP = make_settings("loopback", first_bindable_port=1024)
HTTP = ServicePort("http", 80)


def make_service(
    name: str = "shop",
    *,
    annotations: Mapping[str, str] | None = None,
    enabled: str = "true",
    ports: Sequence[ServicePort] = (HTTP,),
    endpoints: Mapping[str, Sequence[Endpoint]] | None = None,
    cluster_ips: Sequence[str] = ("10.96.0.10",),
    type: str = "ClusterIP",  # noqa: A002 - the field's name
    external_name: str = "",
) -> Service:
    if endpoints is None:
        endpoints = {port.name: [Endpoint("10.1.0.1", 8080)] for port in ports}
    return Service(
        object=ServiceObject(
            key=ServiceKey("default", name),
            annotations={"svc.mesh/enabled": enabled, **(annotations or {})},
            type=type,
            cluster_ips=tuple(cluster_ips),
            external_name=external_name,
            ports=tuple(ports),
            origin=f"{name}.yaml:1",
        ),
        endpoints={name: tuple(found) for name, found in endpoints.items()},
    )


class TriesOptions(msgspec.Struct, frozen=True):
    tries: int
    on: str


def _parse_tries(annotations: Mapping[str, str]) -> TriesOptions | Problem | None:
    tries, on = annotations.get("svc.mesh/tries"), annotations.get("svc.mesh/tries-on")
    if tries is None:
        return Problem("svc.mesh/tries-on", on, "needs svc.mesh/tries", "both") if on is not None else None
    if not tries.isdigit():
        return Problem("svc.mesh/tries", tries, "is not a number", "a number such as 2")
    if on is not None and on != "5xx":
        return Problem("svc.mesh/tries-on", on, "is not a condition", "5xx")
    return TriesOptions(int(tries), on or "reset")


class MirrorOptions(msgspec.Struct, frozen=True):
    to: str


def _parse_mirror(annotations: Mapping[str, str]) -> MirrorOptions | Problem | None:
    if annotations.get("svc.mesh/mirror") == "crash":
        raise ZeroDivisionError("mirror")
    return MirrorOptions(annotations["svc.mesh/mirror"]) if "svc.mesh/mirror" in annotations else None


def _no_layer(_options: Any, _context: Any) -> Any:
    raise AssertionError("the compiler builds no layers")


TRIES = Middleware(
    name="tries",
    annotations=(
        Annotation("svc.mesh/tries", "a number", "0", "Tries.", "svc.mesh/tries: '2'"),
        Annotation("svc.mesh/tries-on", "5xx", "reset", "When.", "svc.mesh/tries-on: 5xx"),
    ),
    options=TriesOptions,
    parse=_parse_tries,
    build=_no_layer,
)
MIRROR = Middleware(
    name="mirror",
    annotations=(Annotation("svc.mesh/mirror", "a name", "", "Mirrors.", "svc.mesh/mirror: x"),),
    options=MirrorOptions,
    parse=_parse_mirror,
    build=_no_layer,
)
MIDDLEWARES = (TRIES, MIRROR)


def snapshot_of(*services: Service, version: int = 1) -> MeshSnapshot:
    return MeshSnapshot(version, {service.key: service for service in services})


def compile_services(
    *services: Service, previous: NodePlan = EMPTY_PLAN, settings: Settings = SETTINGS
) -> NodePlan:
    return compile_plan(snapshot_of(*services, version=previous.version + 1), previous, settings, MIDDLEWARES)


def compile_one(
    service: Service, previous: NodePlan = EMPTY_PLAN, settings: Settings = SETTINGS
) -> ServicePlan:
    return compile_services(service, previous=previous, settings=settings).services[service.key]


def delta_of(old: NodePlan, new: NodePlan) -> PlanDelta:
    return diff_plans(diff_services(old, new))
