"""Annotations of Traefik Mesh in ours: what each option becomes, what goes first, what has no equivalent."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.compat import (
    CIRCUIT_BREAKER,
    FASTEST,
    LARGEST_BURST,
    MOST_RETRIES,
    OPTIONS,
    PREFIXES,
    RATE_LIMIT,
    RETRY_ATTEMPTS,
    translate,
)
from discovery.manifest import read_object
from discovery.model import ServiceObject
from middleware import circuit_breaker_options, rate_limit, retry_options
from middleware.contract import Problem

NEW, OLD = PREFIXES


def ours(foreign: Mapping[str, str], **own: str) -> dict[str, str]:
    """Translate options and our own annotations; names are given without their prefixes."""
    annotations = {NEW + name: value for name, value in foreign.items()}
    annotations |= {"svc.mesh/" + name: value for name, value in own.items()}
    return {
        name.removeprefix("svc.mesh/"): value for name, value in translate(annotations).annotations.items()
    }


@pytest.mark.parametrize(
    ("foreign", "expected"),
    [
        ({"traffic-type": "http"}, {"protocol": "http"}),
        ({"traffic-type": "tcp"}, {"protocol": "tcp"}),
        ({"traffic-type": "sctp"}, {"protocol": "sctp"}),
        ({"scheme": "http"}, {}),
        ({"scheme": "h2c"}, {"protocol": "h2c"}),
        ({"scheme": "h2c", "traffic-type": "http"}, {"protocol": "h2c"}),
        ({"scheme": "https", "traffic-type": "tcp"}, {"protocol": "tcp"}),
        ({"retry-attempts": "1"}, {"retry-attempts": "0"}),
        ({"retry-attempts": "3"}, {"retry-attempts": "2"}),
        ({"retry-attempts": "+3"}, {"retry-attempts": "2"}),
        ({"retry-attempts": "12"}, {"retry-attempts": "10"}),
        ({"retry-attempts": "0"}, {}),
        ({"retry-attempts": "-1"}, {}),
        ({"retry-attempts": "many"}, {}),
        ({"circuit-breaker-expression": "x"}, {"circuit-breaker": "x"}),
        (
            {"ratelimit-average": "100", "ratelimit-burst": "50"},
            {"rate-limit": "100/s burst=50 per=source"},
        ),
        (
            {"ratelimit-average": "0100", "ratelimit-burst": "+50"},
            {"rate-limit": "100/s burst=50 per=source"},
        ),
        (
            {"ratelimit-average": "2000000", "ratelimit-burst": "9000000"},
            {"rate-limit": "1000000/s burst=1000000 per=source"},
        ),
        ({"ratelimit-average": "100", "ratelimit-burst": "hello"}, {}),
        ({"ratelimit-average": "100"}, {}),
        ({"ratelimit-burst": "100"}, {}),
        ({"colour": "blue"}, {}),
    ],
)
def test_an_option(foreign: Mapping[str, str], expected: Mapping[str, str]) -> None:
    assert ours(foreign) == {"enabled": "true", **expected}


def test_a_service_without_any_is_not_opted_in() -> None:
    assert ours({}) == {}
    assert ours({}, protocol="tcp") == {"protocol": "tcp"}


def test_the_new_prefix_goes_before_the_old() -> None:
    found = translate(
        {OLD + "traffic-type": "tcp", NEW + "traffic-type": "http", OLD + "retry-attempts": "2"}
    )
    assert found.annotations == {
        "svc.mesh/enabled": "true",
        "svc.mesh/protocol": "http",
        "svc.mesh/retry-attempts": "1",
    }
    assert found.origins == {
        "svc.mesh/retry-attempts": (OLD + "retry-attempts",),
        "svc.mesh/protocol": (NEW + "traffic-type",),
    }


def test_our_own_go_before_both() -> None:
    found = translate({NEW + "traffic-type": "tcp", "svc.mesh/protocol": "http"})
    assert found.annotations["svc.mesh/protocol"] == "http"
    assert found.origins == {}
    assert ours({"traffic-type": "tcp"}, enabled="false") == {"enabled": "false"}
    assert ours({"traffic-type": "tcp"}, enabled="yes") == {"enabled": "yes", "protocol": "tcp"}


@pytest.mark.parametrize(
    "foreign", [{"scheme": "https", "retry-attempts": "2"}, {"traffic-type": "udp", "colour": "blue"}]
)
def test_without_an_equivalent_a_service_stays_out(foreign: Mapping[str, str]) -> None:
    assert ours(foreign) == {}
    (note,) = translate({NEW + name: value for name, value in foreign.items()}).notes
    assert (note.severity, note.effect) == ("error", "the Service is not meshed")
    assert ours(foreign, enabled="true")["enabled"] == "true"


@pytest.mark.parametrize(
    ("foreign", "severity", "reason"),
    [
        (
            {"ratelimit-average": "2000000", "ratelimit-burst": "1"},
            "info",
            "is more than the mesh counts: 1000000",
        ),
        ({"retry-attempts": "12"}, "info", "more than the 11 tries"),
        ({"ratelimit-burst": "5"}, "info", "without ratelimit-average"),
        ({"colour": "blue"}, "info", "is not an option"),
    ],
)
def test_notes(foreign: Mapping[str, str], severity: str, reason: str) -> None:
    (note,) = translate({NEW + name: value for name, value in foreign.items()}).notes
    assert note.severity == severity
    assert reason in note.reason


def test_names_and_bounds_are_those_of_the_middleware() -> None:
    assert (RETRY_ATTEMPTS, CIRCUIT_BREAKER, RATE_LIMIT) == (
        retry_options.RETRY_ATTEMPTS,
        circuit_breaker_options.CIRCUIT_BREAKER,
        rate_limit.RATE_LIMIT,
    )
    assert (MOST_RETRIES, FASTEST, LARGEST_BURST) == (
        retry_options.MOST_ATTEMPTS,
        rate_limit.FASTEST,
        rate_limit.LARGEST_BURST,
    )


NAMES = st.sampled_from(
    [prefix + option.name for prefix in PREFIXES for option in OPTIONS]
    + [NEW, OLD + "x", "svc.mesh/enabled", "svc.mesh/protocol", "example.com/a"]
)
VALUES = st.text(max_size=30) | st.sampled_from(
    ["true", "false", "http", "tcp", "udp", "https", "h2c", "0", "1", "99", "9" * 30, " 3 ", "-1"]
)


@given(st.dictionaries(NAMES, VALUES))
def test_anything_is_translated(annotations: dict[str, str]) -> None:
    """Never raises, gives only our own annotations, keeps what was ours, and says what others came from."""
    found = translate(annotations)
    own = {name: value for name, value in annotations.items() if name.startswith("svc.mesh/")}
    assert all(name.startswith("svc.mesh/") for name in found.annotations)
    assert {n: v for n, v in own.items() if n != "svc.mesh/enabled"}.items() <= found.annotations.items()
    assert found.annotations.get("svc.mesh/enabled") in (own.get("svc.mesh/enabled"), None, "true")
    assert found.origins.keys() == found.annotations.keys() - own.keys() - {"svc.mesh/enabled"}
    assert all(name in annotations for names in found.origins.values() for name in names)


def is_atoi(text: str) -> bool:
    digits = text.strip().removeprefix("+")
    return digits.isascii() and digits.isdigit() and len(digits) < 20 and int(digits) >= 1


@given(VALUES, VALUES)
def test_what_traefik_mesh_refuses_is_refused(first: str, second: str) -> None:
    """What is made of numbers is never refused where ours are read, and each bad one is named by itself."""
    written = {
        NEW + "ratelimit-average": first,
        NEW + "ratelimit-burst": second,
        OLD + "retry-attempts": first,
    }
    found = translate(written)
    bad = {name for name, value in written.items() if not is_atoi(value)}
    assert {one.annotation for one in found.unread} == bad
    assert all(written[one.annotation] == one.value for one in found.unread)
    assert (RATE_LIMIT in found.annotations) == (is_atoi(first) and is_atoi(second))
    assert (RETRY_ATTEMPTS in found.annotations) == is_atoi(first)
    assert not isinstance(rate_limit.parse(found.annotations), Problem)
    assert not isinstance(retry_options.parse(found.annotations), Problem)


def service(annotations: Mapping[str, object]) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "cart", "annotations": annotations},
        "spec": {"ports": [{"port": 80}]},
    }


def test_read_only_where_it_is_asked_for() -> None:
    document = service({NEW + "retry-attempts": "2", "svc.mesh/protocol": "http"})
    plain, _ = read_object(document, "x:1")
    assert isinstance(plain, ServiceObject)
    assert (plain.annotations, plain.foreign) == ({"svc.mesh/protocol": "http"}, {})
    found, problems = read_object(document, "x:1", "traefik-mesh")
    assert isinstance(found, ServiceObject)
    assert (found.meshed, problems) == (True, ())
    assert found.annotations[RETRY_ATTEMPTS] == "1"
    assert found.written_as(RETRY_ATTEMPTS) == (NEW + "retry-attempts", "2")
    assert found.written_as("svc.mesh/protocol") == ("svc.mesh/protocol", "http")
    assert found.written(NEW + "retry-attempts") == "2"
    assert found.written("svc.mesh/protocol") == "http"
    assert found.written(RETRY_ATTEMPTS) is None, "nobody wrote it"


def test_a_value_that_is_no_string_is_reported() -> None:
    found, problems = read_object(service({NEW + "retry-attempts": 2}), "x:1", "traefik-mesh")
    assert isinstance(found, ServiceObject)
    assert not found.meshed
    assert [problem.field for problem in problems] == [NEW + "retry-attempts"]


def test_one_without_any_is_the_same_with_and_without() -> None:
    document = service({"example.com/owner": "shop"})
    assert read_object(document, "x:1") == read_object(document, "x:1", "traefik-mesh")


def test_annotations_that_are_no_mapping_are_reported_once() -> None:
    document = service({}) | {"metadata": {"name": "cart", "annotations": "mesh.traefik.io/scheme"}}
    _, problems = read_object(document, "x:1", "traefik-mesh")
    assert [problem.field for problem in problems] == ["metadata.annotations"]


ENCRYPTION_NOT_UNDERSTOOD = [
    {NEW + "scheme": "HTTPS"},
    {NEW + "scheme": " https"},
    {NEW + "scheme": "https\n"},
    {NEW + "scheme": "htps"},
    {NEW + "scheme": "tls"},
    {NEW + "scheme": ""},
    {NEW + "scheme": "HTTP"},
    {OLD + "scheme": "Https"},
    {NEW + "scheme": "https", NEW + "traffic-type": "TCP"},
    {NEW + "scheme": "https", NEW + "traffic-type": "Http"},
    {NEW + "scheme": "https", NEW + "traffic-type": "http"},
    {NEW + "scheme": "https", NEW + "traffic-type": ""},
    {NEW + "scheme": "HTTPS", NEW + "traffic-type": "tcp"},
    # Maesh reads the older name only, Traefik Mesh the newer first: which of them ran cannot be told.
    {NEW + "scheme": "http", OLD + "scheme": "https"},
    {NEW + "scheme": "h2c", OLD + "scheme": "tls"},
    {NEW + "scheme": "https", OLD + "scheme": "http"},
    {NEW + "scheme": "https", NEW + "traffic-type": "tcp", OLD + "traffic-type": "http"},
    # Our annotations that set the protocol of the ports, but do not ask for the mesh nevertheless.
    {NEW + "scheme": "https", "svc.mesh/protocol": "tcp"},
    {NEW + "scheme": "https", "svc.mesh/protocol": "http"},
    {NEW + "scheme": "https", NEW + "traffic-type": "tcp", "svc.mesh/protocol": "http"},
    {NEW + "scheme": "https", NEW + "traffic-type": "tcp", "svc.mesh/protocol": "TCP"},
    {NEW + "scheme": "https", NEW + "traffic-type": "tcp", "svc.mesh/protocol.80": "http"},
    {NEW + "scheme": "https", "svc.mesh/retry-attempts": "2"},
    # Not quite the owner's yes.
    {NEW + "scheme": "https", "svc.mesh/enabled": "yes"},
    {NEW + "scheme": "htps", "svc.mesh/enabled": "True"},
    # Options that no mesh reads, and say something of encryption.
    {NEW + "Scheme": "https"},
    {NEW + "schema": "HTTPS"},
    {NEW + "retry-attempts": "2", NEW + "scheme ": "tls"},
]


@pytest.mark.parametrize("written", ENCRYPTION_NOT_UNDERSTOOD)
def test_what_is_not_understood_of_encryption_is_never_sent_in_plain_text(written: dict[str, str]) -> None:
    found = translate(written)
    assert "svc.mesh/enabled" not in found.annotations
    errors = [note for note in found.notes if note.severity == "error"]
    assert errors
    assert all(written[note.annotation] == note.value and note.expected for note in errors)
    assert all(note.effect == "the Service is not meshed" for note in errors)
    assert translate(written | {"svc.mesh/enabled": "true"}).annotations["svc.mesh/enabled"] == "true"
    assert translate(written | {"svc.mesh/enabled": "false"}).annotations["svc.mesh/enabled"] == "false"


@pytest.mark.parametrize(
    "written",
    [
        {NEW + "scheme": "http", OLD + "scheme": "http"},
        {NEW + "scheme": "h2c", NEW + "traffic-type": "http"},
        {NEW + "scheme": "https", NEW + "traffic-type": "tcp"},
        {NEW + "scheme": "https", OLD + "traffic-type": "tcp"},
        {NEW + "scheme": "https", NEW + "traffic-type": "tcp", "svc.mesh/protocol.80": "tcp"},
        {NEW + "scheme": "http", NEW + "traffic-type": "sctp"},
    ],
)
def test_what_is_understood_is_meshed(written: dict[str, str]) -> None:
    """With tcp the bytes are the client's, encrypted or not, in Traefik Mesh as here."""
    assert translate(written).annotations["svc.mesh/enabled"] == "true"


@pytest.mark.parametrize("value", [443, True, None, ["https"]])
def test_a_scheme_that_is_no_string_is_not_understood(value: object) -> None:
    document = service({NEW + "scheme": value, NEW + "retry-attempts": "2"})
    found, problems = read_object(document, "x:1", "traefik-mesh")
    assert isinstance(found, ServiceObject)
    assert not found.meshed
    assert {problem.field for problem in problems} == {NEW + "scheme"}
    assert "the Service is not meshed" in {problem.effect for problem in problems}
