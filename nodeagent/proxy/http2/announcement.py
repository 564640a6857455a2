"""Whether an endpoint takes WebSockets over HTTP/2, and who waits to learn it.

Its first SETTINGS say so (RFC 8441 section 3), and a WebSocket may be the first that a connection is for.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from nodeagent.proxy.deadlines import Deadline
from nodeagent.proxy.message import RequestHead
from nodeagent.proxy.runtime import Runtime
from nodeagent.proxy.streams import Source

_NOT_ANNOUNCED: Final = (
    "does not accept WebSockets over HTTP/2: it has not announced SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441)"
)
_SILENT: Final = "has not sent SETTINGS in time, so it is not known whether it accepts WebSockets over HTTP/2"


class Asking(Protocol):
    """A stream that is to be a WebSocket."""

    def send_websocket(self, head: RequestHead, source: Source) -> None:
        """Ask for it."""
        ...

    def cannot_ask(self, detail: str) -> None:
        """There can be none."""
        ...

    def ask_elsewhere(self) -> None:
        """Its connection takes no further streams; nothing was sent."""
        ...


class _Waiting(NamedTuple):
    head: RequestHead
    source: Source
    deadline: Deadline


class Announcement:
    """What one connection's endpoint has announced."""

    __slots__ = ("_runtime", "_taken", "_waiting")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._taken: bool | None = None
        """None: it has not said anything yet."""
        self._waiting: dict[Asking, _Waiting] = {}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def ask(self, stream: Asking, head: RequestHead, source: Source) -> None:
        """Have a stream asked for, or refused, as soon as it is known; never refused at once."""
        if self._taken:
            stream.send_websocket(head, source)
            return
        runtime = self._runtime
        deadline = runtime.deadlines.set(runtime.limits.connect_time, lambda: self._too_late(stream))
        self._waiting[stream] = _Waiting(head, source, deadline)
        if self._taken is not None:
            runtime.loop.call_soon(self._refuse)

    def announced(self, taken: bool) -> None:
        """Take note of SETTINGS_ENABLE_CONNECT_PROTOCOL."""
        self._taken = taken

    def settings_came(self, room: int) -> None:
        """All that the endpoint has announced is known; `room` are the streams that may be begun."""
        if self._taken is None:
            self._taken = False
        if not self._taken:
            self._refuse()
            return
        for stream, waiting in self._take():
            if room > 0:
                stream.send_websocket(waiting.head, waiting.source)
                room -= 1
            else:
                stream.ask_elsewhere()

    def forget(self, stream: Asking) -> None:
        """Stop waiting for this one."""
        waiting = self._waiting.pop(stream, None)
        if waiting is not None:
            waiting.deadline.cancel()

    def leave(self) -> None:
        """The connection takes no further streams."""
        for stream, _ in self._take():
            stream.ask_elsewhere()

    def _refuse(self) -> None:
        for stream, _ in self._take():
            stream.cannot_ask(_NOT_ANNOUNCED)

    def _too_late(self, stream: Asking) -> None:
        del self._waiting[stream]
        stream.cannot_ask(_SILENT)

    def _take(self) -> list[tuple[Asking, _Waiting]]:
        taken, self._waiting = list(self._waiting.items()), {}
        for _, waiting in taken:
            waiting.deadline.cancel()
        return taken
