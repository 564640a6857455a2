"""An exchange whose caller has set a deadline: `grpc-timeout`.

It ends at the caller's deadline as at a layer's limit, whatever its layers are doing. Each endpoint that it
is sent to is told the time that is left, of the deadline or of the limit of the whole request, whichever
passes first, as Envoy does. The limit of a single try is not passed on: it ends with the response's head, but
the field is about the complete stream.
"""

from __future__ import annotations

from collections.abc import Callable

from middleware.contract import ExchangeError
from nodeagent.proxy.deadlines import Deadline
from nodeagent.proxy.errors import CallerDeadline
from nodeagent.proxy.grpc_exchange import GrpcExchange
from nodeagent.proxy.http2.grpc_timeout import SECOND, render_timeout, with_time_left
from nodeagent.proxy.message import TimedRequestHead
from nodeagent.proxy.streams import UpstreamStream


class TimedExchange(GrpcExchange):
    """See the module."""

    __slots__ = ("_given", "_whole")

    def start(self, data: bytes, end: bool) -> None:
        """Begin; the time runs from now."""
        head = self._head
        assert isinstance(head, TimedRequestHead)
        self._given = head.timeout
        self._whole: list[tuple[Deadline, float]] = []
        """The limits of the whole request, and when each passes."""
        self.within(head.timeout / SECOND, self._passed)
        super().start(data, end)

    def within(self, seconds: float, error: Callable[[], ExchangeError]) -> Deadline:
        """Set a limit from now."""
        limit = super().within(seconds, error)
        if error().final:
            self._whole.append((limit, self.listener.runtime.now() + seconds))
        return limit

    def _passed(self) -> ExchangeError:
        given = render_timeout(self._given).decode()
        return CallerDeadline(f"no complete response within the caller's grpc-timeout: {given}")

    def _send(self, stream: UpstreamStream) -> None:
        now = self.listener.runtime.now()
        until = min(passes for limit, passes in self._whole if limit.runs)
        left = int((until - now) * SECOND)
        self._head.fields = with_time_left(self._head.fields, self._given, left)
        super()._send(stream)
