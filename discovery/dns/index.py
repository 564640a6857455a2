"""Finds a name in the mesh zone: the same names below its origin and every alias, and the mesh range's PTRs.

A `ZoneIndex` belongs to one `Zone`; that of the next is made from it at the cost of what changed. Forward
names are resolved by their structure, so that an alias costs nothing. Names are in wire form and lower case.
Every name here has at most one record of a type.
"""

from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from socket import AF_INET, inet_pton

import msgspec
from dns.name import from_text
from dns.rdatatype import RdataType

from discovery.dns.query import MAX_LABEL, MAX_NAME
from discovery.dns.reverse import Key, ReverseNames
from discovery.dns.zone import Zone, ZonePort, ZoneService

NEGATIVE_TTL = 5
"""Seconds that a resolver may remember that a name does not exist: as short as for a record, so that a
Service that was just annotated is not hidden for longer than a removed one is remembered."""

NAMESERVER_LABELS = ("ns", "dns")
"""`ns.dns.<zone>`, as CoreDNS names it. Reserved: a Service of this name cannot be resolved; otherwise
anybody who may create one could take over the zone."""

# Plain ints: comparing and packing enumerations costs more than the rest of a look-up.
TYPE_A, TYPE_AAAA, TYPE_NS = int(RdataType.A), int(RdataType.AAAA), int(RdataType.NS)
TYPE_PTR, TYPE_SOA, TYPE_SRV = int(RdataType.PTR), int(RdataType.SOA), int(RdataType.SRV)

_ARPA = from_text("in-addr.arpa.").to_digestable()
_SOA = struct.Struct("!IIIII")
_SRV = struct.Struct("!HHH")
_NO_RECORDS: Mapping[int, bytes] = {}


class Apex(msgspec.Struct, frozen=True):
    """The top of a zone of ours: its name in wire form, and the RDATA of its SOA and NS."""

    wire: bytes
    soa: bytes
    ns: bytes
    octets: tuple[str, ...] | None = None
    """Of a reverse zone, the leading octets that its name stands for."""


class Glue(msgspec.Struct, frozen=True):
    """An address for the additional section; its owner is `prefix`, then the asked name from `offset`."""

    prefix: bytes
    offset: int
    rtype: int
    rdata: bytes


class Found(msgspec.Struct, frozen=True):
    """What a name below an apex stands for."""

    apex: Apex
    apex_offset: int
    """Where in the name the apex begins."""
    records: Mapping[int, bytes] | None
    """RDATA by type; empty for an empty non-terminal, None if the name does not exist."""
    glue: Glue | None = None


class ZoneIndex:
    """A `Zone`, prepared for look-ups.

    `unusable` names the Services (namespace/name) that are left out: no DNS name or address can be made of
    them, or theirs is reserved.

    Raises:
        ValueError: the network or the nameserver is not an address, or a zone's name is too long.
        dns.exception.DNSException: the origin or an alias is not a domain name.
    """

    def __init__(self, zone: Zone) -> None:
        origin = _domain(zone.origin)
        nameserver = ipaddress.ip_address(zone.nameserver)
        network = ipaddress.IPv4Network(zone.network)
        apexes = [_apex(name, name, zone.serial) for name in map(_domain, (zone.origin, *zone.aliases))]
        # The longest name of a Service must fit below the longest zone.
        room = MAX_NAME - max(len(apex.wire) for apex in apexes)
        for octets in _reverse_octets(network):
            name = _wire_labels(*reversed(octets)) + _ARPA
            apexes.append(_apex(name, origin, zone.serial, octets))
        self._apexes = {apex.wire: apex for apex in apexes}
        self._origin = origin
        self._nameserver = (TYPE_A if nameserver.version == 4 else TYPE_AAAA, nameserver.packed)
        self._room = room
        self._reverse = ReverseNames(network)
        if nameserver.version == 4:
            self._reverse.add((NAMESERVER_LABELS[1], NAMESERVER_LABELS[0]), nameserver.packed)
        self._services: dict[Key, ZoneService] = {}
        self._addresses: dict[Key, bytes] = {}
        self._namespaces: Counter[str] = Counter((NAMESERVER_LABELS[1],))
        self.unusable = self._follow(zone, zone.services)

    def updated(self, zone: Zone, changed: Iterable[Key]) -> ZoneIndex:
        """Return the index of a zone that differs in its serial and these Services alone.

        It costs what changed; `unusable` names those among the changed only.
        """
        other = copy(self)
        other._apexes = {
            wire: _apex(wire, self._origin if apex.octets is not None else wire, zone.serial, apex.octets)
            for wire, apex in self._apexes.items()
        }
        other._services, other._addresses = self._services.copy(), self._addresses.copy()
        other._namespaces, other._reverse = self._namespaces.copy(), self._reverse.copy()
        other.unusable = other._follow(zone, changed)
        return other

    def _follow(self, zone: Zone, changed: Iterable[Key]) -> tuple[str, ...]:
        """Update the index for these Services; return those that are unusable."""
        unusable = []
        for key in sorted(changed):
            self._forget(key)
            service = zone.services.get(key)
            if service is None:
                continue
            packed = _usable_address(service, self._room)
            if packed is None:
                unusable.append(f"{key[0]}/{key[1]}")
                continue
            self._services[key], self._addresses[key] = service, packed
            self._namespaces[key[0]] += 1
            self._reverse.add(key, packed)
        return tuple(unusable)

    def _forget(self, key: Key) -> None:
        if self._services.pop(key, None) is None:
            return
        self._reverse.remove(key, self._addresses.pop(key))
        self._namespaces[key[0]] -= 1
        if not self._namespaces[key[0]]:
            del self._namespaces[key[0]]

    def find(self, name: bytes) -> Found | None:
        """Look a lower-case wire name up; None if it is below none of the zones."""
        labels: list[str] = []
        offset = 0
        while (apex := self._apexes.get(name[offset:])) is None:
            length = name[offset]
            if length == 0:
                return None
            start, offset = offset + 1, offset + 1 + length
            labels.append(name[start:offset].decode("latin-1"))
        if apex.octets is not None:
            return Found(apex, offset, self._find_reverse(apex, (*apex.octets, *reversed(labels))))
        return self._find_forward(apex, offset, labels)

    def _find_forward(self, apex: Apex, offset: int, labels: list[str]) -> Found:
        records: Mapping[int, bytes] | None = None
        match labels:
            case []:
                glue = Glue(_wire_labels(*NAMESERVER_LABELS), offset, *self._nameserver)
                return Found(apex, offset, {TYPE_SOA: apex.soa, TYPE_NS: apex.ns}, glue)
            case [namespace]:
                records = _NO_RECORDS if namespace in self._namespaces else None
            case [name, namespace]:
                records = self._find_host(name, namespace)
            case [transport, name, namespace]:
                ports = self._ports(namespace, name)
                records = _NO_RECORDS if any(transport == f"_{p.transport}" for p in ports) else None
            case [port_name, transport, name, namespace]:
                for port in self._ports(namespace, name):
                    if (port_name, transport) == (f"_{port.name}", f"_{port.transport}"):
                        return self._found_port(apex, offset, port, (name, namespace))
        return Found(apex, offset, records)

    def _find_host(self, name: str, namespace: str) -> Mapping[int, bytes] | None:
        if (name, namespace) == NAMESERVER_LABELS:
            return dict((self._nameserver,))
        packed = self._addresses.get((namespace, name))
        return None if packed is None else {TYPE_A: packed}

    def _ports(self, namespace: str, name: str) -> Iterator[ZonePort]:
        service = self._services.get((namespace, name))
        if service is not None:
            yield from (port for port in service.ports if port.name)

    def _found_port(self, apex: Apex, offset: int, port: ZonePort, host: tuple[str, str]) -> Found:
        labels = _wire_labels(*host)
        # The target is not compressed (RFC 2782).
        srv = _SRV.pack(0, 100, port.port) + labels + apex.wire
        glue = Glue(b"", offset - len(labels), TYPE_A, self._addresses[host[1], host[0]])
        return Found(apex, offset, {TYPE_SRV: srv}, glue)

    def _find_reverse(self, apex: Apex, octets: tuple[str, ...]) -> Mapping[int, bytes] | None:
        records = {TYPE_SOA: apex.soa, TYPE_NS: apex.ns} if octets == apex.octets else {}
        if len(octets) == 4:
            address = ".".join(octets)
            if (key := self._reverse.find(address)) is not None:
                records[TYPE_PTR] = _wire_labels(key[1], key[0]) + self._origin
        return records if records or self._reverse.has_below(octets) else None


def _domain(text: str) -> bytes:
    wire = from_text(text).to_digestable()
    if len(wire) > MAX_NAME - len(_HOSTMASTER):
        raise ValueError(f"zone {text}: too long for names below it")
    return wire


def _apex(name: bytes, origin: bytes, serial: int, octets: tuple[str, ...] | None = None) -> Apex:
    """Return the apex `name`, whose nameserver is that of the forward zone `origin`."""
    server = _wire_labels(*NAMESERVER_LABELS) + origin
    # There are no transfers, so nothing acts upon refresh, retry and expire.
    times = _SOA.pack(serial & 0xFFFFFFFF, 7200, 1800, 86400, NEGATIVE_TTL)
    return Apex(wire=name, soa=server + _HOSTMASTER + origin + times, ns=server, octets=octets)


def _reverse_octets(network: ipaddress.IPv4Network) -> Iterator[tuple[str, ...]]:
    """Yield the whole-octet prefixes that make up `network`: at most 128, as zones are cut at octets only."""
    length = -(-network.prefixlen // 8)
    for subnet in network.subnets(new_prefix=length * 8):
        yield tuple(str(subnet.network_address).split(".")[:length])


def _usable_address(service: ZoneService, room: int) -> bytes | None:
    labels = (service.name, service.namespace)
    fits = all(label.isascii() and 1 <= len(label) <= MAX_LABEL for label in labels)
    if labels == NAMESERVER_LABELS or not fits or len(_wire_labels(*labels)) > room:
        return None
    try:
        return inet_pton(AF_INET, service.address)
    except (OSError, ValueError):
        return None


def _wire_labels(*labels: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in labels)


_HOSTMASTER = _wire_labels("hostmaster")
