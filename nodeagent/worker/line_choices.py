"""Which lines each Service wants in the access log (`svc.mesh/access-log`), as its worker last heard."""

from __future__ import annotations

from collections.abc import Iterable

from nodeagent.plan.model import LineChoice, Listener, ListenerKey


class LineChoices:
    """The choices of the ports that have one of their own."""

    def __init__(self) -> None:
        self._choices: dict[tuple[str, int], LineChoice] = {}
        self._ports: dict[ListenerKey, tuple[str, int]] = {}

    def follow(self, upserted: Iterable[Listener], removed: Iterable[ListenerKey]) -> None:
        """Take a change of the plan over."""
        for key in removed:
            self._forget(key)
        for listener in upserted:
            self._forget(listener.key)
            if listener.access_log is not None:
                port = (str(listener.service), listener.port)
                self._ports[listener.key] = port
                self._choices[port] = listener.access_log

    def of(self, service: str, port: int) -> LineChoice | None:
        """Return the choice of a port; None: it has none of its own."""
        return self._choices.get((service, port))

    def _forget(self, key: ListenerKey) -> None:
        port = self._ports.pop(key, None)
        if port is not None:
            self._choices.pop(port, None)
