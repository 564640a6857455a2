"""Which Services are meshed, and what their ports speak."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.annotations import (
    ANNOTATIONS,
    check_annotations,
    is_enabled,
    protocol_of,
    upstream_protocol_of,
)
from discovery.model import ServiceKey, ServiceObject, ServicePort


def service(annotations: dict[str, str]) -> ServiceObject:
    ports = (ServicePort("web", 80), ServicePort("db", 5432))
    return ServiceObject(ServiceKey("default", "shop"), annotations, ports=ports, origin="a.yaml:3")


@pytest.mark.parametrize(
    ("port", "annotations", "expected"),
    [
        (ServicePort("", 80), {}, "http"),
        (ServicePort("web", 80), {}, "http"),
        (ServicePort("http-web", 80), {}, "http"),
        (ServicePort("tcp-db", 80), {}, "tcp"),
        (ServicePort("tcp", 80), {}, "tcp"),
        (ServicePort("tcpish", 80), {}, "http"),
        (ServicePort("grpc-api", 80), {}, "http"),
        (ServicePort("https", 443), {}, "tcp"),
        (ServicePort("redis", 6379), {}, "tcp"),
        (ServicePort("tcp-db", 80, app_protocol="http"), {}, "http"),
        (ServicePort("web", 80, app_protocol="HTTP"), {}, "http"),
        (ServicePort("web", 80, app_protocol="kubernetes.io/ws"), {}, "http"),
        (ServicePort("web", 80, app_protocol="kubernetes.io/wss"), {}, "tcp"),
        (ServicePort("web", 80, app_protocol="kubernetes.io/h2c"), {}, "http"),
        (ServicePort("web", 80, app_protocol="https"), {}, "tcp"),
        (ServicePort("web", 80, app_protocol="example.com/own"), {}, "tcp"),
        (ServicePort("web", 80, app_protocol="http"), {"svc.mesh/protocol": "tcp"}, "tcp"),
        (ServicePort("tcp-db", 80), {"svc.mesh/protocol": "http"}, "http"),
        (ServicePort("web", 80), {"svc.mesh/protocol": "grpc"}, "http"),
        (ServicePort("web", 80), {"svc.mesh/protocol": "https"}, "tcp"),
        (ServicePort("web", 80), {"svc.mesh/protocol": "tcp", "svc.mesh/protocol.80": "http"}, "http"),
        (ServicePort("web", 80), {"svc.mesh/protocol.web": "tcp", "svc.mesh/protocol.80": "http"}, "tcp"),
        (ServicePort("web", 80), {"svc.mesh/protocol.other": "tcp"}, "http"),
        (ServicePort("", 80), {"svc.mesh/protocol.80": "tcp"}, "tcp"),
    ],
)
def test_first_declaration_decides(port: ServicePort, annotations: dict[str, str], expected: str) -> None:
    assert protocol_of(port, annotations) == expected


@pytest.mark.parametrize(
    ("port", "annotations", "expected"),
    [
        (ServicePort("web", 80), {}, "http1"),
        (ServicePort("grpc", 80), {}, "http2"),
        (ServicePort("grpc-api", 80), {}, "http2"),
        (ServicePort("h2c-api", 80), {}, "http2"),
        (ServicePort("http2-api", 80), {}, "http2"),
        (ServicePort("http-grpc", 80), {}, "http1"),
        (ServicePort("grpc-web", 80), {}, "http1"),
        (ServicePort("grpc-web-api", 80), {}, "http1"),
        (ServicePort("grpc-website", 80), {}, "http2"),
        (ServicePort("grpc-api", 80, app_protocol="http"), {}, "http1"),
        (ServicePort("web", 80, app_protocol="grpc"), {}, "http2"),
        (ServicePort("web", 80, app_protocol="GRPC"), {}, "http2"),
        (ServicePort("web", 80, app_protocol="grpc-web"), {}, "http1"),
        (ServicePort("web", 80, app_protocol="kubernetes.io/h2c"), {}, "http2"),
        (ServicePort("web", 80, app_protocol="kubernetes.io/ws"), {}, "http1"),
        (ServicePort("grpc-api", 80), {"svc.mesh/protocol": "http"}, "http1"),
        (ServicePort("web", 80), {"svc.mesh/protocol": "grpc"}, "http2"),
        (ServicePort("web", 80), {"svc.mesh/protocol": "grpc", "svc.mesh/protocol.web": "http"}, "http1"),
        (ServicePort("web", 80), {"svc.mesh/upstream-protocol": "http2"}, "http2"),
        (ServicePort("grpc", 80), {"svc.mesh/upstream-protocol": "http1"}, "http1"),
        (ServicePort("web", 80), {"svc.mesh/upstream-protocol.web": "http2"}, "http2"),
        (ServicePort("web", 80), {"svc.mesh/upstream-protocol.80": "http2"}, "http2"),
        (ServicePort("", 80), {"svc.mesh/upstream-protocol.80": "http2"}, "http2"),
        (ServicePort("web", 80), {"svc.mesh/upstream-protocol.other": "http2"}, "http1"),
        (
            ServicePort("web", 80),
            {"svc.mesh/upstream-protocol.web": "http1", "svc.mesh/upstream-protocol.80": "http2"},
            "http1",
        ),
        (
            ServicePort("web", 80),
            {"svc.mesh/upstream-protocol.web": "http1", "svc.mesh/upstream-protocol": "http2"},
            "http1",
        ),
        (
            ServicePort("web", 80),
            {"svc.mesh/upstream-protocol.web": "http1", "svc.mesh/protocol.web": "grpc"},
            "http1",
        ),
    ],
)
def test_what_endpoints_are_spoken_to_in(
    port: ServicePort, annotations: dict[str, str], expected: str
) -> None:
    assert upstream_protocol_of(port, annotations) == expected


@pytest.mark.parametrize(
    ("name", "value", "reason", "severity"),
    [
        ("svc.mesh/enabled", "yes", "neither true nor false", "error"),
        ("svc.mesh/enabled", "True", "neither true nor false", "error"),
        ("svc.mesh/enabled", "", "neither true nor false", "error"),
        ("svc.mesh/protocol", "udp", "not a protocol", "error"),
        ("svc.mesh/protocol", "HTTP", "not a protocol", "error"),
        ("svc.mesh/protocol", "h2", "passed through as tcp", "info"),
        ("svc.mesh/upstream-protocol", "h2c", "neither http1 nor http2", "error"),
        ("svc.mesh/upstream-protocol", "HTTP2", "neither http1 nor http2", "error"),
        ("svc.mesh/upstream-protocol.web", "grpc", "neither http1 nor http2", "error"),
        ("svc.mesh/upstream-protocol.admin", "http2", "no port 'admin'", "error"),
        ("svc.mesh/upstream-protocol.", "http2", "no port ''", "error"),
        ("svc.mesh/protocol.web", "nonsense", "not a protocol", "error"),
        ("svc.mesh/protocol.5432", "https", "passed through as tcp", "info"),
        ("svc.mesh/protocol.admin", "http", "no port 'admin'", "error"),
        ("svc.mesh/protocol.", "http", "no port ''", "error"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str, reason: str, severity: str) -> None:
    (problem,) = check_annotations(service({name: value}))
    assert (problem.field, problem.value, problem.severity) == (name, value, severity)
    assert reason in problem.reason
    assert problem.expected
    assert problem.origin == "a.yaml:3"


@pytest.mark.parametrize("enabled", ["true", "false"])
def test_good_values_are_no_problem(enabled: str) -> None:
    annotations = {
        "svc.mesh/enabled": enabled,
        "svc.mesh/protocol.web": "http",
        "svc.mesh/protocol": "tcp",
        "svc.mesh/upstream-protocol.web": "http2",
        "svc.mesh/upstream-protocol.80": "http1",
    }
    assert check_annotations(service(annotations)) == []
    assert is_enabled(annotations) is (enabled == "true")


@given(st.text(), st.text())
def test_any_text_is_answered(selector: str, value: str) -> None:
    """Whatever an owner writes is either in force or a problem that says what would be right."""
    name = f"svc.mesh/protocol.{selector}"
    annotations = {name: value, "svc.mesh/enabled": value}
    fields = {problem.field: problem for problem in check_annotations(service(annotations))}
    assert all(problem.expected for problem in fields.values())
    assert is_enabled(annotations) is (value == "true")
    if name not in fields:
        assert selector in {"web", "db", "80", "5432"}
        assert value in {"http", "tcp"}


def test_every_annotation_is_documented_completely() -> None:
    for annotation in ANNOTATIONS:
        assert annotation.name.startswith("svc.mesh/")
        assert annotation.values
        assert annotation.default
        assert annotation.summary
        assert annotation.example.startswith("svc.mesh/")
