"""Which capture an agent uses, and why."""

from __future__ import annotations

import shutil
from typing import Literal, NamedTuple

from nodeagent.capture.contract import Capture
from nodeagent.capture.loopback import LoopbackCapture
from nodeagent.capture.privileges import CAP_NET_ADMIN, has_capability
from nodeagent.settings import CaptureKind, Settings


class Choice(NamedTuple):
    """A capture and, for the log, the reason why it was chosen."""

    kind: CaptureKind
    reason: str


def choose_capture(kind: Literal["auto"] | CaptureKind) -> Choice:
    """Return the capture to use: what was asked for, or with `auto` the one this process may use."""
    if kind != "auto":
        return Choice(kind, "asked for")
    if shutil.which("nft") is None:
        return Choice("loopback", "the program nft is not installed")
    if not has_capability(CAP_NET_ADMIN):
        return Choice("loopback", "the process has no CAP_NET_ADMIN")
    return Choice("nftables", "nft is installed and CAP_NET_ADMIN is effective")


def make_capture(settings: Settings) -> Capture:
    """Build the capture that `settings.capture` names. Nothing is set up before its `start`."""
    if settings.capture == "loopback":
        return LoopbackCapture(settings)
    # Imported here because pyroute2 costs 13 MiB, which an agent without nftables need not carry.
    from nodeagent.capture.nftables import NftablesCapture

    return NftablesCapture(settings)
