"""The mesh zone as values: which names exist and what they stand for.

Names are lower case. A Service's host name is `<name>.<namespace>.<zone>`; its named ports are
`_<port>._<tcp|udp>.<name>.<namespace>.<zone>` as in RFC 2782 and Kubernetes' DNS specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec


class ZonePort(msgspec.Struct, frozen=True):
    """A named port of a Service, for SRV."""

    name: str
    transport: Literal["tcp", "udp"]
    port: int


class ZoneService(msgspec.Struct, frozen=True):
    """A Service in the zone: its one mesh address (IPv4) and its named ports."""

    namespace: str
    name: str
    address: str
    ports: tuple[ZonePort, ...] = ()


class Zone(msgspec.Struct, frozen=True):
    """All that DNS answers from.

    `serial` grows with every change of `services`; `network` is the mesh range (CIDR), below which PTR is
    ours; `nameserver` is the address that NS and SOA name.
    """

    origin: str
    aliases: tuple[str, ...]
    serial: int
    network: str
    nameserver: str
    services: Mapping[tuple[str, str], ZoneService]
    """By (namespace, name)."""
