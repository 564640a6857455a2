"""One request and its response, from the client's stream to an endpoint's and back, whatever protocols these
use.

An `Exchange` is the `Request` that layers see (`nodeagent.proxy.request`). A rule without layers is served by
plain callbacks; one with layers runs them as a `nodeagent.proxy.chain`.

Its stages: `start` - `dispatch` (again for every try) - `response_started` - `_commit` - `_finish`, or `fail`
at any point before `_commit`. It ends exactly once, in `_end`. There is no socket here, and no byte of a wire
protocol. Pausing one side because of the other is done only here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, cast

from middleware.contract import (
    ConnectFailed,
    ExchangeError,
    NoEndpoint,
    Reply,
    UpstreamProtocolError,
    UpstreamReset,
)
from middleware.grpc import GrpcStatus
from nodeagent.proxy.backend import Backend, Target, describe_failure
from nodeagent.proxy.chain import Chain, Outcome
from nodeagent.proxy.collector import Collector
from nodeagent.proxy.errors import (
    LayerBroke,
    NoRule,
    NoWebSockets,
    PoolFull,
    ResponseTimeout,
    UpstreamRefused,
    UpstreamStalled,
    WorkerOverloaded,
    reply_to,
    signed,
)
from nodeagent.proxy.health import Outcome as Verdict
from nodeagent.proxy.listeners import RunningListener, send
from nodeagent.proxy.message import RequestHead, ResponseHead
from nodeagent.proxy.request import LayerRequest
from nodeagent.proxy.response import UpstreamResponse
from nodeagent.proxy.runtime import Runtime
from nodeagent.proxy.second import Place, SecondTry
from nodeagent.proxy.steering import FIRST_ERROR, Try
from nodeagent.proxy.streams import ClientStream, Pending, UpstreamStream
from nodeagent.stats.columns import (
    RESENDS,
    UPSTREAM_CONNECT_FAILED,
    UPSTREAM_CONNECT_TIMEOUT,
    UPSTREAM_CONNECTIONS,
    UPSTREAM_NO_ENDPOINT,
    UPSTREAM_OVERLOADED,
    UPSTREAM_PROTOCOL_ERROR,
    UPSTREAM_RESET,
    UPSTREAM_STALLED,
    UPSTREAM_TIMEOUT,
    UPSTREAM_TRUNCATED,
    WORKER_REQUESTS_SHED,
)

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""RFC 9110 section 9.2.2."""
CONNECT_TRIES: Final = 3
"""Endpoints that are tried for one send when they accept no connection."""
RESEND_TRIES: Final = 2
MOST_INFORMATIONAL: Final = 16
"""1xx responses to one request; an endpoint that sends more does nothing else."""


class Exchange(LayerRequest):
    """A request on its way; see the module. `status` is what the client gets, 0 before that is known."""

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
        "started",
        "status",
        "tunnel",
    )

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
        self._journey = None
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

    def race(self, seconds: float, permit: Callable[[], bool]) -> SecondTry:
        """Have a second try after this time; see the contract."""
        second = self._second = SecondTry(self, permit)  # no other code sets it: plain requests have none
        second.after(seconds)
        return second

    # The client's side

    def start(self, data: bytes, end: bool) -> None:
        """Begin; `data` is what has come of the body, `end` if that is all of it."""
        if end:
            self.completed = self.started
        if data:
            self._kept = [data]
            self._kept_size = len(data)
        listener = self.listener
        if listener.runtime.shedding:
            self._shed(listener.runtime)
            return
        rule = listener.rule or listener.rule_for(self._head)
        if rule is None:
            self.fail(NoRule(f"{listener.service} has no rule for {self.method} {self.target}"))
            return
        self._rule = rule
        backend = self._backend = rule.backend or rule.choose()
        handler = rule.handler
        if handler is None and (backend is None or not backend.layers):
            try:
                self.dispatch()
            except ExchangeError as error:
                self.fail(error)
            return
        if handler is None:
            assert backend is not None
            handler = backend.layered(send)
        coroutine = cast("Coroutine[Any, Any, Any]", handler(self))  # layers are `async def`
        self._chain = Chain(coroutine, self, listener.runtime.loop)
        self._chain.step(None)

    def _shed(self, runtime: Runtime) -> None:
        """Refuse it: there is no memory for further requests."""
        runtime.count(WORKER_REQUESTS_SHED)
        self.fail(WorkerOverloaded("the node's worker has no memory for further requests"))

    def request_data(self, data: bytes, end: bool) -> None:
        """Take more of the request's body; in a tunnel, of what the client says, `end` at its half-close."""
        upstream = self._upstream
        if self.tunnel:
            if upstream is not None:
                upstream.send_data(data, end)
            if end:
                self._tunnel_ended(1)
            return
        if end:
            self.completed = self.listener.runtime.now()
        if self.replayable:
            if self._kept is None:
                self._kept = []
            self._kept.append(data)
            self._kept_size += len(data)
            if upstream is not None and self._kept_size > self.listener.runtime.replay_bytes:
                self._forget_body()
        if upstream is not None:
            upstream.send_data(data, end)
        elif not end and self._kept_size > self.listener.runtime.replay_bytes:
            self.client.pause_reading()

    def request_trailers(self, lines: bytes) -> None:
        """Take the trailers of a body that has come without framing; they are the request's end."""
        self.completed = self.listener.runtime.now()
        if self.replayable:
            self._trailers = lines
        if self._upstream is not None:
            self._upstream.send_trailers(lines)

    def request_failed(self, error: ExchangeError) -> None:
        """The client's side of the request is broken: end the exchange, which is no endpoint's fault."""
        if self.committed:
            self._break_off(error)
        else:
            self._give_try_up()
            self._raise(error)

    def client_paused(self) -> None:
        """The client does not read: the endpoint has to wait."""
        if self._upstream is not None:
            self._upstream.pause()

    def client_resumed(self) -> None:
        """The client reads again."""
        if self._upstream is not None and self._response is None:
            self._upstream.resume()

    def client_gone(self) -> None:
        """The client has left: end everything that was under way for it."""
        if self._ended:
            return
        chain, self._chain = self._chain, None
        if chain is not None:
            try:
                chain.close()
            except Exception as error:  # a layer's `finally` that awaits, say
                self._tell_of_bug(error)
        self._give_try_up()
        self._end(self.listener.runtime.now())

    def silent(self) -> None:
        """The endpoint has had the whole request for as long as it may by default, and has not answered."""
        if self._upstream is None:
            return  # it is not the endpoint that is waited for
        if self._limits is not None and any(limit.runs for limit in self._limits):
            return  # its owner has said how long it may take
        self._time_out(ResponseTimeout(f"{self._target} did not answer in time"))

    def stalled(self) -> None:
        """The endpoint does not keep up: end it if it has taken nothing for as long as it may."""
        if self._upstream is None or self._upstream.takes_slowly():
            return
        self.listener.count(UPSTREAM_STALLED)
        error = UpstreamStalled(f"{self._target} does not read the request's body")
        if self.committed:
            self._break_off(error)
        else:
            self._give_try_up()
            self._raise(error)

    def idle(self, error: ExchangeError) -> None:
        """Nothing has moved for as long as it may."""
        if self.committed:
            self._break_off(error)
        else:
            self._time_out(error)

    def _time_out(self, error: ExchangeError) -> None:
        self.listener.count(UPSTREAM_TIMEOUT)
        self._blame(Verdict.TIMEOUT)
        self._tried_in_vain()
        self._give_try_up()
        self._raise(error)

    def whole_body(self) -> Sequence[bytes] | None:
        """Return the request's body, if all of it has come and is kept; else None."""
        return (self._kept or ()) if self.replayable and self.completed is not None else None

    def limit_passed(self, error: ExchangeError) -> None:
        """A layer's limit has passed: end what is under way with its error."""
        if self._ended:
            return
        if error.final:
            self._expired = error
        if self.committed:
            self._break_off(error)
            return
        if self._upstream is not None and error.fault == "upstream":
            self.listener.count(UPSTREAM_TIMEOUT)
            if self.completed is not None:
                self._blame(Verdict.TIMEOUT)
            self._tried_in_vain()
        self._give_try_up()
        self._raise(error)

    def place_for_second(self, permit: Callable[[], bool]) -> Place | None:
        """Return where a second try goes, and begin it, if there may be one and `permit` allows it."""
        backend, first = self._backend, self._target
        waiting = self._upstream is not None or self._pending is not None
        if not waiting or self._response is not None or backend is None or first is None:
            return None
        if self.completed is None or not self.replayable or self._head.upgrade or self._expired is not None:
            return None
        now = self.listener.runtime.now()
        target = backend.pick_second(self._head, self.client.source, (*self._tried, first), now)
        if target is None or not permit():
            return None
        self._tried = (*self._tried, target)
        return Place(backend, target, backend.begin_second(self._head, target, now))

    def start_second(self, stream: UpstreamStream) -> None:
        """Send the request, all of which is there, on the stream of the second try."""
        second, source, body = self._second, self.client.source, self._kept or ()
        if not self._trailers:
            stream.start(second, self._head, source, body, True)
            return
        stream.start(second, self._head, source, body, False)
        if second.stream is stream:
            stream.send_trailers(self._trailers)

    def adopt(self, second: SecondTry) -> None:
        """Go on with the second try, and give up the first."""
        self._tried_in_vain()
        self._give_try_up()
        self._target, self._upstream, self._pending = second.target, second.stream, second.pending
        self._try = second.adopted()

    def _forget_body(self) -> None:
        self.replayable = False
        self._kept = None

    # Towards an endpoint

    async def forward(self) -> UpstreamResponse:
        """Send the request to the next endpoint: the innermost handler. Raises `ExchangeError`."""
        self.dispatch()
        return cast("UpstreamResponse", await Outcome())

    def dispatch(self) -> None:
        """Choose an endpoint and send the request, or have a connection made for it.

        Raises:
            ExchangeError: there is no endpoint, or the request cannot be sent again.
        """
        if self._expired is not None:
            raise self._expired
        if not self.replayable:
            raise UpstreamReset("the request's body is not kept any more, so it cannot be sent again")
        backend = self._backend
        tried = self._tried
        target = None
        if backend is not None:
            now = self.listener.runtime.now() if tried else self.started
            steered = backend.steering is not None
            target = self._pick_for(backend, tried) if steered else backend.pick(tried, now)
            if target is None:
                if tried:
                    # Every endpoint has had its try: begin again rather than give up early.
                    self._tried = ()
                    target = self._pick_for(backend, ()) if steered else backend.pick((), now)
                if target is None and backend.failover is not None:
                    backend, target = self._fail_over(backend, backend.failover, now)
        if target is None:
            self.listener.count(UPSTREAM_NO_ENDPOINT)
            raise NoEndpoint(self._why_none())
        self._target = target
        pool = target.pool
        stream = pool.take() if pool is not None and self._resends < RESEND_TRIES else None
        if stream is not None:
            self._send(stream)
            return
        assert backend is not None
        try:
            self._pending = backend.connect(target, self, self.client.connect_time)
        except PoolFull:
            self.listener.count(UPSTREAM_OVERLOADED)
            raise

    def _fail_over(self, backend: Backend, other: Backend, now: float) -> tuple[Backend, Target | None]:
        """Choose an endpoint of another Service, as this one has no healthy one."""
        target = self._pick_for(other, ()) if other.steering is not None else other.pick((), now)
        if target is None:
            return backend, backend.last_resort((), now)
        backend.failed_over()
        self._backend = other
        return other, target

    def _pick_for(self, backend: Backend, avoid: tuple[Target, ...]) -> Target | None:
        """Choose with all that this backend's balancer wants to know."""
        if self._try is not None:
            self._try.end(self.listener.runtime.now())
            self._try = None
        picked = backend.pick_for(self._head, self.client.source, avoid, self.listener.runtime.now())
        if picked is None:
            return None
        target, self._try = picked
        return target

    def _why_none(self) -> str:
        if self._backend is None:
            return f"{self.listener.service} has no backend with a weight"
        return f"{self._backend.key.service} has no ready endpoint for port {self._backend.key.port}"

    def connected(self, stream: UpstreamStream) -> None:
        """Take the connection that was made for this exchange into use."""
        self._pending = None
        if not stream.served:
            self.listener.count(UPSTREAM_CONNECTIONS)
        assert self._backend is not None
        assert self._target is not None
        self._backend.connected(self._target)
        self._send(stream)

    def connect_failed(self, error: Exception) -> None:
        """Try another endpoint: nothing has been sent yet."""
        self._pending = None
        backend, target = self._backend, self._target
        assert backend is not None
        assert target is not None
        if isinstance(error, ExchangeError):
            self.listener.count(UPSTREAM_OVERLOADED)
            self._raise(error)
            return
        now = self.listener.runtime.now()
        timed_out = isinstance(error, TimeoutError)
        self.listener.count(UPSTREAM_CONNECT_TIMEOUT if timed_out else UPSTREAM_CONNECT_FAILED)
        backend.failed(target, Verdict.CONNECT_FAILED, now)
        self._try_failed()
        self._connect_failures += 1
        self._tried_in_vain()
        elsewhere = backend.failover is not None or any(one not in self._tried for one in backend.targets)
        if self._connect_failures < CONNECT_TRIES and elsewhere:
            self._dispatch_again()
            return
        self._connect_failures = 0
        self._raise(ConnectFailed(describe_failure(target, error)))

    def _dispatch_again(self) -> None:
        try:
            self.dispatch()
        except ExchangeError as error:
            self._raise(error)

    def _send(self, stream: UpstreamStream) -> None:
        self._upstream = stream
        client = self.client
        if client.write_paused:
            stream.pause()
        end = self.completed is not None
        if not end:  # before `start`, which may have it held again
            client.resume_reading()
        if self._trailers:
            stream.start(self, self._head, client.source, self._kept or (), False)
            if self._upstream is stream:
                stream.send_trailers(self._trailers)
            return
        stream.start(self, self._head, client.source, self._kept or (), end)
        if self._kept_size > self.listener.runtime.replay_bytes:
            self._forget_body()

    def pause_request(self) -> None:
        """The endpoint does not keep up: the client has to wait."""
        self.client.pause_reading()

    def resume_request(self) -> None:
        """The endpoint has caught up."""
        self.client.resume_reading()

    def upstream_lost(self, stream: UpstreamStream) -> None:
        """The endpoint's connection ended while this exchange owned it, before the response was whole."""
        self._upstream = None
        self.client.resume_reading()
        if self.tunnel:
            self._break_off(None)
        elif self._response is not None:
            self.listener.count(UPSTREAM_TRUNCATED)
            self._tried_in_vain()
            self._response.cut = True  # `chain_returned` will see to it
            self._response.wake()
        elif self.committed:
            self.listener.count(UPSTREAM_TRUNCATED)
            self._truncated()
        elif stream.unprocessed:
            self._refused()
        elif (
            stream.served
            and self.replayable
            and self._head.method in IDEMPOTENT
            and self._resends <= RESEND_TRIES
        ):
            # It was closed while idle in the pool: that is not the endpoint's verdict on this request.
            self._resends += 1
            self.listener.count(RESENDS)
            self._dispatch_again()
        else:
            self.listener.count(UPSTREAM_RESET)
            self._blame(Verdict.RESET)
            self._tried_in_vain()
            self._raise(UpstreamReset(f"{self._target} closed the connection without answering"))

    def _refused(self) -> None:
        """The endpoint has said that it did nothing: any request may be sent again (RFC 9113 section 8.7)."""
        self._tried_in_vain()
        if self.replayable and self._resends < RESEND_TRIES:
            self._resends += 1
            self.listener.count(RESENDS)
            self._dispatch_again()
        else:
            self.listener.count(UPSTREAM_RESET)
            self._raise(UpstreamRefused(f"{self._target} refused the request"))

    def response_failed(self, detail: str) -> None:
        """The endpoint answered something that cannot be passed on."""
        self.listener.count(UPSTREAM_PROTOCOL_ERROR)
        self._try_failed()
        error = UpstreamProtocolError(f"{self._target} {detail}")
        if self.committed:
            self._break_off(error)
        else:
            if self._backend is not None and self._target is not None:
                self._backend.garbled(self._target)
            self._tried_in_vain()
            self._give_try_up()
            self._raise(error)

    def not_switched(self, detail: str) -> None:
        """The endpoint takes no WebSockets the way that it would have to be asked; another one may."""
        self.listener.count(UPSTREAM_PROTOCOL_ERROR)
        self._tried_in_vain()
        self._give_try_up()
        self._raise(NoWebSockets(f"{self._target} {detail}"))

    def _truncated(self) -> None:
        self._break_off(UpstreamReset(f"{self._target} closed the connection within its response"))

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

    # The endpoint's answer

    def informational(self, head: ResponseHead) -> None:
        """Pass a 1xx response on (RFC 9110 section 15.2)."""
        self._informational += 1
        if self._informational > MOST_INFORMATIONAL:
            self.response_failed("sent too many informational responses")
        else:
            self.client.informational(head)

    def response_started(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """The endpoint's response head is there, and the beginning of its body, `end` if that is all."""
        if head.status == 101 and not self._head.upgrade:
            self.response_failed("switched protocols without being asked")
            return
        backend, target = self._backend, self._target
        assert backend is not None
        assert target is not None
        if backend.attentive:
            self._report(backend, target, head, end and not data)
        if self._try is not None:
            self._try.heard(head.status < FIRST_ERROR, self.listener.runtime.now())
        if self._chain is None:
            self._commit(head, data, end)
            return
        response = self._response = UpstreamResponse(self, head, data, end)
        self._chain.step(response)
        self._hold_response(response)

    def _report(self, backend: Backend, target: Target, head: ResponseHead, whole: bool) -> None:
        """Tell a backend of its endpoint's answer; `whole` if it is nothing but the head."""
        backend.answered(target)
        backend.said(target, head.status)

    def response_data(self, data: bytes, end: bool) -> None:
        """More bytes of the response have come; in a tunnel `end` is the endpoint's half-close."""
        response = self._response
        if response is not None:  # they came before the layers had decided
            response.take(data, end)
            self._hold_response(response)
            return
        self.client.send_data(data, end)
        if end:
            if self.tunnel:
                self._tunnel_ended(2)
            else:
                self._finish()

    def response_trailers(self, lines: bytes) -> None:
        """The response has ended with trailers that were not part of its bytes."""
        response = self._response
        if response is not None:
            response.trailers = lines
            response.take(b"", True)
            return
        self.client.send_trailers(lines)
        self._finish()

    def _hold_response(self, response: UpstreamResponse) -> None:
        """Pause the response while a layer decides about it, unless the layer waits for its body."""
        if self._response is response and self._upstream is not None and not response.wanted:
            self._upstream.pause()

    def read_on(self) -> None:
        """A layer wants more of the response that it thinks about."""
        if self._upstream is not None:
            self._upstream.resume()

    def wake_chain(self) -> None:
        """What a layer waited for has come."""
        if self._chain is not None:
            self._chain.step(None)

    def discard(self, response: UpstreamResponse) -> None:
        """Throw away the response that waits; the request may then be sent again."""
        if self._response is not response:
            return
        self._response = None
        self._tried_in_vain()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            self.client.resume_reading()
            upstream.release(response.end and self.completed is not None, self.listener.runtime.now())

    def collect(self, head: ResponseHead, limit: int, done: Callable[[bytes | None], None]) -> None:
        """Have the body of this response collected as it passes to the client."""
        self.client = Collector(self.client, head, limit, done)

    def _commit(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """Send the response's head to the client, and what has come of the body."""
        self.committed = True
        self.replayable = False
        self._kept = None
        self.status = head.status
        if self._try is not None:
            self._try.mark(head)
        if head.status == 101:
            self.tunnel = True
            head.upgrade = head.upgrade or self._head.upgrade
            end = False
        self.client.respond(head, data, end)
        if end:
            self._finish()

    def _tunnel_ended(self, side: int) -> None:
        """One side (1: the client, 2: the endpoint) will say no more; with both it is over."""
        self._tunnel_ends |= side
        if self._tunnel_ends == 3:
            self._finish(reusable=False)

    # The end

    def _finish(self, reusable: bool = True) -> None:
        """The response is whole."""
        now = self.listener.runtime.now()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.release(reusable and self.completed is not None, now)
        self._end(now)
        self.client.finished(now, abort=False)

    def _break_off(self, error: ExchangeError | None) -> None:
        """The response has begun and cannot be completed: only a broken connection shows that to the
        client.
        """
        if self.error is None:
            self.error = error
        self._give_try_up()
        now = self.listener.runtime.now()
        self._end(now)
        self.client.finished(now, abort=True)

    def fail(self, error: ExchangeError) -> None:
        """End the exchange with a response that the mesh itself makes of an error."""
        self.error = error
        self._reply(reply_to(error), close=error.fault == "client")

    def _reply(self, reply: Reply, close: bool = False) -> None:
        self._give_try_up()
        self._kept = None
        self.replayable = False
        self.committed = True
        self.own_reply = reply
        self.status = reply.status
        self.client.respond_reply(reply, close)
        self._finish()

    def _end(self, now: float) -> None:
        """Count the exchange and report its end, once, however it ended."""
        assert not self._ended
        self._ended = True
        if self._try is not None:
            self._try.end(now)
        if self._limits is not None:
            for limit in self._limits:
                limit.cancel()
        self._record(now)
        if self._at_end is not None:
            ended = self.listener.describe(self, now)
            for call in self._at_end:
                try:
                    call(ended)
                except Exception as error:  # a layer's bug; nothing else is lost by it
                    self._tell_of_bug(error)

    def _record(self, now: float) -> None:
        """Count it as a request to the Service."""
        self.listener.record(self, now)

    # The chain of layers

    def _raise(self, error: ExchangeError) -> None:
        """Tell the layers of an error, or the client if there are no layers."""
        if self._chain is None:
            self.fail(error)
            return
        second: SecondTry | None = getattr(self, "_second", None)
        if second is not None and second.replaces(error):
            self.adopt(second)
        else:
            self._chain.step(error)

    def chain_returned(self, response: Any) -> None:
        """Send the response that the layers have settled on."""
        self._chain = None
        if isinstance(response, Reply):
            self._reply(signed(response))
            return
        if response is None or response is not self._response:
            self._tell_of_bug(TypeError(f"a middleware returned {response!r}, not the one that it was given"))
            self.fail(LayerBroke("a middleware returned a response that it had discarded"))
            return
        assert isinstance(response, UpstreamResponse)
        self._response = None
        if self._upstream is not None and not self.client.write_paused:
            self._upstream.resume()
        if response.trailers:
            self._commit(response.head, response.data, False)
            self.response_trailers(response.trailers)
            return
        self._commit(response.head, response.data, response.end)
        if response.cut and not self._ended:
            self._truncated()

    def chain_raised(self, error: ExchangeError) -> None:
        """Tell the client of the error that the layers let through."""
        self._chain = None
        self.fail(error)

    def chain_broke(self, error: Exception) -> None:
        """Tell the client that a layer has a bug; one request is all it costs."""
        self._chain = None
        self._tell_of_bug(error)
        self.fail(LayerBroke("a middleware failed on this request"))

    def _tell_of_bug(self, error: Exception) -> None:
        listener = self.listener
        listener.runtime.observer.layer_failed(listener.service, listener.port, error)
