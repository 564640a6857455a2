"""What an explanation says is what then happens: random settings and requests, 10,000 of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from discovery.model import Endpoint
from middleware.registry import MIDDLEWARES
from nodeagent.explain.choosing import Node
from nodeagent.explain.explain import explain
from nodeagent.explain.model import Explanation, Question
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.model import EMPTY_PLAN, BackendKey, Match, NodePlan, Rule
from nodeagent.plan.render import InForce
from nodeagent.proxy.steering import SessionCookie
from tests.explain.stage import Outcome, Stage
from tests.plan.builders import SETTINGS, make_service, snapshot_of

CONFIGURATIONS = 400
REQUESTS = 25
ANNOTATIONS = {
    "server-timing": ("on", "on-request"),
    "cors": ("https://shop.example", "*", "https://*.shop.example methods=GET,PUT max-age=10m"),
    "rate-limit": ("1000/s", "3/h burst=3 per=source", "2/h burst=2 per=header:x-user"),
    "timeout": ("5s",),
    "max-requests": ("5", "1 queue=0"),
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
    "slow-start": ("30s",),
}
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
TARGETS = ("/", "/a", "/a/b", "/ab", "/a/b/c?q=1", "/item/7?q=2&q=1", "/item/x", "/%41?q=%31")

endpoint = st.builds(
    Endpoint,
    st.sampled_from([f"10.1.0.{number}" for number in range(1, 6)]),
    st.just(8080),
    zone=st.sampled_from(["a", "b"]),
)
chosen_annotations = st.dictionaries(st.sampled_from(sorted(ANNOTATIONS)), st.integers(0, 7), max_size=9)
PREFLIGHT = [("Origin", "https://shop.example"), ("Access-Control-Request-Method", "PUT")]
preflight: st.SearchStrategy[Any] = st.tuples(
    *(st.just("OPTIONS"), st.sampled_from(TARGETS), st.just(PREFLIGHT), st.just("10.9.0.1"))
)
requests: st.SearchStrategy[list[Any]] = st.lists(
    preflight
    | st.tuples(
        st.sampled_from(["GET", "GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE"]),
        st.sampled_from(TARGETS),
        st.lists(st.sampled_from(FIELDS), max_size=4, unique_by=lambda field: field[0]),
        st.sampled_from(["10.9.0.1", "10.9.0.2"]),
    ),
    min_size=REQUESTS,
    max_size=REQUESTS,
)


def plan_of(chosen: dict[str, int], own: list[Endpoint], others: list[Endpoint]) -> NodePlan:
    said = {f"svc.mesh/{name}": ANNOTATIONS[name][at % len(ANNOTATIONS[name])] for name, at in chosen.items()}
    v2 = [msgspec.structs.replace(one, port=9090) for one in others]
    snapshot = snapshot_of(
        make_service("web", annotations=said, endpoints={"http": own}, cluster_ips=("10.96.0.10",)),
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
            assert came.status in said.perhaps, (said.answer, came)
            tally["perhaps"] += 1
            return
        assert set(said.answer.fields) <= set(came.fields)
        tally[f"answered by {said.answer.by}"] += 1
        return
    assert said.answer is None, (said.answer, came)
    assert said.sent is not None
    assert (came.method, came.target, list(came.fields)) == (
        said.sent.method,
        said.sent.target,
        list(said.sent.fields),
    )
    assert came.address in {address for view in said.backends for address in view.possible}
    tally["sent"] += 1
    if len(said.backends) == 1:
        (view,) = said.backends
        tally["failed over"] += view.failed_over
        if view.chosen:
            assert came.address == view.chosen
            tally["certain" if len(view.endpoints) > 1 else "the only one"] += 1
            tally[view.how.split(" ")[0]] += 1
    else:
        tally["split"] += 1


def test_what_is_explained_is_what_happens() -> None:
    tally: Counter[str] = Counter()

    @settings(
        max_examples=CONFIGURATIONS,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        chosen=chosen_annotations,
        own=st.lists(endpoint, min_size=1, max_size=6),
        others=st.lists(endpoint, max_size=2),
        out=st.lists(st.integers(1, 5), max_size=4),
        zone=st.sampled_from(["", "a", "b"]),
        matches=st.lists(st.sampled_from(MATCHES), max_size=3),
        asked=requests,
    )
    def compare(
        chosen: dict[str, int],
        own: list[Endpoint],
        others: list[Endpoint],
        out: list[int],
        zone: str,
        matches: list[Match],
        asked: list[Any],
    ) -> None:
        plan = plan_of(chosen, own, others)
        (key,) = [one for one in plan.services if one.name == "web"]
        web = BackendKey(key, 80)
        if matches:
            plan = with_rules(plan, matches, web)
        unhealthy = {web: {(f"10.1.0.{number}", 8080): "no answer" for number in out}} if out else {}
        node = Node(InForce(plan, unhealthy), zone)
        stage = Stage(node, plan.services[key].listeners[0].key)
        for method, target, fields, source in asked:
            named = tuple(field_of(name, value, plan, web) for name, value in fields)
            question = Question(f"http://web.default.svc.mesh{target}", method, named, source)
            said = explain(node, SETTINGS, question)
            came = stage.ask(question)
            check(said, came, tally)
            tally["compared"] += 1

    compare()
    assert tally["compared"] >= CONFIGURATIONS * REQUESTS * 0.95
    # All kinds of outcomes were there, so that none of the checks above has been idle.
    for kind in ("sent", "certain", "split", "failed over", "perhaps", "by", "the"):
        assert tally[kind], (kind, tally)
    for by in ("mesh", "cors", "redirect", "fault", "circuit-breaker"):
        assert tally[f"answered by {by}"], (by, tally)
