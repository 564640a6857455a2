"""Which endpoints of a backend may get a request, and which one does where that is certain. Pure.

Health checks and ejections are those that the agent knows. What a worker alone knows, such as an endpoint
that refused a connection a second ago, is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from discovery.model import Endpoint
from nodeagent.explain.model import BackendView, EndpointView
from nodeagent.plan.balancing import written
from nodeagent.plan.model import BackendKey, BackendSpec
from nodeagent.plan.render import InForce
from nodeagent.proxy.balance import make_balancer
from nodeagent.proxy.circulation import Circulation, circulation_of
from nodeagent.proxy.message import RequestHead
from nodeagent.proxy.steering import SessionCookie, key_reader
from nodeagent.proxy.streams import Source

BY_LOAD = ("least-request", "ewma")
"""Balancers whose choice depends on what is under way."""


class Target:
    """An endpoint, as balancers see it."""

    __slots__ = ("endpoint",)

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def __str__(self) -> str:
        return str(self.endpoint)


class Node(msgspec.Struct, frozen=True):
    """What is known on one node: the plan, health and ejections; and the node's zone, empty if not known."""

    in_force: InForce
    zone: str = ""

    def spec(self, key: BackendKey) -> BackendSpec | None:
        """Return a backend of the plan."""
        service = self.in_force.plan.services.get(key.service)
        return next((one for one in service.backends if one.key == key), None) if service else None


class _Running(msgspec.Struct, frozen=True):
    """A backend with its endpoints sorted by what is known of them."""

    spec: BackendSpec
    targets: tuple[Target, ...]
    found: Circulation[Target]
    reasons: Mapping[Target, str]


def view_backend(
    node: Node, key: BackendKey, share: float, head: RequestHead | None, source: Source
) -> BackendView:
    """Return what is known of the choice of an endpoint; a tcp connection has no head."""
    spec = node.spec(key)
    if spec is None:
        return BackendView(f"{key.service}:{key.port}", share, "", "it is not in the plan", ())
    running = _run(node, spec)
    used = running.found.used
    if not used and spec.failover is not None:
        other = node.spec(spec.failover)
        standby = _run(node, other) if other is not None else None
        if standby is not None and standby.found.used:
            view = _view(standby, standby.found.used, share, head, source)
            return msgspec.structs.replace(
                view, failed_over=True, how=f"{spec.key.service} has no healthy endpoint; {view.how}"
            )
        # Rather one of its own than none; neither a key nor a cookie counts then.
        return _even(running, running.found.spare, share, "rather one that is not well than none")
    return _view(running, used, share, head, source)


def _run(node: Node, spec: BackendSpec) -> _Running:
    by_address = {(one.address, one.port): Target(one) for one in reversed(spec.endpoints)}
    targets = tuple(by_address[place] for place in dict.fromkeys((e.address, e.port) for e in spec.endpoints))
    unhealthy = node.in_force.unhealthy.get(spec.key, {})
    ejected = node.in_force.ejected.get(spec.key, {})
    out = {target for place, target in by_address.items() if place in ejected}
    found = circulation_of(targets, unhealthy, out, spec.locality, node.zone, spec.failover is not None)
    reasons = {}
    for place, target in by_address.items():
        if place in unhealthy:
            reasons[target] = f"unhealthy: {unhealthy[place]}"
        elif place in ejected:
            reasons[target] = f"ejected: {ejected[place]}"
        elif target not in found.used:
            reasons[target] = "of another zone"
    return _Running(spec, targets, found, reasons)


def _view(
    running: _Running, used: tuple[Target, ...], share: float, head: RequestHead | None, source: Source
) -> BackendView:
    spec = running.spec
    if not used:
        return _even(running, (), share, "there is no endpoint that may be used")
    if spec.affinity is not None and head is not None:
        cookie: SessionCookie[Target] = SessionCookie(spec.affinity)
        cookie.keep(running.targets)
        wish = cookie.target(head)
        if wish is not None and wish in used:
            return _certain(running, wish, share, f"the cookie {spec.affinity.name} says so")
    balance = spec.balance
    if balance.key is not None:
        key = key_reader(balance.key)(head, source)
        what = " ".join(filter(None, (balance.key.place, balance.key.name)))
        if not key:
            return _even(running, used, share, f"in turn: the request has no {what} to hash")
        balancer = make_balancer(balance)
        balancer.keep(running.targets)
        balancer.circulate(running.found.well)
        target: Target | None = balancer.pick(used, (), key)
        how = f"by the hash of the {what} {key.decode('utf-8', 'replace')}"
        if balance.factor:
            how = f"{how}: {target}, unless the bound of its load sends it elsewhere"
            return _even(running, used, share, how)
        if target is not None:
            return _certain(running, target, share, how)
    if balance.policy in BY_LOAD:
        return _view_of(running, used, {}, share, "by what is under way at the endpoints")
    return _even(running, used, share, "at random" if balance.policy == "random" else "in turn")


def _certain(running: _Running, target: Target, share: float, how: str) -> BackendView:
    view = _view_of(running, (target,), {target: 1.0}, share, how)
    return msgspec.structs.replace(view, chosen=str(target))


def _even(running: _Running, used: Sequence[Target], share: float, how: str) -> BackendView:
    certain = len(used) == 1
    shares = {} if running.spec.balance.slow_start else {one: 1 / len(used) for one in used}
    view = _view_of(running, used, shares, share, how)
    return msgspec.structs.replace(view, chosen=str(used[0])) if certain else view


def _view_of(
    running: _Running, used: Sequence[Target], shares: Mapping[Target, float], share: float, how: str
) -> BackendView:
    spec = running.spec
    endpoints = tuple(
        EndpointView(
            str(one),
            running.reasons.get(one, "in use"),
            shares.get(one),
            one.endpoint.pod,
            one.endpoint.zone,
            one.endpoint.node,
        )
        for one in running.targets
    )
    return BackendView(
        f"{spec.key.service}:{spec.key.port}",
        share,
        written(spec.balance),
        how,
        endpoints,
        possible=tuple(map(str, used)),
    )
