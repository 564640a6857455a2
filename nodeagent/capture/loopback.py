"""Capture on a laptop: the mesh range lies in 127.0.0.0/8, every address of which is already local.

Nothing is programmed. Workers bind each `(mesh address, mesh port)` themselves; the kernel refuses
connections to all others.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

from nodeagent.capture.contract import CaptureError
from nodeagent.capture.privileges import CAP_NET_BIND_SERVICE, has_capability
from nodeagent.plan.model import ListenerKey
from nodeagent.settings import Settings

UNPRIVILEGED_PORT_START = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
DEFAULT_PORT_START = 1024


def first_bindable_port(sysctl: Path = UNPRIVILEGED_PORT_START, privileged: bool | None = None) -> int:
    """Return the lowest port this process may listen on: 1 when it is privileged.

    `privileged` is read from the process's capabilities unless it is given.
    """
    if privileged is None:
        privileged = has_capability(CAP_NET_BIND_SERVICE)
    if privileged:
        return 1
    try:
        return max(1, int(sysctl.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return DEFAULT_PORT_START


class LoopbackCapture:
    """The capture that needs no privileges: it only makes sure that the mesh range is local."""

    def __init__(self, settings: Settings) -> None:
        self._range = settings.mesh_range
        self._address = settings.worker_address

    async def start(self) -> None:
        """Check that an address of the mesh range can be bound.

        Raises:
            CaptureError: the range is not local on this machine.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((self._address, 0))
            except OSError as error:
                raise CaptureError(
                    f"mesh range {self._range}: {self._address} is not an address of this machine "
                    f"({error.strerror}); loopback capture needs a range inside 127.0.0.0/8, all of which is "
                    "local on Linux; nothing was set up"
                ) from error

    async def apply(self, keys: Iterable[ListenerKey]) -> None:
        """Do nothing: workers bind `keys` themselves."""

    async def verify(self) -> None:
        """Do nothing: there is nothing that others could change."""

    async def close(self) -> None:
        """Do nothing: the sockets are the workers' own."""
