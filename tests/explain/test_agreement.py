"""What an explanation says is what then happens: random settings, states and requests, 15,000 of them.

A failure prints the seed and the number of the configuration, the request, and both sides. `EXPLAIN_SEED=N`
tries others.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

import msgspec

from discovery.model import Endpoint, ServiceKey
from middleware.registry import MIDDLEWARES
from nodeagent.explain.choosing import Node
from nodeagent.explain.explain import explain
from nodeagent.explain.model import Explanation, Question
from nodeagent.explain.text import text_lines
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.model import EMPTY_PLAN, BackendKey, Match, NodePlan, Rule
from nodeagent.plan.render import InForce
from nodeagent.proxy.steering import SessionCookie
from tests.explain.stage import Fields, Outcome, Stage
from tests.plan.builders import SETTINGS, make_service, snapshot_of

T = TypeVar("T")
SEED = int(os.environ.get("EXPLAIN_SEED", "1"))
CONFIGURATIONS = 600
REQUESTS = 25
ANNOTATIONS = {
    "server-timing": ("on", "on-request"),
    "cors": ("https://shop.example", "*", "https://*.shop.example methods=GET,PUT max-age=10m"),
    "rate-limit": ("1000/s", "3/h burst=3 per=source", "2/h burst=2 per=header:x-user"),
    "timeout": ("5s",),
    "max-requests": ("5", "1 queue=0", "1 queue=2"),
    "split": ("web=1 v2=1", "web=0 v2=5", "web=3 v2=0 gone=1"),
    "split-by": ("header x-version", "cookie version"),
    "split-sticky": ("true",),
    "request-headers": ("set x-env=prod; remove x-user", "set host=inner; add x-more=1"),
    "response-headers": ("set x-a=b",),
    "forwarded-headers": ("x-forwarded", "x-forwarded keep"),
    "redirect": ("308 scheme=https", "302 prefix=/a path=/new", "301 host=elsewhere.example"),
    "rewrite": ("strip /a", "prefix /a/b /z; host inner:81", r"regex /item/([0-9]+) /items/\1"),
    "mirror": ("v2 50%",),
    "fault": ("abort 503 50%", "delay 10ms; by-header", "abort 418", "abort 500 10%; by-header"),
    "cache": ("on", "on size=1Mi"),
    "circuit-breaker": ("NetworkErrorRatio() > 0.5",),
    "circuit-breaker-force": ("open", "closed"),
    "outlier-detection": ("5xx consecutive=1 share=100%", "all consecutive=3"),
    "circuit-breaker-fallback": ("v2", "429"),
    "retry-attempts": ("2",),
    "per-try-timeout": ("1s",),
    "load-balancing": (
        "random",
        "least-request",
        "ewma",
        "consistent-hash header=x-user",
        "consistent-hash cookie=user",
        "consistent-hash query=q",
        "consistent-hash source=address",
        "consistent-hash header=x-user balance-factor=125",
    ),
    "session-affinity": ("cookie name=sticky",),
    "locality": ("prefer", "strict", "prefer healthy=100%"),
    "failover": ("v2",),
    "slow-start": ("30s", "30s recovered=on"),
    "retry-on": ("5xx,unavailable", "429"),
}
NEEDS = {
    "circuit-breaker-fallback": "circuit-breaker",
    "retry-on": "retry-attempts",
    "split-by": "split",
    "split-sticky": "split",
}
"""What has no effect without another annotation."""
MATCHES = (
    Match(),
    Match(path="/a"),
    Match(path="/a/b", exact=True),
    Match(method="POST"),
    Match(query=(("q", "1"),)),
    Match(headers=(("x-user", "ada"),), path="/item"),
)
FIELDS = (
    ("Origin", "https://shop.example"),
    ("Origin", "https://a.shop.example"),
    ("Access-Control-Request-Method", "PUT"),
    ("X-User", "ada"),
    ("X-User", "bob"),
    ("X-Version", "v2"),
    ("X-Version", "web"),
    ("Cookie", "version=v2; user=7"),
    ("x-svcmesh-timing", "1"),
    ("x-svcmesh-fault", "abort 507"),
    ("x-svcmesh-fault", "nonsense"),
    ("x-svcmesh-fault", "delay 20ms"),
    ("Cache-Control", "only-if-cached"),
    ("Authorization", "secret"),
    ("X-Forwarded-Proto", "https"),
    ("Connection", "x-user"),
    ("Host", "other.example"),
    ("STICKY", "0"),  # the cookie of one of the endpoints
    ("STICKY", "1"),
)
NUMBERS = range(1, 6)
"""Of endpoints."""
TARGETS = ("/", "/a", "/a/b", "/ab", "/a/b/c?q=1", "/item/7?q=2&q=1", "/item/x", "/%41?q=%31")

CALL = (
    ("TE", "trailers"),
    ("grpc-timeout", "30S"),
    ("grpc-timeout", "5m"),  # milliseconds: less than some delays
    ("grpc-timeout", "soon"),
    *(field for field in FIELDS if field[0] != "Connection"),
)
CALL_TYPES = ("application/grpc", "application/grpc+proto", "Application/gRPC; v=1", "application/grpc-web")
PREFLIGHT = (("Origin", "https://shop.example"), ("Access-Control-Request-Method", "PUT"))
METHODS = ("GET", "GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE")
CALL_METHODS = ("POST", "POST", "POST", "GET", "OPTIONS")


class State(msgspec.Struct, frozen=True):
    """What has happened on the node before and between the requests. Endpoints are numbers."""

    unhealthy: list[int]
    failing: list[int]
    """These answer with errors."""
    standby_unhealthy: list[int]
    """Of the other Service."""
    growing: bool
    """Whether all endpoints but the first are new."""
    breakers_open: int
    """Before this request circuit breakers open."""
    held: int
    """Each request of this number in a row stays under way; 0: none does."""


class Configuration(msgspec.Struct, frozen=True):
    """A plan and the state of the node."""

    annotations: dict[str, str]
    own: list[Endpoint]
    others: list[Endpoint]
    zone: str
    matches: list[Match]
    state: State


def some_of(random: Random, values: Sequence[T], most: int) -> list[T]:
    return random.sample(values, random.randint(0, min(most, len(values))))


def some_endpoints(random: Random, least: int, most: int) -> list[Endpoint]:
    """Some endpoints; the same address may be there twice."""
    return [
        Endpoint(f"10.1.0.{random.randint(1, 5)}", 8080, zone=random.choice("ab"))
        for _ in range(random.randint(least, most))
    ]


def some_configuration(random: Random) -> Configuration:
    names = some_of(random, sorted(ANNOTATIONS), 9)
    names += [NEEDS[name] for name in names if name in NEEDS]
    return Configuration(
        {f"svc.mesh/{name}": random.choice(ANNOTATIONS[name]) for name in names},
        some_endpoints(random, 1, 6),
        some_endpoints(random, 0, 2),
        random.choice(("", "a", "b")),
        some_of(random, MATCHES, 3) if random.random() < 0.5 else [],
        State(
            unhealthy=some_of(random, NUMBERS, 4) if random.random() < 0.5 else [],
            failing=some_of(random, NUMBERS, 4) if random.random() < 0.5 else [],
            standby_unhealthy=some_of(random, NUMBERS, 2),
            growing=random.random() < 0.5,
            breakers_open=random.randint(0, REQUESTS),
            held=random.choice((0, 0, 2, 3)),
        ),
    )


def some_fields(random: Random, fields: Fields, most: int) -> Fields:
    """Some fields, each name once."""
    return list({name: (name, value) for name, value in some_of(random, fields, most)}.values())


def some_request(random: Random) -> tuple[str, str, Fields, str]:
    """Return the method, the target, the fields and the client's address."""
    target, source = random.choice(TARGETS), random.choice(("10.9.0.1", "10.9.0.2"))
    kind = random.randrange(3)
    if kind == 0 and random.random() < 0.3:
        return "OPTIONS", target, PREFLIGHT, source
    if kind == 1:
        fields = (*some_fields(random, CALL, 4), ("Content-Type", random.choice(CALL_TYPES)))
        return random.choice(CALL_METHODS), random.choice((target, "/shop.Cart/Add")), fields, source
    return random.choice(METHODS), target, some_fields(random, FIELDS, 4), source


def plan_of(one: Configuration) -> NodePlan:
    v2 = [msgspec.structs.replace(other, port=9090) for other in one.others]
    own = {"http": one.own}
    snapshot = snapshot_of(
        make_service("web", annotations=one.annotations, endpoints=own, cluster_ips=("10.96.0.10",)),
        make_service("v2", endpoints={"http": v2}, cluster_ips=("10.96.0.11",)),
    )
    return compile_plan(snapshot, EMPTY_PLAN, SETTINGS, MIDDLEWARES)


def with_rules(plan: NodePlan, matches: list[Match], key: BackendKey) -> NodePlan:
    """Return the plan with rules of these matches, each with the layers that its one rule has."""
    service = plan.services[key.service]
    (listener,) = service.listeners
    (rule,) = listener.rules
    rules = tuple(
        Rule(f"rule-{index}", rule.backends, match, rule.layers) for index, match in enumerate(matches)
    )
    listener = msgspec.structs.replace(listener, rules=rules)
    changed = msgspec.structs.replace(service, listeners=(listener,))
    return msgspec.structs.replace(plan, services={**plan.services, key.service: changed})


def field_of(name: str, value: str, plan: NodePlan, key: BackendKey) -> tuple[str, str]:
    """Return a field, or the cookie that keeps a client with an endpoint."""
    if name != "STICKY":
        return name, value
    (spec,) = plan.services[key.service].backends
    if spec.affinity is None or not spec.endpoints:
        return "X-None", value
    cookie: SessionCookie[Any] = SessionCookie(spec.affinity)
    return "Cookie", f"sticky={cookie._value_of(spec.endpoints[int(value) % len(spec.endpoints)])}"


def check(said: Explanation, came: Outcome, tally: Counter[str]) -> None:
    assert said.unknown == ()
    if came.status:
        if said.answer is None or (came.status, came.reason) != (said.answer.status, said.answer.reason):
            assert came.status in said.perhaps
            assert (
                said.perhaps_grpc == ()
                if came.grpc_status is None
                else came.grpc_status.name in said.perhaps_grpc
            )
            tally["perhaps"] += 1
            tally[f"perhaps {came.reason}"] += 1
            return
        assert said.answer.grpc_status == ("" if came.grpc_status is None else came.grpc_status.name)
        assert set(said.answer.fields) <= set(came.fields)
        tally["answered calls"] += came.grpc_status is not None
        tally[f"answered by {said.answer.by}"] += 1
        return
    assert said.answer is None
    assert said.sent is not None
    assert (came.method, came.target, list(came.fields)) == (
        said.sent.method,
        said.sent.target,
        list(said.sent.fields),
    )
    assert came.address in {address for view in said.backends for address in view.possible}
    tally["sent"] += 1
    if not any(came.address in view.possible for view in said.backends if view.share):
        tally["otherwise"] += 1
        return
    tally["avoids the ejected"] += any(
        one.state.startswith("ejected") and one.address not in view.possible
        for view in said.backends
        for one in view.endpoints
    )
    usual = [view for view in said.backends if view.share]
    if len(usual) == 1 and len(said.backends) == 1:
        (view,) = usual
        tally["failed over"] += view.failed_over
        if view.chosen:
            assert came.address == view.chosen
            tally["certain" if len(view.endpoints) > 1 else "the only one"] += 1
            tally[view.how.split(" ")[0]] += 1
    else:
        tally["split"] += 1


def compare(number: int, tally: Counter[str]) -> None:
    """Compare the requests of one configuration."""
    random = Random(f"{SEED}/{number}")
    one = some_configuration(random)
    plan, state = plan_of(one), one.state
    (key,) = [known for known in plan.services if known.name == "web"]
    web, v2 = BackendKey(key, 80), BackendKey(ServiceKey(key.namespace, "v2"), 80)
    if one.matches:
        plan = with_rules(plan, one.matches, web)
    unhealthy = {
        backend: {(f"10.1.0.{at}", port): "no answer" for at in out}
        for backend, port, out in ((web, 8080, state.unhealthy), (v2, 9090, state.standby_unhealthy))
        if out
    }
    node = Node(InForce(plan, unhealthy), one.zone)
    stage = Stage(node, plan.services[key].listeners[0].key, state.growing)
    stage.fail(web, {(f"10.1.0.{at}", 8080) for at in state.failing})
    node = Node(InForce(plan, unhealthy, stage.ejected()), one.zone)
    for at in range(REQUESTS):
        if at == state.breakers_open:
            stage.open_breakers()
        method, target, fields, source = some_request(random)
        named = tuple(field_of(name, value, plan, web) for name, value in fields)
        question = Question(f"http://web.default.svc.mesh{target}", method, named, source)
        said = explain(node, SETTINGS, question)
        came = stage.ask(question, hold=bool(state.held) and at % state.held == 0)
        try:
            check(said, came, tally)
        except AssertionError as error:
            error.add_note(f"EXPLAIN_SEED={SEED}, configuration {number}, request {at}: {one}")
            error.add_note(f"asked     {question}")
            error.add_note("explained " + "\n          ".join(text_lines(said)))
            error.add_note(f"came      {came}")
            raise


def test_what_is_explained_is_what_happens() -> None:
    tally: Counter[str] = Counter()
    for number in range(CONFIGURATIONS):
        compare(number, tally)
    # All kinds of outcomes were there, so that none of the checks above has been idle.
    for kind in ("sent", "certain", "split", "failed over", "perhaps", "by", "the", "otherwise"):
        assert tally[kind], (kind, tally)
    for kind in ("answered calls", "avoids the ejected"):
        assert tally[kind], (kind, tally)
    for reason in ("circuit_open", "rate_limited", "grpc_timeout", "concurrency_limited", "queue_timeout"):
        assert tally[f"perhaps {reason}"], (reason, tally)
    for by in ("mesh", "cors", "redirect", "fault", "circuit-breaker"):
        assert tally[f"answered by {by}"], (by, tally)
