"""The plan compiler: what this node does about a snapshot of the cluster. Pure, and the same on every node.

The only place where discovery meets middleware. It never fails: what cannot be used is reported in the plan's
`problems`, with what is in force instead, and touches nothing else. `previous` is used for the last good
values and for speed: a Service that is the same object as the previous plan's `source` is not compiled again.
If the snapshot says what changed since the one that `previous` was made of, other Services are not even
looked at, as long as no two Services ask for the same address. Both plans must be made with equal settings.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from discovery.annotations import declared_endpoints
from discovery.bounds import bounded
from discovery.model import Changes, MeshSnapshot, Problem, Service, ServiceKey
from middleware.contract import Middleware
from middleware.registry import installed
from nodeagent.plan.addresses import AddressRange, Claim, Grant, address_range
from nodeagent.plan.effective import Resolution, resolve_annotations
from nodeagent.plan.listeners import compile_ports
from nodeagent.plan.model import Listener, NodePlan, ServicePlan
from nodeagent.plan.policy import Governor, Policies, cluster_policy
from nodeagent.plan.problems import service_problem
from nodeagent.settings import Settings

_NO_ANNOTATIONS: Mapping[str, str] = {}
Referrers = Mapping[ServiceKey, frozenset[ServiceKey]]
_Compile = Callable[[Service, ServicePlan | None], ServicePlan | None]


def compile_plan(
    snapshot: MeshSnapshot,
    previous: NodePlan,
    settings: Settings,
    middlewares: Sequence[Middleware] | None = None,
) -> NodePlan:
    """Return the plan for a snapshot.

    `middlewares`, outermost first, are all that are installed unless given (the registry's order is theirs).
    Whatever equals its part of `previous` (a Service's plan, a listener) is the same object in both plans.
    """
    if middlewares is None:
        middlewares = installed().middlewares
    addresses = address_range(settings.mesh_range)
    policies = Policies(cluster_policy(settings.defaults, settings.setting_limits), middlewares)

    def compile_service(service: Service, old: ServicePlan | None) -> ServicePlan | None:
        try:
            governor = policies.of(service.namespace)
            return _compile_service(
                service, old, settings, addresses, middlewares, snapshot.services, governor
            )
        except Exception as error:
            return _uncompiled(service, old, error)

    services = changes = None
    if snapshot.changes is not None and snapshot.changes.since == previous.version:
        keys = snapshot.changes.keys | _referring(previous.referrers, snapshot.changes.keys)
        services = _compile_changed(snapshot, previous.services, keys, compile_service)
        changes = Changes(snapshot.changes.since, keys) if services is not None else None
    if services is None:
        services = _compile_all(snapshot, previous.services, addresses, compile_service)
        referrers = _all_referrers(services)
    else:
        referrers = _changed_referrers(previous, services, keys)
    problems = snapshot.problems + policies.problems(snapshot.namespaces.values())
    return NodePlan(snapshot.version, services, problems, changes, referrers)


def _referring(referrers: Referrers, changed: frozenset[ServiceKey]) -> frozenset[ServiceKey]:
    """Return the Services that may send to one that changed."""
    if not referrers:
        return frozenset()
    return frozenset().union(*(referrers.get(key, ()) for key in changed))


def _all_referrers(services: Mapping[ServiceKey, ServicePlan]) -> Referrers:
    referrers: dict[ServiceKey, frozenset[ServiceKey]] = {}
    for key, plan in services.items():
        for other in plan.refers:
            referrers[other] = referrers.get(other, frozenset()) | {key}
    return referrers


def _changed_referrers(
    previous: NodePlan, services: Mapping[ServiceKey, ServicePlan], keys: Iterable[ServiceKey]
) -> Referrers:
    """Return who refers to whom after these Services have changed; the same object if that is as before."""
    referrers = dict(previous.referrers)
    for key in keys:
        before, after = previous.services.get(key), services.get(key)
        was = before.refers if before is not None else ()
        now = after.refers if after is not None else ()
        for other in {*was, *now} if was != now else ():
            left = referrers.pop(other, frozenset()) - {key}
            left = left | {key} if other in now else left
            if left:
                referrers[other] = left
    return referrers if referrers != previous.referrers else previous.referrers


def _compile_changed(
    snapshot: MeshSnapshot,
    before: Mapping[ServiceKey, ServicePlan],
    changed: Iterable[ServiceKey],
    compile_service: _Compile,
) -> dict[ServiceKey, ServicePlan] | None:
    """Compile these Services and keep all others; None if Services share a claim, now or before."""
    services = dict(before)
    moved = False
    for key in changed:
        service, old = snapshot.services.get(key), before.get(key)
        plan = compile_service(service, old) if service is not None else None
        if plan is not None:
            services[key] = plan
        elif old is not None:
            del services[key]
        moved = moved or plan is None or old is None or not plan.claim == old.claim == old.address
    if moved and not _all_at_home(services.values()):
        return None
    return services


def _all_at_home(services: Iterable[ServicePlan]) -> bool:
    """Whether each Service has the address that it asks for, and nobody else asks for it."""
    claims = [plan.claim if plan.claim == plan.address else None for plan in services if plan.claim]
    return None not in claims and len(set(claims)) == len(claims)


def _compile_all(
    snapshot: MeshSnapshot,
    before: Mapping[ServiceKey, ServicePlan],
    addresses: AddressRange,
    compile_service: _Compile,
) -> dict[ServiceKey, ServicePlan]:
    services: dict[ServiceKey, ServicePlan] = {}
    known = 0
    claims_changed = False
    for key, service in snapshot.services.items():
        old = before.get(key)
        if old is not None:
            known += 1
            if old.source is service and old.address == old.claim and not old.refers:
                services[key] = old
                continue
        plan = compile_service(service, old)
        if plan is None:
            claims_changed = claims_changed or old is not None
            continue
        services[key] = plan
        claims_changed = claims_changed or old is None or old.address != plan.claim
    if claims_changed or known != len(before):
        _settle(services, before, addresses)
    return services


def _settle(
    services: dict[ServiceKey, ServicePlan], before: Mapping[ServiceKey, ServicePlan], addresses: AddressRange
) -> None:
    """Give another address, or none, to those Services whose claimed address another Service has."""
    grants = addresses.settle({key: plan.claim for key, plan in services.items() if plan.claim})
    for key, grant in grants.items():
        services[key] = _keep_same(_relocate(services[key], grant), before.get(key))


def _compile_service(
    service: Service,
    old: ServicePlan | None,
    settings: Settings,
    addresses: AddressRange,
    middlewares: Sequence[Middleware],
    others: Mapping[ServiceKey, Service],
    governor: Governor | None,
) -> ServicePlan | None:
    """Compile one Service as if its claim were granted; None if it does not opt in and nothing is wrong."""
    last_good = old.effective if old is not None else _NO_ANNOTATIONS
    resolution = resolve_annotations(service.object, last_good, middlewares, governor)
    if not resolution.enabled and not resolution.problems and not service.object.overlong:
        return None
    problems = [*service.problems]
    plan = ServicePlan(service, "", (), (), resolution.annotations, origins=resolution.origins)
    if resolution.enabled:
        obstacle = _why_not_meshed(service, resolution)
        if obstacle is None:
            asked = addresses.claim(service.key, service.object.cluster_ips)
            by_name = {middleware.name: middleware for middleware in middlewares}
            plan = compile_ports(service, asked.address, resolution, settings, addresses, by_name, others)
            problems += _address_notes(service, asked) + list(plan.problems)
            problems += _unused_layers(service, resolution, plan.listeners, by_name)
        else:
            problems.append(obstacle)
    # Those of annotations come last: there may be hundreds, and then not all are reported.
    problems += resolution.problems
    return _keep_same(msgspec.structs.replace(plan, problems=bounded(problems)), old)


def _uncompiled(service: Service, old: ServicePlan | None, error: Exception) -> ServicePlan:
    """Return a plan in place of one that could not be made: a bug, which must not end every agent."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    problem = service_problem(
        service.object,
        "metadata.name",
        str(service.key),
        f"the mesh failed to compile it: {error!r} in {frame.name}, line {frame.lineno}",
        "report this to the makers of the mesh, with the Service",
        "its last plan stays in force" if old is not None else "the Service is not meshed",
    )
    kept = old if old is not None else ServicePlan(service, "", (), (), {})
    return msgspec.structs.replace(kept, source=service, problems=bounded([problem]))


def _keep_same(plan: ServicePlan, old: ServicePlan | None) -> ServicePlan:
    """Return `plan` with every part that equals its part of `old` replaced by the old object."""
    if old is None:
        return plan
    if old.source is plan.source and old == plan:
        return old
    before: list[Any] = [*old.listeners, *old.backends]
    parts = {part.key: part for part in before}

    def kept(part: Any) -> Any:
        found = parts.get(part.key)
        return found if found is not None and found == part else part

    return msgspec.structs.replace(
        plan, listeners=tuple(map(kept, plan.listeners)), backends=tuple(map(kept, plan.backends))
    )


def _relocate(plan: ServicePlan, grant: Grant) -> ServicePlan:
    """Return the plan with the address of `grant` in place of its claim, and a problem that says so."""
    if grant.address:
        listeners = tuple(msgspec.structs.replace(one, address=grant.address) for one in plan.listeners)
        backends = plan.backends
        problem = service_problem(
            plan.source.object,
            "metadata.name",
            str(plan.source.key),
            f"hashes to {plan.claim}, the mesh address of {grant.holder}",
            "nothing has to be changed; with another name the Service would have an address of its own",
            f"its mesh address is {grant.address}, and would change with {grant.holder}",
            severity="info",
        )
    else:
        listeners, backends = (), ()
        problem = service_problem(
            plan.source.object,
            "spec.clusterIP",
            ", ".join(plan.source.object.cluster_ips),
            f"maps to {plan.claim}, the mesh address of {grant.holder}",
            "a ClusterIP of its own",
            f"the Service is not meshed; {grant.holder} keeps the address",
        )
    return msgspec.structs.replace(
        plan,
        address=grant.address,
        listeners=listeners,
        backends=backends,
        problems=(problem, *plan.problems),
    )


def _why_not_meshed(service: Service, resolution: Resolution) -> Problem | None:
    """Return why no mesh address can stand for this Service, None if one can."""
    spec = service.object
    effect = "the Service is not meshed"
    given = [*service.endpoints.values()]
    given += [declared_endpoints(port, resolution.annotations) for port in spec.ports]
    if spec.type == "ExternalName" and not any(given):
        reason = "an ExternalName Service stands for a name outside the mesh and has no endpoints of its own"
        expected = "an EndpointSlice for it, with addresses and ports"
        return service_problem(spec, "spec.externalName", spec.external_name, reason, expected, effect)
    if not spec.ports:
        return service_problem(spec, "spec.ports", "", "there are none", "at least one TCP port", effect)
    if all(port.protocol != "TCP" for port in spec.ports):
        value = ", ".join(f"{port.port}/{port.protocol}" for port in spec.ports)
        return service_problem(
            spec, "spec.ports", value, "the mesh does not carry UDP and SCTP yet", "a TCP port", effect
        )
    return None


def _address_notes(service: Service, claim: Claim) -> list[Problem]:
    if not claim.obstacle:
        return []
    return [
        service_problem(
            service.object,
            "spec.clusterIP",
            ", ".join(service.object.cluster_ips),
            claim.obstacle,
            "a Service range that the mesh range can mirror (nodeagent run --mesh-range)",
            f"its mesh address is {claim.address}, from its name",
            severity="info",
        )
    ]


def _unused_layers(
    service: Service,
    resolution: Resolution,
    listeners: Sequence[Listener],
    middlewares: Mapping[str, Middleware],
) -> list[Problem]:
    """Report middleware for requests on a Service all of whose ports are passed through as tcp."""
    if any(listener.protocol == "http" for listener in listeners):
        return []
    problems = []
    for name, annotation in resolution.asked_by:
        if middlewares[name].scope == "connection" or annotation in resolution.origins:
            continue  # a default is for those to which it applies
        problems.append(
            service_problem(
                service.object,
                annotation,
                resolution.annotations[annotation],
                f"{name} works on http ports, and this Service has none",
                "svc.mesh/protocol: http, if a port speaks HTTP/1.1",
                f"{name} is off",
            )
        )
    return problems
