"""`svc.mesh/objective`: what its values mean, which of them mean nothing, and which ports have one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.model import Problem, ServiceKey, ServiceObject, ServicePort
from middleware import contract
from middleware.values import InvalidValue, format_duration
from nodeagent.plan.model import Objective, Protocol
from nodeagent.plan.objective import (
    LEAST,
    MOST,
    OBJECTIVE,
    objectives_of,
    parse_objective,
    read_objective,
    written_objective,
)
from nodeagent.plan.of_port import OfPort
from nodeagent.stats.columns import DURATION_BOUNDS

HTTP: tuple[ServicePort, Protocol] = (ServicePort("http", 80), "http")
DB: tuple[ServicePort, Protocol] = (ServicePort("db", 5432), "tcp")


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("99.9%", Objective(99_900)),
        ("99%", Objective(99_000)),
        ("50%", Objective(50_000)),
        ("99.999%", Objective(99_999)),
        ("99.9% 250ms", Objective(99_900, 0.25, 99_900)),
        ("  99.9%   0.25s ", Objective(99_900, 0.25, 99_900)),
        ("99.9% 500us", Objective(99_900, 0.0005, 99_900)),
        ("99.9% 10s latency=95%", Objective(99_900, 10.0, 95_000)),
        ("off", None),
    ],
)
def test_values(value: str, meaning: Objective | None) -> None:
    assert read_objective(value) == meaning


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", '"" is not a percentage'),
        ("0%", "0% is out of range"),
        ("49.999%", "out of range"),
        ("100%", "100% leaves no room for a single failure"),
        ("100.000%", "leaves no room"),
        ("101%", "101% is out of range"),
        ("999.9%", "out of range"),
        ("99.9999%", "is not a percentage"),
        ("-99%", "is not a percentage"),
        ("٩٩%", "is not a percentage"),
        ("99.9", '"99.9" is not a percentage; expected a percentage from 50% to 99.999%, such as 99.9%'),
        ("0.999", "is not a percentage"),
        ("always", "is not a percentage"),
        ("250ms 99.9%", '"250ms" is not a percentage'),
        ("99.9% 250", "the unit is missing"),
        ("99.9% soon", "is not a duration"),
        ("99.9% 0s", "is out of range"),
        ("99.9% 11s", "11s is out of range; expected a duration from 500µs to 10s"),
        ("99.9% 300ms", "does not count the requests within 300ms; expected 250ms or 500ms, of 500µs, 1ms,"),
        ("99.9% latency=95%", '"latency=95%" stands where the time belongs'),
        ("99.9% 250ms latency=100%", "100% leaves no room"),
        ("99.9% 250ms latency=95% latency=95%", "latency is given twice"),
        ("99.9% 250ms latncy=95%", "did you mean latency?"),
        ("99.9% 250ms 500ms", '"500ms" is not key=value'),
        ("off 250ms", "has no meaning after off"),
        ("9" * 10_000 + "%", "is not a percentage"),
    ],
)
def test_bad_values(value: str, said: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        read_objective(value)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 300


shares = st.integers(LEAST, MOST)


@given(shares, st.sampled_from(DURATION_BOUNDS), shares)
def test_what_is_written_is_read_as_the_same(available: int, within: float, fast: int) -> None:
    for objective in (Objective(available), Objective(available, within, fast)):
        assert read_objective(written_objective(objective)) == objective


@given(st.text())
def test_any_value_is_an_objective_or_a_problem(value: str) -> None:
    found = parse_objective({OBJECTIVE: value})
    assert isinstance(found, OfPort | contract.Problem)
    if isinstance(found, OfPort) and found.usual is not None:
        assert LEAST <= found.usual.available <= MOST


@pytest.mark.parametrize("bound", DURATION_BOUNDS, ids=format_duration)
def test_every_bound_of_the_histogram_can_be_an_objective(bound: float) -> None:
    found = read_objective(f"99% {format_duration(bound)}")
    assert found is not None
    assert found.within == bound


def resolved(
    annotations: dict[str, str], *ports: tuple[ServicePort, Protocol], policy: bool = False
) -> tuple[dict[int, Objective], list[Problem]]:
    """Objectives and problems; with `policy` nothing of `annotations` was written by the owner."""
    said = parse_objective(annotations)
    assert isinstance(said, OfPort)
    service = ServiceObject(ServiceKey("shop", "cart"), {} if policy else annotations)
    problems: list[Problem] = []
    return objectives_of(service, ports, said, annotations, problems), problems


def test_one_objective_for_all_ports_is_that_of_the_http_ports() -> None:
    assert resolved({OBJECTIVE: "99%"}, HTTP, DB) == ({80: Objective(99_000)}, [])


def test_the_objective_of_a_port_takes_precedence() -> None:
    found, problems = resolved({OBJECTIVE: "99%", f"{OBJECTIVE}.http": "98%"}, HTTP)
    assert (found, problems) == ({80: Objective(98_000)}, [])
    assert resolved({OBJECTIVE: "99%", f"{OBJECTIVE}.80": "off"}, HTTP) == ({}, [])


@pytest.mark.parametrize("name", [f"{OBJECTIVE}.db", f"{OBJECTIVE}.5432"])
def test_a_tcp_port_has_none_and_its_owner_is_told(name: str) -> None:
    found, (problem,) = resolved({name: "99%"}, HTTP, DB)
    assert found == {}
    assert problem.field == name
    assert problem.value == "99%"
    assert problem.reason == "port db is tcp, and the mesh counts no requests there"
    assert problem.severity == "warning"


def test_a_service_of_tcp_ports_alone_is_told() -> None:
    found, (problem,) = resolved({OBJECTIVE: "99%"}, DB)
    assert found == {}
    assert (problem.field, problem.reason) == (
        OBJECTIVE,
        "the Service has no http port, and the mesh counts no requests there",
    )


def test_nobody_is_told_of_what_a_policy_says() -> None:
    assert resolved({OBJECTIVE: "99%"}, DB, policy=True) == ({}, [])
    assert resolved({OBJECTIVE: "off"}, DB) == ({}, [])
    assert resolved({OBJECTIVE: "99%"}) == ({}, [])
