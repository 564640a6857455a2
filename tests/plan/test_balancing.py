"""`svc.mesh/load-balancing` and its neighbours: what may stand there, and which port it is for."""

from __future__ import annotations

import msgspec
import pytest

from discovery.model import ServiceKey, ServicePort
from middleware.contract import Problem
from nodeagent.plan.annotations import SETTINGS
from nodeagent.plan.balancing import (
    BALANCING,
    LOAD_BALANCING,
    POLICIES,
    SESSION_AFFINITY,
    SLOW_START,
    Balancing,
    default_cookie,
    parse_balancing,
    written,
    written_slow_start,
)
from nodeagent.plan.model import Affinity, Balance, HashKey
from nodeagent.proxy.balance import BALANCERS
from tests.plan.builders import HTTP, compile_services, make_service

RPC, RAW = ServicePort("rpc", 81), ServicePort("tcp-raw", 9000)


def parsed(annotations: dict[str, str]) -> Balancing:
    found = parse_balancing(annotations)
    assert isinstance(found, Balancing), found
    return found


def test_every_policy_has_a_balancer_and_every_balancer_a_policy() -> None:
    assert set(POLICIES) == set(BALANCERS)


@pytest.mark.parametrize(
    ("value", "balance"),
    [
        ("round-robin", Balance()),
        (" least-request ", Balance("least-request")),
        ("random", Balance("random")),
        ("ewma", Balance("ewma")),
        ("ewma decay=2s", Balance("ewma", decay=2.0)),
        ("consistent-hash header=X-User", Balance("consistent-hash", HashKey("header", "X-User"))),
        ("consistent-hash cookie=session", Balance("consistent-hash", HashKey("cookie", "session"))),
        ("consistent-hash query=user", Balance("consistent-hash", HashKey("query", "user"))),
        ("consistent-hash source=address", Balance("consistent-hash", HashKey("source"))),
        (
            "consistent-hash balance-factor=150% header=a",
            Balance("consistent-hash", HashKey("header", "a"), 150),
        ),
    ],
)
def test_what_may_stand_there(value: str, balance: Balance) -> None:
    assert parsed({LOAD_BALANCING: value}).balance_of(HTTP) == balance
    assert parsed({LOAD_BALANCING: written(balance)}).balance_of(HTTP) == balance


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (LOAD_BALANCING, "", '"" is not known'),
        (LOAD_BALANCING, "least-requests", '"least-requests" is not known'),
        (LOAD_BALANCING, "random decay=1s", "decay has no meaning with random"),
        (LOAD_BALANCING, "ewma header=a", "header has no meaning with ewma"),
        (LOAD_BALANCING, "ewma decay=0s", "out of range"),
        (LOAD_BALANCING, "consistent-hash", "consistent-hash has no key"),
        (LOAD_BALANCING, "consistent-hash header=a query=b", "consistent-hash has several keys"),
        (LOAD_BALANCING, "consistent-hash header=a:b", "is not the name of a header field"),
        (LOAD_BALANCING, "consistent-hash header=connection", "is set by the mesh alone"),
        (LOAD_BALANCING, "consistent-hash cookie=a;b", "is not the name of a cookie"),
        (LOAD_BALANCING, "consistent-hash query=a&b", "is not the name of a parameter"),
        (LOAD_BALANCING, "consistent-hash source=port", '"port" is not known'),
        (LOAD_BALANCING, "consistent-hash header=a balance-factor=100", "out of range"),
        (LOAD_BALANCING, "consistent-hash header=a balance-factor=", "is not a whole number"),
        (LOAD_BALANCING, "consistent-hash x-user", "is not name=value"),
        (SESSION_AFFINITY, "yes", '"yes" is not known'),
        (SESSION_AFFINITY, "cookie name=a=b", "is not the name of a cookie"),
        (SESSION_AFFINITY, "cookie name=", "is not the name of a cookie"),
        (SESSION_AFFINITY, "cookie max-age=0s", "out of range"),
        (SESSION_AFFINITY, "off max-age=1s", "max-age has no meaning after off"),
        (SLOW_START, "10", "the unit is missing"),
        (SLOW_START, "10ms", "out of range"),
        (SLOW_START, "2h", "out of range"),
        (SLOW_START, "10s recovered=maybe", '"maybe" is not known'),
        (SLOW_START, "10s again=on", '"again" is not known'),
        (SLOW_START, "off recovered=on", "recovered has no meaning after off"),
    ],
)
@pytest.mark.parametrize("port", ["", ".http"])
def test_what_may_not(name: str, value: str, reason: str, port: str) -> None:
    problem = parse_balancing({f"{name}{port}": value})
    assert isinstance(problem, Problem)
    assert (problem.annotation, problem.value) == (f"{name}{port}", value)
    assert reason in problem.reason


@pytest.mark.parametrize(
    ("text", "seconds", "recovered", "shown"),
    [
        ("30s", 30.0, False, "30s"),
        (" 1m recovered=on", 60.0, True, "1m recovered=on"),
        ("1m30s recovered=off", 90.0, False, "1m30s"),
        ("off", 0.0, False, "off"),
    ],
)
def test_slow_start(text: str, seconds: float, recovered: bool, shown: str) -> None:
    balance = parsed({LOAD_BALANCING: "random", SLOW_START: text}).balance_of(HTTP)
    assert balance == Balance("random", slow_start=seconds, slow_start_recovered=recovered)
    assert written_slow_start(balance) == shown


def test_slow_start_with_fixed_endpoints_is_reported() -> None:
    hashed = "consistent-hash source=address"
    problem = parse_balancing({LOAD_BALANCING: hashed, SLOW_START: "10s"})
    assert isinstance(problem, Problem)
    assert problem.annotation == SLOW_START
    assert isinstance(parse_balancing({LOAD_BALANCING: hashed, SLOW_START: "off"}), Balancing)
    mixed = {LOAD_BALANCING: "ewma", f"{LOAD_BALANCING}.rpc": hashed, SLOW_START: "10s"}
    assert parsed(mixed).balance_of(HTTP).slow_start == 10.0
    assert parsed(mixed).balance_of(RPC).slow_start == 0.0


def test_nothing_is_said_unless_it_is() -> None:
    assert parse_balancing({"svc.mesh/timeout": "1s"}) is None
    (service,) = compile_services(make_service()).services.values()
    assert (service.backends[0].balance, service.backends[0].affinity) == (Balance(), None)


def test_a_port_has_its_own_by_name_or_number() -> None:
    annotations = {
        LOAD_BALANCING: "ewma",
        f"{LOAD_BALANCING}.rpc": "random",
        f"{LOAD_BALANCING}.9000": "least-request",
        f"{SLOW_START}.http": "5s",
        SESSION_AFFINITY: "cookie",
        f"{SESSION_AFFINITY}.81": "off",
    }
    plan = compile_services(make_service(annotations=annotations, ports=(HTTP, RPC, RAW)))
    assert not plan.all_problems()
    (service,) = plan.services.values()
    assert [one.balance.policy for one in service.backends] == ["ewma", "random", "least-request"]
    assert [one.balance.slow_start for one in service.backends] == [5.0, 0.0, 0.0]
    assert [one.affinity is not None for one in service.backends] == [True, False, False], (
        "tcp has no cookies"
    )


def test_the_cookie_has_a_name_of_its_own_and_a_salt_that_is_not_shown() -> None:
    affinity = parsed({SESSION_AFFINITY: "cookie max-age=1m"}).affinity_of(
        ServiceKey("shop", "web"), HTTP, "the-uid"
    )
    assert affinity == Affinity(default_cookie(ServiceKey("shop", "web"), HTTP.port), 60.0, "the-uid")
    named = parsed({SESSION_AFFINITY: "cookie name=mine"}).affinity_of(ServiceKey("shop", "web"), HTTP, "")
    assert named == Affinity("mine")
    names = {default_cookie(ServiceKey("shop", name), port) for name in ("a", "b") for port in (80, 81)}
    assert len(names) == 4


def test_a_port_that_there_is_not_and_the_last_good_value() -> None:
    before = compile_services(make_service(annotations={LOAD_BALANCING: "ewma"}))
    bad = {LOAD_BALANCING: "fastest", f"{SLOW_START}.admin": "10s"}
    plan = compile_services(make_service(annotations=bad), previous=before)
    (service,) = plan.services.values()
    assert service.backends[0].balance == Balance("ewma")
    effects = {one.field: one.effect for one in plan.all_problems()}
    assert effects == {
        LOAD_BALANCING: f"{LOAD_BALANCING}=ewma stays in force",
        f"{SLOW_START}.admin": "it is ignored",
    }


def test_every_example_is_right_and_goes_over_to_the_workers() -> None:
    assert BALANCING in SETTINGS
    for annotation in BALANCING.annotations:
        name, _, value = annotation.example.partition(": ")
        found = parsed({name: value.strip('"')})
        assert name.partition(".http")[0] == annotation.name.partition(".<")[0]
        balance = found.balance_of(HTTP)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(balance), type=Balance) == balance
