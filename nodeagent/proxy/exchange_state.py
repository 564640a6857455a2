"""What is known of an exchange, and how its try under way towards an endpoint is ended.

`Responding`, `Forwarding` and `Exchange` are built on it, each on the one before, and have no fields of their
own. One constructor sets all fields: a further one would cost every plain request a call.
"""

from __future__ import annotations

from middleware.contract import ExchangeError, Reply
from middleware.grpc import GrpcStatus
from nodeagent.proxy.backend import Target
from nodeagent.proxy.chain import Chain
from nodeagent.proxy.health import Outcome as Verdict
from nodeagent.proxy.journey import Journey, Recorder
from nodeagent.proxy.listeners import RunningListener
from nodeagent.proxy.message import RequestHead
from nodeagent.proxy.request import LayerRequest
from nodeagent.proxy.response import UpstreamResponse
from nodeagent.proxy.second import SecondTry
from nodeagent.proxy.steering import Try
from nodeagent.proxy.streams import ClientStream, Pending, UpstreamStream


class ExchangeState(LayerRequest):
    """The fields of an exchange, and its try. `status` is what the client gets, 0 before that is known."""

    __slots__ = (
        "_chain",
        "_connect_failures",
        "_ended",
        "_expired",
        "_informational",
        "_kept",
        "_kept_size",
        "_pending",
        "_resends",
        "_response",
        "_second",
        "_target",
        "_trailers",
        "_try",
        "_tunnel_ends",
        "_upstream",
        "committed",
        "error",
        "own_reply",
        "status",
        "tunnel",
    )

    _second: SecondTry
    """Set by `race` only: plain requests have none, not even None."""

    def __init__(
        self, client: ClientStream, listener: RunningListener, head: RequestHead, started: float
    ) -> None:
        self.client = client
        self.listener = listener
        self.started = started
        self.completed = None
        self.status = 0
        self.error: ExchangeError | None = None
        self.own_reply: Reply | None = None
        self.replayable = True
        self.committed = False
        self.tunnel = False
        self._head = head
        self._rule = None
        self._backend = None
        self._backend_name = ""
        self._upstream: UpstreamStream | None = None
        self._pending: Pending | None = None
        self._target: Target | None = None
        self._tried = ()
        self._kept: list[bytes] | None = None
        self._kept_size = 0
        self._trailers = b""
        self._connect_failures = 0
        self._resends = 0
        self._informational = 0
        self._tunnel_ends = 0
        self._chain: Chain | None = None
        self._response: UpstreamResponse | None = None
        self._expired: ExchangeError | None = None
        self._try: Try[Target] | None = None
        self._limits = None
        self._at_end = None
        self._journey = Recorder(started) if listener.journeys else None
        self._ended = False

    # What others ask

    @property
    def target_used(self) -> Target | None:
        """The endpoint of the last try."""
        return self._target

    @property
    def grpc_status(self) -> GrpcStatus | None:
        """The status that the caller of a gRPC call gets (`nodeagent.proxy.grpc_exchange`); else None."""
        return None

    def journey(self, now: float) -> Journey | None:
        """Return the stages up to now, of an exchange that is over; None: nobody wants them."""
        if self._journey is None:
            return None
        return self._journey.end(now, self.error.reason if self.error is not None else "")

    @property
    def ended(self) -> bool:
        """True once it is over."""
        return self._ended

    @property
    def held(self) -> int:
        """Bytes of the request: of its head, and of its body as far as it is kept."""
        head = self._head
        return len(head.fields) + len(head.target) + (self._kept_size if self._kept is not None else 0)

    @property
    def head(self) -> RequestHead:
        """The request's head, as layers have left it."""
        return self._head

    @property
    def takes_trailers(self) -> bool:
        """Whether the client has said that it takes trailers."""
        return self._head.trailers

    @property
    def trailers_wanted(self) -> bool:
        """Whether an endpoint of HTTP/1 gets the request's trailers."""
        return self._head.trailers and self.listener.spec.trailers

    # The try under way

    def _forget_body(self) -> None:
        self.replayable = False
        self._kept = None

    def _blame(self, verdict: Verdict) -> None:
        self._try_failed()
        if self._backend is not None and self._target is not None:
            self._backend.failed(self._target, verdict, self.listener.runtime.now())

    def _try_failed(self) -> None:
        """Let the balancer know that the endpoint has failed."""
        if self._try is not None:
            self._try.heard(False, self.listener.runtime.now())

    def _tried_in_vain(self) -> None:
        if self._target is not None:
            self._tried = (*self._tried, self._target)
        if self._try is not None:
            self._try.end(self.listener.runtime.now())

    def _give_try_up(self) -> None:
        """End what is under way towards an endpoint."""
        if self._try is not None:
            self._try.end(self.listener.runtime.now())
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
        self._response = None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
            self.client.resume_reading()  # whom it may have kept waiting

    def adopt(self, second: SecondTry) -> None:
        """Go on with the second try, and give up the first."""
        self._tried_in_vain()
        self._give_try_up()
        self._target, self._upstream, self._pending = second.target, second.stream, second.pending
        self._try = second.adopted()
        if self._journey is not None:
            self._journey.adopt_second(self.listener.runtime.now())
