"""Which names a zone has: ranges off octet boundaries, and Services that cannot be named."""

from __future__ import annotations

import dns.name
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.dns.index import TYPE_A, TYPE_AAAA, TYPE_NS, TYPE_PTR, TYPE_SOA, Found, ZoneIndex
from discovery.dns.zone import Zone, ZonePort, ZoneService


def find(index: ZoneIndex, name: str) -> Found | None:
    return index.find(dns.name.from_text(name).to_digestable())


def with_services(zone: Zone, *services: ZoneService) -> Zone:
    return msgspec.structs.replace(zone, services={(s.namespace, s.name): s for s in services})


@pytest.mark.parametrize(
    ("network", "ours", "others"),
    [
        ("240.0.0.0/4", ["240.0.0.0", "247.1.2.3", "255.255.255.255"], ["239.255.255.255", "0.0.0.0"]),
        ("127.64.0.0/10", ["127.64.0.0", "127.127.255.255"], ["127.63.255.255", "127.128.0.0", "126.64.0.1"]),
        ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255"], ["11.0.0.0"]),
        ("10.1.2.128/25", ["10.1.2.128", "10.1.2.255"], ["10.1.2.127", "10.1.3.128"]),
        ("10.1.2.3/32", ["10.1.2.3"], ["10.1.2.2", "10.1.2.4"]),
        ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], []),
    ],
)
def test_authority_is_exactly_the_range(zone: Zone, network: str, ours: list[str], others: list[str]) -> None:
    services = [ZoneService("default", f"s{n}", address) for n, address in enumerate(ours)]
    index = ZoneIndex(msgspec.structs.replace(with_services(zone, *services), network=network))
    for number, address in enumerate(ours):
        found = find(
            index, dns.name.from_text(".".join(reversed(address.split(".")))).to_text() + "in-addr.arpa."
        )
        assert found is not None
        assert found.records is not None
        assert found.records[TYPE_PTR] == dns.name.from_text(f"s{number}.default.svc.mesh").to_wire()
    for address in others:
        assert find(index, ".".join(reversed(address.split("."))) + ".in-addr.arpa") is None


def test_reverse_apex_of_one_address_has_all_three(zone: Zone) -> None:
    service = ZoneService("default", "a", "10.1.2.3")
    index = ZoneIndex(msgspec.structs.replace(with_services(zone, service), network="10.1.2.3/32"))
    found = find(index, "3.2.1.10.in-addr.arpa")
    assert found is not None
    assert set(found.records or ()) == {TYPE_PTR, TYPE_SOA, TYPE_NS}


def test_address_outside_the_range_has_a_name_but_no_pointer(zone: Zone) -> None:
    index = ZoneIndex(with_services(zone, ZoneService("default", "a", "10.0.0.1")))
    found = find(index, "a.default.svc.mesh")
    assert found is not None
    assert found.records == {TYPE_A: bytes((10, 0, 0, 1))}
    assert find(index, "1.0.0.10.in-addr.arpa") is None


def test_of_two_services_with_one_address_the_first_is_pointed_to(zone: Zone) -> None:
    two = [ZoneService("b", "x", "250.0.0.1"), ZoneService("a", "y", "250.0.0.1")]
    for services in (two, two[::-1]):
        found = find(ZoneIndex(with_services(zone, *services)), "1.0.0.250.in-addr.arpa")
        assert found is not None
        assert found.records == {TYPE_PTR: dns.name.from_text("y.a.svc.mesh").to_wire()}


@pytest.mark.parametrize(
    "bad",
    [
        ZoneService("dns", "ns", "250.0.0.9"),
        ZoneService("default", "a" * 64, "250.0.0.9"),
        ZoneService("default", "", "250.0.0.9"),
        ZoneService("default", "é", "250.0.0.9"),
        ZoneService("default", "b", "fd00::1"),
        ZoneService("default", "b", "nonsense"),
    ],
)
def test_service_without_a_possible_name_harms_no_other(zone: Zone, bad: ZoneService) -> None:
    good = ZoneService("default", "whoami", "250.96.0.10")
    index = ZoneIndex(with_services(zone, good, bad))
    assert index.unusable == (f"{bad.namespace}/{bad.name}",)
    found = find(index, "whoami.default.svc.mesh")
    assert found is not None
    assert found.records == {TYPE_A: bytes((250, 96, 0, 10))}
    reverse = find(index, "9.0.0.250.in-addr.arpa")
    assert reverse is not None
    assert reverse.records is None


def test_name_that_does_not_fit_below_a_long_alias_is_unusable(zone: Zone) -> None:
    alias = ".".join("z" * 60 for _ in range(3))
    service = ZoneService("n" * 40, "s" * 40, "250.0.0.1")
    index = ZoneIndex(msgspec.structs.replace(with_services(zone, service), aliases=(alias,)))
    assert index.unusable == (f"{service.namespace}/{service.name}",)


def test_nameserver_of_ipv6_has_an_aaaa(zone: Zone) -> None:
    index = ZoneIndex(msgspec.structs.replace(zone, nameserver="::1"))
    found = find(index, "ns.dns.svc.mesh")
    assert found is not None
    assert found.records == {TYPE_AAAA: bytes(15) + b"\1"}


@pytest.mark.parametrize(
    "change", [{"nameserver": "x"}, {"network": "x"}, {"origin": ".".join(["z" * 61] * 4)}]
)
def test_impossible_zone(zone: Zone, change: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        ZoneIndex(msgspec.structs.replace(zone, **change))


def test_alias_below_the_origin_wins(zone: Zone) -> None:
    index = ZoneIndex(msgspec.structs.replace(zone, aliases=("default.svc.mesh",)))
    found = find(index, "whoami.default.default.svc.mesh")
    assert found is not None
    assert found.records == {TYPE_A: bytes((250, 96, 0, 10))}


hosts = st.builds(
    ZoneService,
    st.sampled_from(["a", "b", "dns", "é"]),
    st.sampled_from(["x", "y", "ns"]),
    st.sampled_from(["250.0.0.1", "250.0.0.2", "250.1.0.1", "240.0.0.53", "10.0.0.1", "nonsense"]),
    st.sampled_from([(), (ZonePort("http", "tcp", 80),)]),
)
zones = st.lists(hosts, max_size=5)
SERVICES = [f"{name}.{namespace}.svc.mesh" for name in ("x", "y", "ns") for namespace in ("a", "b", "dns")]
OCTETS = ("1.0.0.", "2.0.0.", "1.0.1.", "0.0.", "0.1.", "0.", "1.", "")
ASKED = [
    *(prefix + name for prefix in ("", "_tcp.", "_http._tcp.") for name in SERVICES),
    *("svc.mesh", "a.svc.mesh", "b.svc.mesh", "dns.svc.mesh", "x.a.mesh.local"),
    *(octets + "250.in-addr.arpa" for octets in OCTETS),
    *("53.0.0.240.in-addr.arpa", "1.0.0.10.in-addr.arpa"),
]


@given(st.lists(zones, min_size=1, max_size=5))
def test_an_updated_index_is_that_of_the_new_zone(history: list[list[ZoneService]]) -> None:
    zone = Zone("svc.mesh", ("mesh.local",), 1, "240.0.0.0/4", "240.0.0.53", {})
    index = ZoneIndex(zone)
    for services in history:
        old, was = zone, index
        said = [was.find(dns.name.from_text(name).to_digestable()) for name in ASKED]
        zone = msgspec.structs.replace(with_services(zone, *services), serial=zone.serial + 1)
        keys = old.services.keys() | zone.services.keys()
        changed = {key for key in keys if old.services.get(key) != zone.services.get(key)}
        index, fresh = was.updated(zone, changed), ZoneIndex(zone)
        for name in ASKED:
            assert find(index, name) == find(fresh, name), name
        assert [find(was, name) for name in ASKED] == said, "the one before is what it was"
        assert set(index.unusable) == {name for name in fresh.unusable if tuple(name.split("/")) in changed}
