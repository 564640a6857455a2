"""Mesh addresses: a bijection where there is a ClusterIP, a stable hash where there is none."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.model import ServiceKey
from nodeagent.plan.addresses import AddressRange

KEY = ServiceKey("default", "shop")
NODE = AddressRange("240.0.0.0/4")
LAPTOP = AddressRange("127.64.0.0/10")
SMALL = AddressRange("10.200.0.0/16")


@pytest.mark.parametrize(
    ("addresses", "cluster_ip", "expected"),
    [
        (NODE, "10.96.0.10", "250.96.0.10"),
        (NODE, "172.20.1.2", "252.20.1.2"),
        (NODE, "192.168.7.8", "240.168.7.8"),
        (NODE, "34.118.224.1", "242.118.224.1"),
        (LAPTOP, "10.96.0.10", "127.96.0.10"),
        (LAPTOP, "10.43.3.4", "127.107.3.4"),
        (SMALL, "10.96.3.4", "10.200.3.4"),
    ],
)
def test_low_bits_of_the_cluster_ip(addresses: AddressRange, cluster_ip: str, expected: str) -> None:
    claim = addresses.claim(KEY, [cluster_ip])
    assert (claim.address, claim.obstacle) == (expected, "")


def test_dual_stack_uses_the_ipv4_address() -> None:
    assert NODE.claim(KEY, ["fd00::10", "10.96.0.10"]).address == "250.96.0.10"


@pytest.mark.parametrize("cluster_ips", [(), ("fd00::10",)])
def test_without_an_ipv4_address_the_name_is_hashed(cluster_ips: tuple[str, ...]) -> None:
    # The literal address is the test: it must be the same on every node and in every version.
    claim = NODE.claim(KEY, cluster_ips)
    assert (claim.address, claim.obstacle) == ("254.163.240.117", "")
    assert NODE.claim(ServiceKey("default", "shop2"), cluster_ips) != claim


@pytest.mark.parametrize(
    ("addresses", "expected"), [(NODE, "254.0.0.0/8"), (LAPTOP, "127.120.0.0/14"), (SMALL, "10.200.224.0/20")]
)
def test_the_part_for_hashes(addresses: AddressRange, expected: str) -> None:
    assert str(addresses.hashed) == expected


@pytest.mark.parametrize(
    ("addresses", "cluster_ip", "obstacle"),
    [
        (NODE, "16.0.0.53", "maps to 240.0.0.53, which is the mesh's own"),
        (NODE, "14.1.2.3", "maps to 254.1.2.3, which is kept for Services without a ClusterIP"),
        (NODE, "15.255.255.255", "maps to 255.255.255.255, which is a broadcast address"),
        (LAPTOP, "10.0.0.10", "maps to 127.64.0.10, which is the mesh's own"),
        (LAPTOP, "10.56.0.1", "maps to 127.120.0.1, which is kept for Services without a ClusterIP"),
    ],
)
def test_a_cluster_ip_that_cannot_be_mapped(addresses: AddressRange, cluster_ip: str, obstacle: str) -> None:
    claim = addresses.claim(KEY, [cluster_ip])
    assert claim.obstacle == obstacle
    assert claim.address == addresses.claim(KEY, []).address


@given(st.ip_addresses(v=4), st.text(min_size=1), st.sampled_from([NODE, LAPTOP, SMALL]))
def test_a_claim_is_in_the_range_and_never_the_meshs_own(
    ip: ipaddress.IPv4Address, name: str, addresses: AddressRange
) -> None:
    claim = addresses.claim(ServiceKey("default", name), [str(ip)])
    address = ipaddress.IPv4Address(claim.address)
    assert addresses.contains(int(address))
    assert not addresses.is_reserved(int(address))
    assert (address in addresses.hashed) is bool(claim.obstacle)


def test_the_first_by_name_keeps_a_cluster_ip() -> None:
    first, second, third = ServiceKey("a", "z"), ServiceKey("b", "a"), ServiceKey("b", "b")
    grants = NODE.settle({third: "250.96.0.10", second: "250.96.0.10", first: "250.96.0.10"})
    assert {key: (grant.address, grant.holder) for key, grant in grants.items()} == {
        second: ("", first),
        third: ("", first),
    }


@given(st.permutations(["a", "b", "c", "d", "e"]))
def test_equal_hashes_take_the_next_free_ones_in_order(names: list[str]) -> None:
    claims = {ServiceKey("ns", name): "254.0.0.9" for name in names}
    claims[ServiceKey("other", "x")] = "254.0.0.11"
    grants = NODE.settle(claims)
    found = {key.name: grant.address for key, grant in grants.items()}
    assert found == {"b": "254.0.0.10", "c": "254.0.0.12", "d": "254.0.0.13", "e": "254.0.0.14"}


def test_the_next_free_address_wraps_and_ends() -> None:
    last = "10.200.239.255"
    claims = {ServiceKey("ns", f"{number:05}"): last for number in range(4098)}
    grants = SMALL.settle(claims)
    addresses = [grants[key].address for key in sorted(grants)]
    assert addresses[0] == "10.200.224.0"
    assert len({a for a in addresses if a}) == 4095
    assert addresses[-2:] == ["", ""]
