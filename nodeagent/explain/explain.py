"""The explanation of a request: name, listener, rule, layers and endpoints, in the order of the data path.

Pure: a plan, what the agent knows of endpoints, and the request as values. Every decision is made by the
function that decides in the data path; here is only the walk from one to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from discovery.annotations import protocol_reason
from middleware.contract import Decision, ExchangeError, NoEndpoint, Reply
from middleware.grpc import of_reply
from middleware.registry import by_name
from nodeagent.explain.asked import AskedRequest, Url, read_head, read_url
from nodeagent.explain.choosing import Node, view_backend
from nodeagent.explain.deciding import Unknown, decide
from nodeagent.explain.model import (
    Answer,
    BackendView,
    Cause,
    Explanation,
    Question,
    Sent,
    Step,
    Unexplained,
)
from nodeagent.explain.naming import Place, find_listener
from nodeagent.explain.rules import look_at_rules
from nodeagent.plan.model import BackendKey, LayerSpec, Rule, ServicePlan
from nodeagent.proxy.errors import BadRequest, CallerDeadline, LayerBroke, NoRule
from nodeagent.proxy.grpc_reply import grpc_head
from nodeagent.proxy.grpc_status import in_reply
from nodeagent.proxy.http2.grpc_timeout import render_timeout
from nodeagent.proxy.message import Fields, HeadError, RequestHead, TimedRequestHead
from nodeagent.proxy.streams import Source
from nodeagent.settings import Settings

CHOOSING = (
    "svc.mesh/load-balancing",
    "svc.mesh/session-affinity",
    "svc.mesh/locality",
    "svc.mesh/failover",
    "svc.mesh/outlier-detection",
    "svc.mesh/health-check",
    "svc.mesh/slow-start",
    "svc.mesh/endpoints",
)
"""The annotations that decide among endpoints."""


def explain(
    node: Node, settings: Settings, question: Question, workload: Callable[[str], str] = lambda _: ""
) -> Explanation:
    """Return what the mesh would do with a request on this node.

    Raises:
        Unexplained: it does not come to the mesh; the message says why.
    """
    url = read_url(question.url)
    place = find_listener(node.in_force.plan, settings, url.host, url.port)
    service, listener = place
    port = next(one for one in service.source.object.ports if one.port == listener.port)
    basis = Explanation(
        url=question.url,
        method=question.method,
        source=question.source,
        service=str(listener.service),
        address=f"{listener.address}:{listener.mesh_port}",
        port=listener.port,
        port_name=listener.port_name,
        protocol=listener.protocol,
        because=protocol_reason(port, service.effective),
        upstream="",
        problems=tuple(f"{one.field}: {one.reason}; {one.effect}" for one in service.problems),
    )
    if listener.protocol == "tcp":
        return _explain_connection(node, basis, place, question)
    return _explain_request(node, basis, place, question, url, workload(question.source))


def _explain_connection(node: Node, basis: Explanation, place: Place, question: Question) -> Explanation:
    service, listener = place
    # A gate sees the connection alone; this request stands for it and is not shown.
    head = RequestHead(b"GET", b"/", b"1", b"", 0)
    asked = AskedRequest(head, basis.service, basis.port, question.source, "")
    walk = _Walk(service, listener.port_name, listener.port)
    walk.through(listener.layers, asked)
    backends = _backends(node, listener.rules[0], {}, asked.candidates, None, Source(question.source))
    return msgspec.structs.replace(
        basis,
        steps=tuple(walk.steps),
        backends=_with_causes(node, backends),
        unknown=tuple(walk.unknown),
    )


def _explain_request(
    node: Node, basis: Explanation, place: Place, question: Question, url: Url, workload: str
) -> Explanation:
    service, listener = place
    if url.scheme != "http":
        raise Unexplained(
            f"port {listener.port} of {basis.service} is http ({basis.because}), and a {url.scheme}:// "
            "connection to it speaks something else: the mesh answers 400"
        )
    try:
        head = read_head(question, url)
    except HeadError as error:
        return msgspec.structs.replace(basis, answer=_refusal(BadRequest(error)))
    own = node.spec(BackendKey(listener.service, listener.port))
    rule, views = look_at_rules(listener.rules, head)
    basis = msgspec.structs.replace(basis, rules=views, upstream=own.protocol if own is not None else "http1")
    if rule is None:
        said = NoRule(f"{basis.service} has no rule for {question.method} {url.target}")
        return msgspec.structs.replace(basis, answer=_to_caller(_refusal(said), head))
    asked = AskedRequest(head, basis.service, basis.port, question.source, workload)
    walk = _Walk(service, listener.port_name, listener.port)
    if isinstance(head, TimedRequestHead):
        walk.steps.append(_deadline_of(head))
    outer = [spec for spec in rule.layers if by_name(spec.name).scope == "rule"]
    tries = [spec for spec in rule.layers if by_name(spec.name).scope == "try"]
    walk.through((*listener.layers, *outer), asked)
    backends: tuple[BackendView, ...] = ()
    if walk.answer is None:
        named = dict(listener.backends)
        unknown = next((name for name, _ in asked.candidates if name and name not in named), None)
        if unknown is not None:
            walk.answer = _refusal(LayerBroke(f"no middleware has named the backend {unknown}"))
        else:
            walk.within(node, _shares(rule, named, asked.candidates), asked)
            walk.through(tries, asked)
    if walk.answer is None:
        backends = _backends(node, rule, named, asked.candidates, asked.head, Source(question.source))
        if not any(view.possible for view in backends):
            walk.answer = _refusal(NoEndpoint("no backend has an endpoint that may be used"))
    perhaps = _perhaps(walk.steps, backends if walk.answer is None else ())
    return msgspec.structs.replace(
        basis,
        steps=tuple(walk.steps),
        sent=Sent(asked.method, asked.target, tuple(asked.headers)) if walk.answer is None else None,
        backends=_with_causes(node, backends),
        answer=_to_caller(walk.answer, head) if walk.answer is not None else None,
        perhaps=perhaps,
        perhaps_grpc=tuple(dict.fromkeys(of_reply(one).name for one in perhaps)) if head.grpc else (),
        unknown=tuple(dict.fromkeys(walk.unknown)),
    )


def _deadline_of(head: TimedRequestHead) -> Step:
    """Return what the caller's own deadline does."""
    given = render_timeout(head.timeout).decode()
    says = f"the caller waits {given} for the complete response; endpoints are told what is left of it"
    return Step("grpc-timeout", "listener", says, perhaps=(CallerDeadline.status,))


def _to_caller(answer: Answer, head: RequestHead) -> Answer:
    """Return the answer as a caller of gRPC gets it; others get it as it is."""
    if not head.grpc:
        return answer
    reply = Reply(answer.status, answer.fields, reason=answer.reason)
    fields = tuple(one for one in Fields(grpc_head(reply)) if one[0].lower() != "grpc-message")
    return msgspec.structs.replace(answer, fields=fields, grpc_status=in_reply(reply).name)


class _Walk:
    """The way through the layers of one request: its steps, and the answer at which it ends."""

    def __init__(self, service: ServicePlan, port_name: str, port: int) -> None:
        self._service = service
        self._port_name = port_name
        self._port = port
        self.steps: list[Step] = []
        self.unknown: list[str] = []
        self.answer: Answer | None = None

    def through(self, layers: Iterable[LayerSpec], asked: AskedRequest, backend: str = "") -> None:
        """Go through layers, from the outside in, up to one that answers."""
        for spec in layers:
            if self.answer is not None:
                return
            middleware = by_name(spec.name)
            decision = self._decide(spec, asked)
            if len(decision.shares) > 1:
                asked.candidates = decision.shares
            if decision.otherwise:
                asked.candidates = (*asked.candidates, (decision.otherwise, 0))
            if decision.status:
                self.answer = Answer(decision.status, spec.name, decision.reason, decision.fields)
            causes = tuple(self._causes(one.name for one in middleware.annotations))
            self.steps.append(
                Step(
                    spec.name,
                    middleware.scope,
                    decision.says,
                    decision.status,
                    decision.perhaps,
                    causes,
                    backend,
                )
            )

    def within(self, node: Node, shares: Sequence[tuple[BackendKey, float]], asked: AskedRequest) -> None:
        """Go through the layers of the backends; what one of several does there changes no other."""
        usual = [key for key, share in shares if share]
        alone = usual[0] if len(usual) == 1 else None
        for key, _ in shares:
            spec = node.spec(key)
            if key == alone or spec is None or not spec.layers:
                continue
            apart = _Walk(node.in_force.plan.services[key.service], "", key.port)
            apart.through(spec.layers, asked.copy(), str(key.service))
            self.steps += apart.steps
            self.unknown += apart.unknown
        spec = node.spec(alone) if alone is not None else None
        if spec is not None:
            self.through(spec.layers, asked, str(spec.key.service))

    def _decide(self, spec: LayerSpec, asked: AskedRequest) -> Decision:
        try:
            return decide(spec, asked)
        except Unknown as unknown:
            self.unknown.append(spec.name)
            return Decision(str(unknown))

    def _causes(self, names: Iterable[str]) -> Iterator[Cause]:
        yield from causes_of(self._service, names, self._port_name, self._port)


def causes_of(service: ServicePlan, names: Iterable[str], port_name: str, port: int) -> Iterator[Cause]:
    """Yield those annotations that are in force for a port, each with who says it."""
    for name in names:
        for full in (f"{name}.{port_name}" if port_name else "", f"{name}.{port}", name):
            value = service.effective.get(full)
            if value is not None:
                where = service.origins.get(full, f"Service {service.source.key}")
                yield Cause(full, value, where)
                break


def _shares(
    rule: Rule, named: Mapping[str, BackendKey], candidates: Sequence[tuple[str, int]]
) -> list[tuple[BackendKey, float]]:
    """Return the backends that may get the request, each with its share; none if none has a weight."""
    own = sum(one.weight for one in rule.backends)
    total = sum(weight for _, weight in candidates)
    shares: dict[BackendKey, float] = {}
    for name, weight in candidates:
        if not weight:
            shares.setdefault(named[name], 0.0)
        elif name:
            shares[named[name]] = shares.get(named[name], 0.0) + weight / total
        elif len(rule.backends) == 1:
            shares[rule.backends[0].backend] = weight / total
        else:
            for one in rule.backends:
                if one.weight:
                    part = weight / total * one.weight / own
                    shares[one.backend] = shares.get(one.backend, 0.0) + part
    return list(shares.items())


def _backends(
    node: Node,
    rule: Rule,
    named: Mapping[str, BackendKey],
    candidates: Sequence[tuple[str, int]],
    head: RequestHead | None,
    source: Source,
) -> tuple[BackendView, ...]:
    return tuple(
        view_backend(node, key, share, head, source) for key, share in _shares(rule, named, candidates)
    )


def _with_causes(node: Node, backends: Sequence[BackendView]) -> tuple[BackendView, ...]:
    services = {str(key): plan for key, plan in node.in_force.plan.services.items()} if backends else {}
    shown = []
    for view in backends:
        name, _, port = view.backend.rpartition(":")
        service = services.get(name)
        if service is not None:
            ports = {one.port: one.port_name for one in service.listeners}
            causes = tuple(causes_of(service, CHOOSING, ports.get(int(port), ""), int(port)))
            view = msgspec.structs.replace(view, causes=causes)
        shown.append(view)
    return tuple(shown)


def _perhaps(steps: Iterable[Step], backends: Iterable[BackendView]) -> tuple[int, ...]:
    found = {status for step in steps for status in step.perhaps}
    if not all(view.possible for view in backends):
        found.add(NoEndpoint.status)
    return tuple(sorted(found))


def _refusal(error: ExchangeError) -> Answer:
    return Answer(error.status, "mesh", error.reason)
