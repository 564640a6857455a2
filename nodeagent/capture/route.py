"""The route that makes the mesh range local, so that sockets can be bound on it and packets to it come in.

It is what `ip route add local RANGE dev lo src 127.0.0.1` makes, with three refinements:

- `src`: without it, a connection from the node itself would have the mesh address that it goes to as its
  source.
- protocol and metric: our routes are recognised by the protocol number, and each agent has its own metric, so
  that two agents that overlap have a route each, and neither removes the other's.
- 255.255.255.255 stays out, because broadcasts of the node's programs would end on `lo`. A more specific
  `throw` route does not help: with the default rules the kernel searches the tables local and main as one and
  the answer is "unreachable". So 240.0.0.0/4 becomes the 28 prefixes around it.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from nodeagent.capture.ruleset import BROADCAST

PROTOCOL = 240
"""The routing protocol number of svc.mesh: `ip route show table local proto 240` lists what is ours."""
TABLE_LOCAL = 255
SOURCE = "127.0.0.1"


class MeshRoute:
    """One agent's route for the mesh range. All methods block for a few milliseconds and raise OSError."""

    def __init__(self, network: ipaddress.IPv4Network, metric: int) -> None:
        self._metric = metric
        self._prefixes = prefixes_of(network)

    def add(self) -> bool:
        """Make the range local. Idempotent; True if anything had to be added."""
        added = False
        with _netlink() as kernel:
            loopback = kernel.link_lookup(ifname="lo")[0]
            for prefix in self._prefixes:
                added |= _done(kernel, "add", errno.EEXIST, **self._route(prefix, self._metric), oif=loopback)
        return added

    def remove(self) -> None:
        """Remove this agent's own route. Idempotent."""
        with _netlink() as kernel:
            for prefix in self._prefixes:
                _done(kernel, "del", errno.ESRCH, **self._route(prefix, self._metric))

    def others(self) -> bool:
        """True if another agent has a route, whether it still runs or was killed."""
        with _netlink() as kernel:
            return any(metric != self._metric for _, metric in _ours(kernel))

    def remove_others(self) -> None:
        """Remove the routes of all other agents, whatever their range."""
        with _netlink() as kernel:
            for prefix, metric in list(_ours(kernel)):
                if metric != self._metric:
                    _done(kernel, "del", errno.ESRCH, **self._route(prefix, metric))

    @staticmethod
    def _route(prefix: str, metric: int) -> dict[str, Any]:
        return {
            "dst": prefix,
            "table": TABLE_LOCAL,
            "type": "local",
            "scope": "host",
            "proto": PROTOCOL,
            "prefsrc": SOURCE,
            "priority": metric,
        }


def prefixes_of(network: ipaddress.IPv4Network) -> tuple[str, ...]:
    """Return the prefixes that make up the range without the limited broadcast address, in order."""
    if BROADCAST not in network:
        return (str(network),)
    return tuple(str(part) for part in sorted(network.address_exclude(ipaddress.IPv4Network(BROADCAST))))


@contextmanager
def _netlink() -> Iterator[Any]:
    kernel = IPRoute(strict_check=True)
    try:
        yield kernel
    except NetlinkError as error:
        raise OSError(error.code, f"route: {error}") from error
    finally:
        kernel.close()


def _done(kernel: Any, command: str, expected: int, **route: Any) -> bool:
    """Run a route command; False if it failed with `expected`, which means that there was nothing to do."""
    try:
        kernel.route(command, family=socket.AF_INET, **route)
    except NetlinkError as error:
        if error.code == expected:
            return False
        raise
    return True


def _ours(kernel: Any) -> Iterator[tuple[str, int]]:
    for route in kernel.get_routes(family=socket.AF_INET, table=TABLE_LOCAL, proto=PROTOCOL):
        yield f"{route.get_attr('RTA_DST')}/{route['dst_len']}", route.get_attr("RTA_PRIORITY") or 0
