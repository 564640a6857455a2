"""A small zone that every test of DNS knows by heart."""

from __future__ import annotations

import pytest

from discovery.dns.index import ZoneIndex
from discovery.dns.zone import Zone, ZonePort, ZoneService


@pytest.fixture(scope="session")
def zone() -> Zone:
    services = (
        ZoneService(
            "default", "whoami", "250.96.0.10", (ZonePort("http", "tcp", 80), ZonePort("peers", "udp", 7946))
        ),
        ZoneService("default", "plain", "250.96.0.11", (ZonePort("", "tcp", 80),)),
        ZoneService("shop", "db", "240.1.2.3"),
    )
    return Zone(
        origin="svc.mesh",
        aliases=("mesh.Local.",),
        serial=7,
        network="240.0.0.0/4",
        nameserver="240.0.0.53",
        services={(s.namespace, s.name): s for s in services},
    )


@pytest.fixture(scope="session")
def index(zone: Zone) -> ZoneIndex:
    return ZoneIndex(zone)
