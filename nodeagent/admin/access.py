"""Who may read which page of the admin server. Pure.

The pages in `OPEN` are for everybody who reaches the address: probes and Prometheus ask from elsewhere. Every
other page, also one that is added later, is answered on this machine only: to a connection from a loopback
address to a loopback address. People come there by port forwarding through the API server, which checks who
they are and what they may do, so the agent needs no right to check it itself, and sees nobody's token.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final

import msgspec

LOOPBACK: Final = "127.0.0.1"
"""Where port forwarding of every container runtime arrives."""

OPEN: Final = frozenset({"/", "/healthz", "/readyz", "/metrics"})
"""Pages for everybody; `/` only lists the pages."""

FORWARDED_FIELDS: Final = ("Forwarded", "X-Forwarded-For", "Via")
"""Fields by which another server says that it passes on somebody else's request."""


class Asker(msgspec.Struct, frozen=True):
    """What is known of who asks for a page."""

    peer: str
    """The address that the connection comes from."""
    local: str
    """The address that it was made to."""
    host: str
    """The Host field."""
    forwarded: bool = False
    """Whether the request has one of `FORWARDED_FIELDS`."""


def refusal(page: str, asker: Asker) -> str:
    """Return why this page is not shown; empty if it is. `page` is the path under which it is registered."""
    if page in OPEN:
        return ""
    if not (_is_loopback(asker.peer) and _is_loopback(asker.local)):
        return "it is shown on the node itself only, at a loopback address"
    if asker.forwarded:
        return "the request has a field of a proxy (Forwarded, X-Forwarded-For or Via), so somebody else asks"
    if not _names_an_address(asker.host):
        # A page of the web may give its own name this address (DNS rebinding), but it cannot change its name.
        return f"Host is {asker.host[:100]!r}; it must be localhost or an IP address"
    return ""


def advice(port: int) -> str:
    """Return how to read a page that was refused."""
    return (
        "From elsewhere, meshctl reads it through the API server (port forwarding), and so does "
        f"`kubectl port-forward POD {port}`: both need `get` and `create` on pods/portforward in the agents' "
        "namespace. See docs/security.md#the-admin-page"
    )


def wants_loopback(host: str) -> bool:
    """Return whether listening at `host` leaves port forwarding without an answer at `LOOPBACK`."""
    return host != "0.0.0.0" and not (_is_loopback(host) and ":" not in host)


def _is_loopback(text: str) -> bool:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _names_an_address(host: str) -> bool:
    """Return whether a Host field, with or without a port, is `localhost` or an IP address."""
    name, colon, port = host.rpartition(":")
    if not (colon and port.isascii() and port.isdigit()) or (":" in name and not name.endswith("]")):
        name = host
    if name.lower() == "localhost":
        return True
    try:
        ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True
