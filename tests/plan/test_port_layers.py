"""Annotations of middleware for a single port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.model import ServicePort
from middleware.registry import MIDDLEWARES
from nodeagent.plan.effective import Resolution, resolve_annotations
from nodeagent.plan.port_layers import annotation_for_all
from tests.plan.builders import make_service

WEB, ADMIN, RAW = ServicePort("web", 80), ServicePort("admin", 8080), ServicePort("tcp-raw", 9000)
PORTS = (WEB, ADMIN, RAW)
DNS, DNS_TCP = ServicePort("dns", 53, "UDP"), ServicePort("dns-tcp", 53)


def resolve(
    annotations: Mapping[str, str],
    last_good: Mapping[str, str] | None = None,
    ports: tuple[ServicePort, ...] = PORTS,
) -> Resolution:
    named = {f"svc.mesh/{name}": value for name, value in annotations.items()}
    good = {f"svc.mesh/{name}": value for name, value in (last_good or {}).items()}
    return resolve_annotations(make_service(annotations=named, ports=ports).object, good, MIDDLEWARES)


def layers(resolution: Resolution, port: ServicePort = ADMIN) -> dict[str, Any]:
    assert [layer.name for layer in resolution.layers_of(port)] == [
        middleware.name
        for middleware in MIDDLEWARES
        if middleware.name in {layer.name for layer in resolution.layers_of(port)}
    ]
    return {layer.name: layer.options for layer in resolution.layers_of(port)}


def told(resolution: Resolution) -> list[tuple[str, str, str]]:
    return [(problem.field, problem.reason, problem.effect) for problem in resolution.problems]


@pytest.mark.parametrize("selector", ["admin", "8080"])
def test_one_port_has_its_own(selector: str) -> None:
    resolution = resolve({"timeout": "5s", f"timeout.{selector}": "1s", f"retry-attempts.{selector}": "3"})
    assert told(resolution) == []
    assert layers(resolution)["timeout"].limit == 1.0
    assert layers(resolution)["retry"].attempts == 3
    assert layers(resolution, WEB)["timeout"].limit == 5.0
    assert "retry" not in layers(resolution, WEB)
    assert resolution.annotations[f"svc.mesh/timeout.{selector}"] == "1s"


def test_the_name_goes_before_the_number() -> None:
    resolution = resolve({"timeout.8080": "1s", "timeout.admin": "2s"})
    assert layers(resolution)["timeout"].limit == 2.0


def test_one_setting_of_several_may_be_different() -> None:
    resolution = resolve({"retry-attempts": "2", "retry-on": "5xx", "retry-on.admin": "503"})
    assert (layers(resolution)["retry"].attempts, layers(resolution)["retry"].on) == (2, ("503",))
    assert layers(resolution, WEB)["retry"].on == ("5xx",)


def test_it_may_be_off_for_one_port() -> None:
    resolution = resolve({"retry-attempts": "2", "retry-attempts.admin": "0"})
    assert told(resolution) == []
    assert "retry" not in layers(resolution)
    assert "retry" in layers(resolution, WEB)


def test_a_bad_one_leaves_what_is_for_all_ports() -> None:
    resolution = resolve({"timeout": "5s", "timeout.admin": "soon", "retry-attempts.admin": "many"})
    assert layers(resolution)["timeout"].limit == 5.0
    assert told(resolution) == [
        (
            "svc.mesh/timeout.admin",
            '"soon" is not a duration',
            "svc.mesh/timeout=5s is in force on this port too",
        ),
        ("svc.mesh/retry-attempts.admin", '"many" is not a whole number', "it is ignored"),
    ]
    assert not {"svc.mesh/timeout.admin", "svc.mesh/retry-attempts.admin"} & resolution.annotations.keys()


def test_a_bad_one_leaves_what_was_in_force_for_the_port() -> None:
    resolution = resolve({"timeout": "5s", "timeout.admin": "soon"}, {"timeout.admin": "3s"})
    assert layers(resolution)["timeout"].limit == 3.0
    assert told(resolution)[0][2] == "svc.mesh/timeout.admin=3s stays in force"
    assert resolution.annotations["svc.mesh/timeout.admin"] == "3s"
    worse = resolve({"timeout": "5s", "timeout.admin": "soon"}, {"timeout.admin": "never"})
    assert layers(worse)["timeout"].limit == 5.0
    assert len(worse.problems) == 1


def test_what_does_not_fit_beside_a_ports_own_is_left_out_there() -> None:
    resolution = resolve({"timeout": "5s", "per-try-timeout": "2s", "timeout.admin": "1s"})
    assert layers(resolution).keys() == {"timeout"}
    assert layers(resolution, WEB)["per-try-timeout"].limit == 2.0
    assert told(resolution) == [
        (
            "svc.mesh/per-try-timeout",
            "2s is longer than svc.mesh/timeout: 1s, which ends first",
            "it is ignored on port admin",
        )
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("timeout.other", "the Service has no port 'other'"),
        ("timeout.81", "the Service has no port '81'"),
        ("timeout.", "the Service has no port ''"),
        ("timeout.tcp-raw", "timeout works on http ports, and tcp-raw is none"),
        ("timeouts.admin", "is not an annotation that the mesh knows"),
    ],
)
def test_what_is_for_no_port_is_ignored(name: str, reason: str) -> None:
    resolution = resolve({name: "1s"})
    assert told(resolution) == [(f"svc.mesh/{name}", reason, "it is ignored")]
    assert not resolution.port_layers
    assert f"svc.mesh/{name}" not in resolution.annotations


def test_what_is_about_connections_is_for_tcp_ports_too() -> None:
    resolution = resolve({"idle-timeout.tcp-raw": "1h"})
    assert told(resolution) == []
    assert layers(resolution, RAW)["connection-times"].idle == 3600.0


def test_a_number_that_two_protocols_have_is_the_tcp_ports() -> None:
    resolution = resolve({"timeout.53": "1s", "timeout.dns": "2s"}, ports=(DNS_TCP, DNS))
    assert told(resolution) == [("svc.mesh/timeout.dns", "UDP is not carried yet", "it is ignored")]
    assert layers(resolution, DNS_TCP)["timeout"].limit == 1.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("svc.mesh/timeout", ""),
        ("svc.mesh/timeout.admin", "svc.mesh/timeout"),
        ("svc.mesh/timeout.a.b", "svc.mesh/timeout"),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert annotation_for_all(name) == expected


VALUES: Mapping[str, tuple[str, ...]] = {
    "timeout": ("1s", "5s", "soon"),
    "per-try-timeout": ("500ms", "2s", "-1s"),
    "retry-attempts": ("0", "2", "many"),
    "retry-on": ("503", "5xx", "sometimes"),
    "retry-budget": ("10%", "20% min=0", "0% min=0"),
    "circuit-breaker": ("NetworkErrorRatio() > 0.5", "NetworkErrorRatio("),
    "circuit-breaker-samples": ("5", "0"),
    "rate-limit": ("10/s", "10/s burst=5", "-1/s"),
}
some_annotations = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in VALUES.items()}
)


@given(some_annotations, some_annotations)
def test_ports_do_not_disturb_each_other(everywhere: dict[str, str], here: dict[str, str]) -> None:
    alone = resolve(everywhere)
    both = resolve({**everywhere, **{f"{name}.admin": value for name, value in here.items()}})
    assert both.layers == alone.layers
    assert both.layers_of(WEB) == alone.layers_of(WEB)
    fields = [problem.field for problem in both.problems]
    assert all(field.endswith(".admin") or field.removeprefix("svc.mesh/") in everywhere for field in fields)
    again = resolve({name.removeprefix("svc.mesh/"): value for name, value in both.annotations.items()})
    assert again.layers_of(ADMIN) == both.layers_of(ADMIN), "what is in force is what is written down"


@given(some_annotations, some_annotations)
def test_a_ports_own_mean_what_they_mean_for_all(everywhere: dict[str, str], here: dict[str, str]) -> None:
    together = resolve({**everywhere, **here})
    if together.problems or resolve(everywhere).problems:
        return
    own = resolve({**everywhere, **{f"{name}.admin": value for name, value in here.items()}})
    assert own.layers_of(ADMIN) == together.layers
    assert own.problems == ()
