"""Mesh addresses: computed from what the cluster says, the same on every node, without any state.

A Service with an IPv4 ClusterIP has the mesh range's prefix followed by the low bits of that ClusterIP:
`10.96.0.10` is `250.96.0.10` in `240.0.0.0/4` and `127.96.0.10` in `127.64.0.0/10`. Every other Service
(headless, IPv6 only, ExternalName, a file without `clusterIP`) has a hash of its namespace and name in the
fifteenth sixteenth of the range: `254.0.0.0/8` and `127.120.0.0/14`. No usual Service range maps into it. A
ClusterIP that does, or into the mesh's own first /24, or to the range's last address, is hashed as well.

So the two kinds never meet. Two Services with the same ClusterIP: the first by namespace and name keeps the
address, the other has none. Two with the same hash: the first keeps it, the others take the next free ones,
in the order of their names.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import socket
from collections.abc import Iterable, Mapping

import msgspec

from discovery.model import ServiceKey

RESERVED = 256
"""The first addresses of a range are the mesh's own: its workers, its DNS."""

LONGEST_PREFIX = 16
"""A mesh range has at least 2**16 addresses, so that there is room for what is hashed."""

_SHARES = 16
_HASHED_SHARE = 14


class Claim(msgspec.Struct, frozen=True):
    """The address that a Service asks for. If it is not the one of its ClusterIP, `obstacle` says why."""

    address: str
    obstacle: str = ""


class Grant(msgspec.Struct, frozen=True):
    """What a Service gets if another one has the address that it claims; `address` is empty if it gets
    none.
    """

    address: str
    holder: ServiceKey


def parse_ipv4(text: str) -> int | None:
    """Return an IPv4 address as a number, None for anything else (IPv6, a host name)."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")
    except (OSError, ValueError):
        return None


def format_ipv4(number: int) -> str:
    """Return the dotted form of an IPv4 address given as a number."""
    return socket.inet_ntoa(number.to_bytes(4, "big"))


class AddressRange:
    """One mesh range (an IPv4 CIDR) and the rule that assigns its addresses. Holds no state."""

    def __init__(self, cidr: str) -> None:
        network = ipaddress.IPv4Network(cidr)
        self._mask = int(network.netmask)
        self._base = int(network.network_address)
        self._last = int(network.broadcast_address)
        self._hashed_size = network.num_addresses // _SHARES
        self._hashed_base = self._base + _HASHED_SHARE * self._hashed_size

    @property
    def hashed(self) -> ipaddress.IPv4Network:
        """The part of the range for Services without a ClusterIP that can be mapped."""
        return ipaddress.IPv4Network((self._hashed_base, 33 - self._hashed_size.bit_length()))

    def contains(self, number: int) -> bool:
        """Return whether an address lies in the range."""
        return number & self._mask == self._base

    def is_reserved(self, number: int) -> bool:
        """Return whether an address is the mesh's own: in the first /24 of the range."""
        return self._base <= number < self._base + RESERVED

    def claim(self, key: ServiceKey, cluster_ips: Iterable[str]) -> Claim:
        """Return the address that a Service asks for."""
        for text in cluster_ips:
            cluster_ip = parse_ipv4(text)
            if cluster_ip is None:
                continue
            mapped = self._base | (cluster_ip & ~self._mask)
            obstacle = self._obstacle(mapped)
            if not obstacle:
                return Claim(format_ipv4(mapped))
            return Claim(format_ipv4(self._hash(key)), f"maps to {format_ipv4(mapped)}, {obstacle}")
        return Claim(format_ipv4(self._hash(key)))

    def settle(self, claims: Mapping[ServiceKey, str]) -> dict[ServiceKey, Grant]:
        """Return what those Services get whose claim is held by another; all others get their claim.

        Does not depend on the order of the mapping. Empty claims are passed over.
        """
        holders: dict[str, ServiceKey] = {}
        rivals: dict[str, list[ServiceKey]] = {}
        for key, claim in claims.items():
            holder = holders.setdefault(claim, key)
            if holder is not key and claim:
                rivals.setdefault(claim, [holder]).append(key)
        grants: dict[ServiceKey, Grant] = {}
        losers = sorted((key, claim) for claim, keys in rivals.items() for key in sorted(keys)[1:])
        for key, claim in losers:
            address = self._next_free(claim, holders, key)
            grants[key] = Grant(address, min(rivals[claim]))
        return grants

    def _obstacle(self, mapped: int) -> str:
        if self.is_reserved(mapped):
            return "which is the mesh's own"
        if self._hashed_base <= mapped < self._hashed_base + self._hashed_size:
            return "which is kept for Services without a ClusterIP"
        if mapped == self._last:
            return "which is a broadcast address"
        return ""

    def _hash(self, key: ServiceKey) -> int:
        digest = hashlib.blake2b(f"{key.namespace}/{key.name}".encode(), digest_size=8).digest()
        return self._hashed_base + int.from_bytes(digest, "big") % self._hashed_size

    def _next_free(self, claim: str, taken: dict[str, ServiceKey], key: ServiceKey) -> str:
        """Take the next free hashed address after `claim`; empty if `claim` is not a hashed address, or all
        are taken.
        """
        number = parse_ipv4(claim)
        assert number is not None
        slot = number - self._hashed_base
        if not 0 <= slot < self._hashed_size:
            return ""
        for step in range(1, self._hashed_size):
            address = format_ipv4(self._hashed_base + (slot + step) % self._hashed_size)
            if address not in taken:
                taken[address] = key
                return address
        return ""


@functools.lru_cache(maxsize=4)
def address_range(cidr: str) -> AddressRange:
    """Return the rule for a mesh range.

    Raises:
        ValueError: not an IPv4 network in CIDR form.
    """
    return AddressRange(cidr)
