"""A stream that stands in for others in tests of what leaves a connection."""

from __future__ import annotations

from nodeagent.proxy.http2 import frames
from nodeagent.proxy.http2.writing import Outflow


class Out(Outflow):
    """A stream that notes what it is told."""

    def __init__(self, identifier: int, window: int = frames.DEFAULT_WINDOW) -> None:
        self.identifier = identifier
        self.window = window
        self.backlog = None
        self.queued = 0
        self.sent_all = False
        self.told: list[str] = []

    def filled(self) -> None:
        self.told.append("filled")

    def taken(self) -> None:
        self.told.append("taken")

    def ended(self) -> None:
        self.told.append("ended")
