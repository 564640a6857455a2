"""Which Service each address of the mesh range points back to."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Network
from socket import inet_ntoa

Key = tuple[str, str]
"""Namespace and name."""


class ReverseNames:
    """Services by address, for those addresses that are in `network`."""

    def __init__(self, network: IPv4Network) -> None:
        self._mask = int(network.netmask)
        self._network = int(network.network_address)
        self._keys: dict[str, tuple[Key, ...]] = {}
        """By address as text, each in order: of several Services with one address the first has it."""
        self._parents: Counter[tuple[str, ...]] = Counter()
        """The first one, two and three octets of all addresses, with their numbers."""

    def copy(self) -> ReverseNames:
        """Return another one, equal and independent."""
        other = ReverseNames.__new__(ReverseNames)
        other._mask, other._network = self._mask, self._network
        other._keys, other._parents = self._keys.copy(), self._parents.copy()
        return other

    def add(self, key: Key, packed: bytes) -> None:
        """Let an address (4 bytes) point to one more Service."""
        if int.from_bytes(packed) & self._mask != self._network:
            return
        address = inet_ntoa(packed)
        known = self._keys.get(address)
        self._keys[address] = (key,) if known is None else tuple(sorted((*known, key)))
        if known is None:
            self._parents.update(_parents(address))

    def remove(self, key: Key, packed: bytes) -> None:
        """Remove a Service from an address that it was added for."""
        address = inet_ntoa(packed)
        known = self._keys.get(address)
        if known is None:
            return
        if left := tuple(other for other in known if other != key):
            self._keys[address] = left
            return
        del self._keys[address]
        for octets in _parents(address):
            self._parents[octets] -= 1
            if not self._parents[octets]:
                del self._parents[octets]

    def find(self, address: str) -> Key | None:
        """Return the Service that an address points to."""
        keys = self._keys.get(address)
        return keys[0] if keys else None

    def has_below(self, octets: tuple[str, ...]) -> bool:
        """Whether an address that points to a Service begins with these octets, of which there are 1 to 3."""
        return octets in self._parents


def _parents(address: str) -> tuple[tuple[str, ...], ...]:
    octets = tuple(address.split("."))
    return octets[:1], octets[:2], octets[:3]
