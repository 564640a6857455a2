"""Objects of the Service Mesh Interface: what is said to be lost with them, and what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.manifest import read_object
from discovery.manifest.smi import HEAVIEST, MOST_BACKENDS, SPLIT
from discovery.model import Problem
from middleware import split

METADATA = {"namespace": "shop", "name": "one"}
DESTINATION = {"kind": "ServiceAccount", "name": "cart", "namespace": "shop"}
SOURCES = [{"kind": "ServiceAccount", "name": name, "namespace": "front"} for name in "abcdef"]


def problems_of(kind: str, version: str, **fields: Any) -> tuple[Problem, ...]:
    document = {"apiVersion": version, "kind": kind, "metadata": METADATA, **fields}
    found, problems = read_object(document, "x:1", "traefik-mesh")
    assert found is None
    assert read_object(document, "x:1") == (None, ()), "without the flag they are nobody's"
    return problems


def instead(**spec: Any) -> str:
    (problem,) = problems_of("TrafficSplit", "split.smi-spec.io/v1alpha4", spec=spec)
    assert (problem.kind, problem.severity, problem.field) == ("TrafficSplit", "error", "spec.backends")
    assert problem.effect == "the split of traffic is not made: the Service answers all of it itself"
    return problem.expected


def weights(*given: Any) -> str:
    backends = [{"service": f"v{number}", "weight": weight} for number, weight in enumerate(given)]
    return instead(service="cart", backends=backends)


@pytest.mark.parametrize("version", ["v1alpha2", "v1alpha3", "v9"])
def test_a_traffic_target(version: str) -> None:
    (problem,) = problems_of(
        "TrafficTarget",
        f"access.smi-spec.io/{version}",
        spec={"destination": DESTINATION, "sources": SOURCES[:1]},
    )
    assert (problem.namespace, problem.name, problem.severity) == ("shop", "one", "error")
    assert (problem.field, problem.value) == ("spec.sources", "front/a")
    assert "reach the pods of shop/cart" in problem.reason
    effect = "access that was limited to these sources is open to every client that can reach the node"
    assert problem.effect == effect
    assert "NetworkPolicies" in problem.expected


def test_a_traffic_target_of_the_first_version_has_no_spec() -> None:
    (problem,) = problems_of(
        "TrafficTarget", "access.smi-spec.io/v1alpha1", destination=DESTINATION, sources=SOURCES
    )
    assert problem.field == "sources"
    assert problem.value == "front/a, front/b, front/c and 3 more"
    assert "shop/cart" in problem.reason


def test_a_traffic_target_without_sources_lets_nobody_in() -> None:
    (problem,) = problems_of("TrafficTarget", "access.smi-spec.io/v1alpha2", spec={"destination": {}})
    assert problem.value == "nobody"


@pytest.mark.parametrize("kind", ["HTTPRouteGroup", "TCPRoute", "UDPRoute"])
def test_routes_alone_mean_nothing(kind: str) -> None:
    (problem,) = problems_of(kind, "specs.smi-spec.io/v1alpha3")
    assert (problem.kind, problem.name, problem.severity) == (kind, "one", "info")


def test_kinds_of_others_are_nobodys() -> None:
    assert problems_of("TrafficTarget", "example.com/v1") == ()
    assert problems_of("TrafficMetrics", "metrics.smi-spec.io/v1alpha1") == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((90, 10), "v0=90 v1=10"),
        ((100, 0), "v0=100 v1=0"),
        (("90", "10"), "v0=90 v1=10"),
        (("500m", "1500m"), "v0=1 v1=3"),
        (("1", "500m"), "v0=2 v1=1"),
        (("1k", 1), "v0=1000 v1=1"),
        ((0.5, 1.5), "v0=1 v1=3"),
        ((3_000_000, 1_000_000), "v0=3 v1=1"),
    ],
)
def test_the_annotation_that_says_the_same(given: tuple[Any, ...], said: str) -> None:
    assert weights(*given) == (
        f'svc.mesh/split: {said} on Service cart, and svc.mesh/enabled: "true" on it and on each of these'
    )


@pytest.mark.parametrize(
    "given", [(), (0, 0), (-1, 2), ("many",), (None,), (True, 1), (3_000_001, 1), (1,) * 33, ([1],)]
)
def test_where_none_can_be_computed_an_example_is_given(given: tuple[Any, ...]) -> None:
    assert weights(*given) == "svc.mesh/split: SERVICE=WEIGHT ... on Service cart, such as v1=90 v2=10"


def test_a_split_of_some_requests_cannot_be_said() -> None:
    found = instead(
        service="cart",
        matches=[{"kind": "HTTPRouteGroup", "name": "firefox"}],
        backends=[{"service": "v1", "weight": 1}],
    )
    assert found.startswith("no annotation: svc.mesh/split on Service cart would split all requests")


def test_names_and_bounds_are_those_of_the_middleware() -> None:
    assert (SPLIT, HEAVIEST, MOST_BACKENDS) == (split.SPLIT, split.HEAVIEST, split.MOST_BACKENDS)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["destination", "sources", "service", "backends", "weight", "name", "matches"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(["TrafficTarget", "TrafficSplit"]), values, st.booleans())
def test_whatever_is_in_them_they_are_reported_once(kind: str, content: Any, first: bool) -> None:
    group = "access" if kind == "TrafficTarget" else "split"
    fields = content if first and isinstance(content, dict) else {"spec": content}
    (problem,) = problems_of(kind, f"{group}.smi-spec.io/v1alpha2", **fields)
    assert problem.severity == "error"


@given(st.lists(st.integers(0, 10**9) | st.from_regex(r"[0-9]{1,4}m", fullmatch=True), max_size=4))
def test_what_is_proposed_is_taken(given: list[Any]) -> None:
    said = weights(*given)
    if "SERVICE=WEIGHT" not in said:
        annotation = said.removeprefix("svc.mesh/split: ").partition(" on Service")[0]
        assert len(split.parse_backends(annotation)) == len(given)
