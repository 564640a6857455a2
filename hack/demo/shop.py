"""The shop: which Services it has, what each asks of the mesh, how many servers it has. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

NAMESPACE = "shop"
ZONE = "svc.mesh"


class Offer(msgspec.Struct, frozen=True):
    """A Service of the shop. Its servers are `NAME-1`, `NAME-2`, ..., each at an address of its own."""

    name: str
    number: int
    """Makes its addresses: ClusterIP 10.96.x.NUMBER, endpoints from 127.0.0.NUMBER + 1 on."""
    port: int
    """Preferred: another is taken if this machine has something there."""
    protocol: Literal["http", "tcp"]
    servers: int
    annotations: Mapping[str, str]
    about: str

    @property
    def meshed(self) -> bool:
        """Whether it opts in."""
        return bool(self.annotations)

    @property
    def mesh_name(self) -> str:
        """Its name in the mesh zone."""
        return f"{self.name}.{NAMESPACE}.{ZONE}"

    @property
    def port_name(self) -> str:
        """The name of its port, which says what it speaks."""
        return self.protocol if self.protocol == "http" else f"tcp-{self.name}"

    def server_address(self, number: int) -> str:
        """Return the address of the server with this number, the first is 1."""
        return f"127.0.0.{self.number + number}"

    def cluster_ip(self, block: int) -> str:
        """Return its ClusterIP. Demos that run side by side have a block each, 0 to 255."""
        return f"10.96.{block}.{self.number}"


def _enabled(**settings: str) -> Mapping[str, str]:
    annotations = {"svc.mesh/enabled": "true"}
    annotations.update({f"svc.mesh/{name.replace('_', '-')}": value for name, value in settings.items()})
    return annotations


RATE = "5/s burst=5"
SLOWER = "1/s"
"""What a person is told to write in place of `RATE`: of nine requests at once one passes, not five."""
SHOP = (
    Offer("web", 10, 8080, "http", 3, _enabled(retry_attempts="2"), "tries another endpoint when one fails"),
    Offer(
        "catalog",
        30,
        8080,
        "http",
        2,
        _enabled(circuit_breaker="ResponseCodeRatio(500, 600, 0, 600) > 0.5"),
        "stops being asked while most of its answers are errors",
    ),
    Offer("orders", 50, 80, "http", 2, _enabled(rate_limit=RATE), "five requests a second"),
    Offer("chat", 70, 7000, "tcp", 2, _enabled(), "TCP: greets first, then sends back what it gets"),
    Offer("office", 90, 8080, "http", 1, {}, "without annotations: the mesh does not know it"),
)
MESHED = tuple(offer for offer in SHOP if offer.meshed)
