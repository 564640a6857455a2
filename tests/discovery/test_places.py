"""Endpoints as people write them: what is read, and what is said of everything else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.places import MAX_PLACES, InvalidPlaces, parse_places


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("127.0.0.1:8080", ["127.0.0.1:8080"]),
        (" 127.0.0.1:1 ,\t10.0.0.9:65535 ", ["127.0.0.1:1", "10.0.0.9:65535"]),
        ("10.0.0.9:80,10.0.0.8:80", ["10.0.0.9:80", "10.0.0.8:80"]),
        (",".join(f"10.0.0.{n}:80" for n in range(MAX_PLACES)), None),
    ],
)
def test_what_is_read(text: str, places: list[str] | None) -> None:
    found = parse_places(text)
    assert all(endpoint.ready and endpoint.serving for endpoint in found)
    assert [str(endpoint) for endpoint in found] == (places or text.split(","))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (" \t", "is empty"),
        (",", "has nothing before, between or behind commas"),
        ("127.0.0.1:80,", "has nothing before, between or behind commas"),
        ("127.0.0.1:80,,127.0.0.1:81", "has nothing before, between or behind commas"),
        ("127.0.0.1", "'127.0.0.1' has no port"),
        ("8080", "'8080' has no port"),
        (":8080", "'' is not an IPv4 address"),
        ("127.0.0.1:", "'' is not a port from 1 to 65535"),
        ("127.0.0.1:0", "'0' is not a port from 1 to 65535"),
        ("127.0.0.1:65536", "'65536' is not a port from 1 to 65535"),
        ("127.0.0.1:-1", "'-1' is not a port from 1 to 65535"),
        ("127.0.0.1:8 0", "'8 0' is not a port from 1 to 65535"),
        ("127.0.0.1:٨٠", "'٨٠' is not a port from 1 to 65535"),
        ("127.0.0.1:http", "'http' is not a port from 1 to 65535"),
        ("127.0.0.1:" + "9" * 99, f"'{'9' * 79}…' is not a port from 1 to 65535"),
        ("127.1:80", "'127.1' is not an IPv4 address"),
        ("127.0.0.256:80", "'127.0.0.256' is not an IPv4 address"),
        ("localhost:80", "'localhost' is a name, and only IPv4 addresses are read"),
        ("http://127.0.0.1:80", "'http://127.0.0.1' is a name, and only IPv4 addresses are read"),
        ("::1", "names the IPv6 address '::1', and the mesh carries IPv4 only"),
        ("[::1]:80", "names the IPv6 address '[::1]:80', and the mesh carries IPv4 only"),
        ("fd00::1:80", "names the IPv6 address 'fd00::1:80', and the mesh carries IPv4 only"),
        ("0.0.0.0:80", "0.0.0.0 is not the address of one host"),
        ("224.0.0.1:80", "224.0.0.1 is not the address of one host"),
        ("127.0.0.1:80 127.0.0.1:81", "'127.0.0.1:80 127.0.0.1' is a name, and only IPv4 addresses are read"),
        ("127.0.0.1:80,127.0.0.1:80", "names 127.0.0.1:80 twice"),
        ("127.0.0.1:80," * 100 + "127.0.0.1:80", "names 101 endpoints"),
    ],
)
def test_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(InvalidPlaces) as caught:
        parse_places(text)
    assert caught.value.reason == reason
    assert caught.value.expected


@settings(deadline=None)
@given(st.text(alphabet="0123456789.:,[]- xé\0", max_size=60))
def test_anything_is_read_or_refused(text: str) -> None:
    """Whatever is written: endpoints that can be connected to, each once, or a refusal."""
    with contextlib.suppress(InvalidPlaces):
        found = parse_places(text)
        assert found
        assert len(set(found)) == len(found)
        assert all(1 <= one.port <= 65535 for one in found)
