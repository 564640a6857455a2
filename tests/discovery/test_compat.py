"""Annotations of Traefik Mesh in ours: what each option becomes, what goes first, what has no equivalent."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.compat import (
    CIRCUIT_BREAKER,
    MOST_RETRIES,
    OPTIONS,
    PREFIXES,
    RATE_LIMIT,
    RETRY_ATTEMPTS,
    translate,
)
from discovery.manifest import read_object
from discovery.model import ServiceObject
from middleware import circuit_breaker, rate_limit, retry
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
        ({"scheme": "h2c"}, {"protocol": "tcp"}),
        ({"scheme": "h2c", "traffic-type": "http"}, {"protocol": "tcp"}),
        ({"scheme": "https", "traffic-type": "tcp"}, {"protocol": "tcp"}),
        ({"scheme": "gopher"}, {}),
        ({"retry-attempts": "1"}, {"retry-attempts": "0"}),
        ({"retry-attempts": "3"}, {"retry-attempts": "2"}),
        ({"retry-attempts": "+3"}, {"retry-attempts": "2"}),
        ({"retry-attempts": "12"}, {"retry-attempts": "10"}),
        ({"retry-attempts": "0"}, {}),
        ({"retry-attempts": "-1"}, {}),
        ({"retry-attempts": "many"}, {"retry-attempts": "many"}),
        ({"circuit-breaker-expression": "x"}, {"circuit-breaker": "x"}),
        (
            {"ratelimit-average": "100", "ratelimit-burst": "50"},
            {"rate-limit": "100/s burst=50 per=source"},
        ),
        (
            {"ratelimit-average": "0100", "ratelimit-burst": "+50"},
            {"rate-limit": "100/s burst=50 per=source"},
        ),
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
    assert found.became == {
        OLD + "retry-attempts": "svc.mesh/retry-attempts",
        OLD + "traffic-type": "",
        NEW + "traffic-type": "svc.mesh/protocol",
    }


def test_our_own_go_before_both() -> None:
    found = translate({NEW + "traffic-type": "tcp", "svc.mesh/protocol": "http"})
    assert found.annotations["svc.mesh/protocol"] == "http"
    assert found.became == {NEW + "traffic-type": ""}
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
        ({"scheme": "h2c"}, "info", "HTTP/2 is passed through as tcp"),
        ({"scheme": "gopher"}, "error", "is not a scheme"),
        ({"retry-attempts": "0"}, "error", "counts all tries"),
        ({"retry-attempts": "12"}, "info", "more than the 11 tries"),
        ({"ratelimit-burst": "5"}, "info", "without ratelimit-average"),
        ({"colour": "blue"}, "info", "is no option"),
    ],
)
def test_notes(foreign: Mapping[str, str], severity: str, reason: str) -> None:
    (note,) = translate({NEW + name: value for name, value in foreign.items()}).notes
    assert note.severity == severity
    assert reason in note.reason


def test_names_and_bounds_are_those_of_the_middleware() -> None:
    assert (RETRY_ATTEMPTS, CIRCUIT_BREAKER, RATE_LIMIT) == (
        retry.RETRY_ATTEMPTS,
        circuit_breaker.CIRCUIT_BREAKER,
        rate_limit.RATE_LIMIT,
    )
    assert MOST_RETRIES == retry.MOST_ATTEMPTS


NAMES = st.sampled_from(
    [prefix + option.name for prefix in PREFIXES for option in OPTIONS]
    + [NEW, OLD + "x", "svc.mesh/enabled", "svc.mesh/protocol", "example.com/a"]
)
VALUES = st.text(max_size=30) | st.sampled_from(
    ["true", "false", "http", "tcp", "udp", "https", "h2c", "0", "1", "99", "9" * 30, " 3 ", "-1"]
)


@given(st.dictionaries(NAMES, VALUES))
def test_anything_is_translated(annotations: dict[str, str]) -> None:
    """Never raises, gives only our own annotations, keeps what was ours, accounts for all foreign ones."""
    found = translate(annotations)
    own = {name: value for name, value in annotations.items() if name.startswith("svc.mesh/")}
    assert all(name.startswith("svc.mesh/") for name in found.annotations)
    assert own.items() <= found.annotations.items()
    assert set(found.became) == {name for name in annotations if name.startswith(PREFIXES)}
    assert all(name in found.annotations for name in found.became.values() if name)


def is_atoi(text: str) -> bool:
    digits = text.strip().removeprefix("+")
    return digits.isascii() and digits.isdigit() and int(digits) >= 1


@given(VALUES, VALUES)
def test_what_traefik_mesh_refuses_is_refused(first: str, second: str) -> None:
    """A value is passed on only where our own parser refuses it: it never means something else here."""
    limited = ours({"ratelimit-average": first, "ratelimit-burst": second})
    if not (is_atoi(first) and is_atoi(second)):
        assert isinstance(rate_limit.parse({RATE_LIMIT: limited["rate-limit"]}), Problem)
    attempts = ours({"retry-attempts": first}).get("retry-attempts")
    if attempts is not None and not is_atoi(first):
        assert isinstance(retry.parse({RETRY_ATTEMPTS: attempts}), Problem)


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
    assert (plain.annotations, plain.translated) == ({"svc.mesh/protocol": "http"}, {})
    found, problems = read_object(document, "x:1", "traefik-mesh")
    assert isinstance(found, ServiceObject)
    assert (found.meshed, problems) == (True, ())
    assert found.annotations[RETRY_ATTEMPTS] == "1"
    assert found.written_as(RETRY_ATTEMPTS) == NEW + "retry-attempts"
    assert found.written_as("svc.mesh/protocol") == "svc.mesh/protocol"


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
