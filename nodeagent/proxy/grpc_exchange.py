"""The exchange of a gRPC call: it notes the status that the caller gets, and counts it.

The status comes at the end of the call, after the last byte of its body, or with its head if nothing else
comes. Other requests are plain exchanges, and this costs them nothing.
"""

from __future__ import annotations

from typing import Final

from middleware.contract import Ended, ExchangeError, Reply
from middleware.grpc import GrpcStatus, http_code, of_http
from nodeagent.proxy.backend import Backend, Target
from nodeagent.proxy.body import Unchunked
from nodeagent.proxy.errors import reply_to
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.grpc_reply import grpc_trailers
from nodeagent.proxy.grpc_status import in_head, in_reply, said_in
from nodeagent.proxy.listeners import RunningListener
from nodeagent.proxy.message import CHUNKED, RequestHead, ResponseHead
from nodeagent.proxy.observer import FAILURES
from nodeagent.proxy.streams import ClientStream

OF_NO_METHOD: Final = frozenset(
    (
        GrpcStatus.CANCELLED,
        GrpcStatus.DEADLINE_EXCEEDED,
        GrpcStatus.PERMISSION_DENIED,
        GrpcStatus.RESOURCE_EXHAUSTED,
        GrpcStatus.UNAUTHENTICATED,
        GrpcStatus.UNAVAILABLE,
        GrpcStatus.UNIMPLEMENTED,
    )
)
"""What an endpoint may answer whatever it is asked for, so that it says nothing of the method."""


class GrpcExchange(Exchange):
    """A call. `answered` says that its status is what an endpoint said."""

    grpc = True

    __slots__ = ("_status", "_unchunked", "answered")

    def __init__(
        self, client: ClientStream, listener: RunningListener, head: RequestHead, started: float
    ) -> None:
        super().__init__(client, listener, head, started)
        self._status: GrpcStatus | None = None
        self.answered = False
        self._unchunked: Unchunked | None = None
        """Of a response from HTTP/1, whose trailers are in its chunks."""

    @property
    def grpc_status(self) -> GrpcStatus | None:
        """The status that the caller gets; None until it is known."""
        return self._status

    def client_gone(self) -> None:
        """The client has left: it has cancelled the call, or its deadline has passed."""
        if not self._ended and self._status is None:
            self._status = GrpcStatus.CANCELLED
        super().client_gone()

    def response_data(self, data: bytes, end: bool) -> None:
        """More bytes of the response have come."""
        if self._unchunked is not None:
            self._follow(self._unchunked, data, end)
        super().response_data(data, end)

    def response_trailers(self, lines: bytes) -> None:
        """The response has ended with trailers that were not part of its bytes."""
        if self._response is None:
            known = self._status  # of a response whose head is not one of gRPC
            self._learn(said_in(lines), GrpcStatus.UNKNOWN if known is None else known)
        super().response_trailers(lines)

    def _report(self, backend: Backend, target: Target, head: ResponseHead, whole: bool) -> None:
        """Tell a backend of its endpoint's answer: of its status, which comes at the end of a call."""
        backend.answered(target)
        if backend.outliers is None:
            return
        if head.status != 200 or whole:
            backend.said(target, http_code(head.status, in_head(head) if head.status == 200 else None))
            return

        def at_end(ended: Ended) -> None:
            if self._target is target and self.answered:
                backend.said(target, http_code(ended.status, ended.grpc_status))

        self.at_end(at_end)

    def _commit(self, head: ResponseHead, data: bytes, end: bool) -> None:
        if head.status != 200 or (end and not data):
            self._learn(said_in(head.fields), of_http(head.status))
        elif head.length == CHUNKED:
            self._unchunked = Unchunked()
            self._follow(self._unchunked, data, end)
        super()._commit(head, data, end)

    def _follow(self, body: Unchunked, data: bytes, end: bool) -> None:
        body.payload(data)
        if end:
            self._learn(said_in(body.trailers), GrpcStatus.UNKNOWN)

    def _learn(self, said: GrpcStatus | None, otherwise: GrpcStatus) -> None:
        self.answered = said is not None
        self._status = said if said is not None else otherwise

    def _break_off(self, error: ExchangeError | None) -> None:
        """Say in trailers what has happened, as the caller would see it without the mesh.

        A status other than OK cannot look like a complete response, and callers act on it: after UNAVAILABLE
        they connect again, but after a reset of the stream (INTERNAL for them) many give up.
        """
        if self._status is not None or error is None or (error.fault == "client" and not error.final):
            if self._status is None:
                self._status = GrpcStatus.INTERNAL  # what callers make of RST_STREAM with INTERNAL_ERROR
            super()._break_off(error)
            return
        self.error = error
        self._give_try_up()
        reply = reply_to(error)
        self._status = in_reply(reply)
        self.client.send_trailers(grpc_trailers(reply))
        self._finish()

    def _reply(self, reply: Reply, close: bool = False) -> None:
        self.answered = False
        self._status = in_reply(reply)
        super()._reply(reply, close)

    def _end(self, now: float) -> None:
        if self._status is None:
            self._status = GrpcStatus.UNKNOWN  # it has ended without trailers
        super()._end(now)
        if http_code(200, self._status) >= FAILURES:
            self.listener.tell_failed_call(self, now)
        exists = self.answered and self._status not in OF_NO_METHOD
        self.listener.record_call(self.client.source, self._status, self._head.target, exists)
