"""What a Corefile says about a cluster's DNS, and the server block that the mesh zone needs beside it."""

from __future__ import annotations

import re

import msgspec

from nodeagent.meshctl.clusterdns.corefile import (
    Corefile,
    CorefileNotUnderstood,
    Directive,
    ServerBlock,
    read_address,
)

COPIED = ("bind", "prometheus")
"""Directives of the main server block that every other one has to repeat: where it listens and is counted."""
_PLAIN = re.compile(r"[\w.:%-]+")


class Stub(msgspec.Struct, frozen=True):
    """The zones that are forwarded, and the address (`240.0.0.53`, or with a port) of the mesh's DNS."""

    zones: tuple[str, ...]
    target: str


def main_server(corefile: Corefile) -> ServerBlock:
    """Return the server block that answers whatever no other one does.

    Raises:
        CorefileNotUnderstood: there is none or more than one, or it does not take up changes.
    """
    found = [server for server in corefile.servers if _port_of_root(server)]
    if len(found) != 1:
        raise CorefileNotUnderstood(
            f"{len(found) or 'no'} server block(s) for the root zone, where one is expected"
        )
    if not any(
        directive.name == "reload" for server in corefile.servers for directive in corefile.directives(server)
    ):
        raise CorefileNotUnderstood("without the plugin `reload` no change is taken up before a restart")
    return found[0]


def stub_block(corefile: Corefile, stub: Stub) -> str:
    """Return the server block for this file, in whole lines.

    Raises:
        CorefileNotUnderstood: see `main_server`.
    """
    main = main_server(corefile)
    port = _port_of_root(main)
    copied = [directive for directive in corefile.directives(main) if directive.name in COPIED]
    if not all(_PLAIN.fullmatch(word) for directive in copied for word in directive.args):
        raise CorefileNotUnderstood(
            f"{' or '.join(COPIED)} of the root zone is more than a list of addresses"
        )
    lines = ["errors", *(" ".join((one.name, *one.args)) for one in copied), f"forward . {stub.target}"]
    keys = " ".join(f"{zone}:{port}" for zone in stub.zones)
    return "\n".join((f"{keys} {{", *(f"    {line}" for line in lines), "}", ""))


def root_port(corefile: Corefile) -> int:
    """Return the port on which the root zone is answered; of a range, the first.

    Raises:
        CorefileNotUnderstood: see `main_server`.
    """
    return int(_port_of_root(main_server(corefile)).partition("-")[0])


def answered_zones(corefile: Corefile, stub: Stub) -> dict[str, bool]:
    """Return which of the stub's zones have a server block, and whether it forwards to the stub's target."""
    found: dict[str, bool] = {}
    for server in corefile.servers:
        forwards = any(_forwards(directive, stub.target) for directive in corefile.directives(server))
        for key in server.keys:
            address = read_address(key)
            if address is not None and address.zone in stub.zones:
                found[address.zone] = forwards
    return found


def cluster_domain(corefile: Corefile) -> str:
    """Return the zone of the plugin `kubernetes`, `cluster.local` where none is named."""
    for server in corefile.servers:
        for directive in corefile.directives(server):
            if directive.name == "kubernetes":
                for zone in (
                    directive.args[: directive.args.index("{")] if "{" in directive.args else directive.args
                ):
                    if not zone.endswith((".arpa", ".arpa.")) and "/" not in zone and "{" not in zone:
                        return zone.removesuffix(".")
    return "cluster.local"


def _forwards(directive: Directive, target: str) -> bool:
    return directive.name == "forward" and directive.args[:2] == (".", target)


def _port_of_root(server: ServerBlock) -> str:
    """Return the port on which a server block answers the root zone, or an empty text."""
    addresses = (read_address(key) for key in server.keys)
    return next((address.port for address in addresses if address is not None and not address.zone), "")
