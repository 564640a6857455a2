"""Which process listens on an address and port of this machine, as /proc tells (proc_net(5), proc_pid_fd(5)).

Only for messages. Only root may see which sockets the processes of other users have; for those, the user is
named.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

Transport = Literal["tcp", "udp"]

PROC: Final = Path("/proc")
MOST_PROCESSES: Final = 20_000
"""Processes whose open files are searched, at most."""
_LISTENING: Final = {"tcp": "0A", "udp": "07"}
"""The column `st` of a socket that listens, or of a UDP socket without a peer
(`include/net/tcp_states.h`)."""


class ListeningSocket(NamedTuple):
    """A socket on which a program listens."""

    address: str
    port: int
    user: int
    inode: str


def occupant(address: str, port: int, transport: Transport, proc: Path = PROC) -> str:
    """Return who listens on this address and port, in words; empty if nobody does, or /proc does not tell."""
    wanted = ipaddress.ip_address(address)
    for found in listening_sockets(transport, proc):
        there = ipaddress.ip_address(found.address)
        if found.port == port and (there == wanted or there.is_unspecified or wanted.is_unspecified):
            where = f"{there}:{port}" if there.version == 4 else f"[{there}]:{port}"
            return f"{_owner(found, proc)} listens on {where}"
    return ""


def listening_sockets(transport: Transport, proc: Path = PROC) -> Iterator[ListeningSocket]:
    """Yield the listening sockets of this network namespace, IPv4 before IPv6."""
    for name in (transport, f"{transport}6"):
        try:
            lines = (proc / "net" / name).read_text(encoding="ascii").splitlines()[1:]
        except (OSError, ValueError):
            continue
        for line in lines:
            columns = line.split()
            if len(columns) > 9 and columns[3] == _LISTENING[transport]:
                address, _, port = columns[1].partition(":")
                yield ListeningSocket(_address(address), int(port, 16), int(columns[7]), columns[9])


def _address(text: str) -> str:
    """Read an address as /proc shows it: words of 32 bits in the machine's own order of bytes."""
    raw = bytes.fromhex(text)
    words = struct.unpack(f"!{len(raw) // 4}I", raw)
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _owner(found: ListeningSocket, proc: Path) -> str:
    for process in _processes(proc):
        if _has_open(process, f"socket:[{found.inode}]"):
            return f"{_command(process)} (process {process.name})"
    try:
        return f"a process of the user {pwd.getpwuid(found.user).pw_name}"
    except KeyError:
        return f"a process of the user {found.user}"


def _processes(proc: Path) -> Iterator[Path]:
    numbers = (name for name in os.listdir(proc) if name.isdigit())
    for _, name in zip(range(MOST_PROCESSES), numbers, strict=False):
        yield proc / name


def _has_open(process: Path, wanted: str) -> bool:
    folder = process / "fd"
    try:
        descriptors = os.listdir(folder)
    except OSError:  # it has ended, or is another user's
        return False
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.readlink(folder / descriptor) == wanted:
                return True
    return False


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text(encoding="utf-8", errors="replace").strip() or "something"
    except OSError:
        return "something"
