"""`127.0.0.1:8080,127.0.0.1:8081`: the endpoints of a port as its owner writes them by hand. Pure."""

from __future__ import annotations

from discovery.address import canonical_address, is_unicast
from discovery.bounds import shorten
from discovery.model import Endpoint

MAX_PLACES = 100
EXAMPLE = "ADDR:PORT, such as 127.0.0.1:8080; several are separated by commas"


class InvalidPlaces(ValueError):
    """The text cannot be used: what is wrong, and what would be right."""

    def __init__(self, reason: str, expected: str = EXAMPLE) -> None:
        super().__init__(f"{reason}; expected {expected}")
        self.reason = reason
        self.expected = expected


def parse_places(text: str) -> tuple[Endpoint, ...]:
    """Read `ADDR:PORT` one or several times, with commas between, as ready endpoints.

    Raises:
        InvalidPlaces: any of them cannot be used, or stands twice.
    """
    if not text.strip():
        raise InvalidPlaces("is empty")
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MAX_PLACES:
        raise InvalidPlaces(f"names {len(parts)} endpoints", f"at most {MAX_PLACES}, or an EndpointSlice")
    found: dict[Endpoint, None] = {}
    for part in parts:
        endpoint = _parse_place(part)
        if endpoint in found:
            raise InvalidPlaces(f"names {endpoint} twice", "each endpoint once")
        found[endpoint] = None
    return tuple(found)


def _parse_place(text: str) -> Endpoint:
    if not text:
        raise InvalidPlaces("has nothing before, between or behind commas")
    shown = shorten(text, 80)
    if canonical_address(text.strip("[]"), "IPv6") or text.startswith("["):
        raise InvalidPlaces(f"names the IPv6 address {shown!r}, and the mesh carries IPv4 only")
    host, colon, port = text.rpartition(":")
    if not colon:
        raise InvalidPlaces(f"{shown!r} has no port")
    address = canonical_address(host, "IPv4")
    if address is None:
        if host and not host.replace(".", "").isdecimal():
            raise InvalidPlaces(f"{shorten(host, 80)!r} is a name, and only IPv4 addresses are read")
        raise InvalidPlaces(f"{shorten(host, 80)!r} is not an IPv4 address")
    if not is_unicast(address):
        raise InvalidPlaces(f"{address} is not the address of one host")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise InvalidPlaces(f"{shorten(port, 80)!r} is not a port from 1 to 65535")
    return Endpoint(address, int(port))
