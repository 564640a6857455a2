"""IP addresses as text. Pure."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

FAMILIES = {"IPv4": AF_INET, "IPv6": AF_INET6}


def canonical_address(value: object, address_type: str = "") -> str | None:
    """Return an IP address in its canonical form, or None; any family unless `address_type` names one."""
    if not isinstance(value, str):
        return None
    for name, family in FAMILIES.items():
        if address_type in ("", name):
            try:
                return inet_ntop(family, inet_pton(family, value))
            except (OSError, ValueError):
                continue
    return None


def is_unicast(address: str) -> bool:
    """Whether packets to it reach one host; loopback counts, for meshes on a laptop."""
    if ":" in address:
        return address != "::" and not address.startswith("ff")
    first = int(address.partition(".")[0])
    return first != 0 and not 224 <= first <= 239 and address != "255.255.255.255"
