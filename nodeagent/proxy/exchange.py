"""One request and its response, from the client's connection to an endpoint's and back.

An `Exchange` is the `Request` that layers see. A route without layers is served by plain callbacks; one with
layers runs them as a `nodeagent.proxy.chain`.

Order of life: `start` - `dispatch` (again for every try) - `response_started` - `_commit` - `_finish`, or
`fail` at any point before `_commit`.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, cast

from middleware.contract import (
    ConnectFailed,
    ExchangeError,
    NoEndpoint,
    UpstreamProtocolError,
    UpstreamReset,
)
from nodeagent.plan.model import Upstream
from nodeagent.proxy.body import Body
from nodeagent.proxy.chain import Chain, Outcome
from nodeagent.proxy.fields import Fields
from nodeagent.proxy.head import NO_BODY, UNTIL_CLOSE, HeadError, RequestHead, ResponseHead
from nodeagent.proxy.respond import BadRequest
from nodeagent.proxy.response import UpstreamResponse
from nodeagent.stats.columns import (
    RESENDS,
    UPSTREAM_CONNECT_FAILED,
    UPSTREAM_CONNECT_TIMEOUT,
    UPSTREAM_CONNECTIONS,
    UPSTREAM_NO_ENDPOINT,
    UPSTREAM_PROTOCOL_ERROR,
    UPSTREAM_RESET,
    UPSTREAM_TRUNCATED,
)

if TYPE_CHECKING:
    from nodeagent.proxy.downstream import DownstreamConnection
    from nodeagent.proxy.route import HttpRoute
    from nodeagent.proxy.upstream import UpstreamConnection

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""RFC 9110 section 9.2.2."""
CONNECT_TRIES: Final = 3
"""Endpoints that are tried for one send when they accept no connection."""
RESEND_TRIES: Final = 2


class Exchange:
    """A request on its way; see the module."""

    __slots__ = (
        "_chain",
        "_connect_failures",
        "_kept",
        "_kept_size",
        "_request_body",
        "_resends",
        "_response",
        "_response_body",
        "committed",
        "downstream",
        "endpoint",
        "error",
        "head",
        "keep_alive",
        "received",
        "replayable",
        "request_done",
        "route",
        "sent",
        "started",
        "status",
        "to_head",
        "tried",
        "tunnel",
        "upstream",
    )

    def __init__(
        self, downstream: DownstreamConnection, route: HttpRoute, head: RequestHead, started: float
    ) -> None:
        self.downstream = downstream
        self.route = route
        self.head = head
        self.started = started
        self.keep_alive = head.keep_alive
        self.to_head = head.method == b"HEAD"
        self.upstream: UpstreamConnection | None = None
        self.endpoint: Upstream | None = None
        self.tried: tuple[Upstream, ...] = ()
        self.status = 0
        self.error: ExchangeError | None = None
        self.received = head.end
        self.sent = 0
        self.request_done = head.length == NO_BODY
        self.replayable = True
        self.committed = False
        self.tunnel = False
        self._request_body: Body | None = None
        self._response_body: Body | None = None
        self._kept: list[bytes] | None = None
        self._kept_size = 0
        self._connect_failures = 0
        self._resends = 0
        self._chain: Chain | None = None
        self._response: UpstreamResponse | None = None

    # What layers see (middleware.contract.Request)

    @property
    def method(self) -> str:
        """The method, as sent."""
        return self.head.method.decode("ascii")

    @property
    def target(self) -> str:
        """The request target in origin form."""
        return self.head.target.decode("ascii")

    @property
    def headers(self) -> Fields:
        """The header fields as the client sent them."""
        return self.head.fields

    @property
    def source(self) -> str:
        """The client's address."""
        return self.downstream.source

    # The client's side

    def start(self, rest: bytes) -> int:
        """Begin; `rest` came behind the head. Return how many of its bytes are this request's body."""
        used = 0
        if not self.request_done:
            self._request_body = Body(self.head.length)
            self._kept = []
            try:
                used = self._take_request(rest)
            except HeadError as error:
                self.fail(BadRequest(error))
                return len(rest)
        handler = self.route.handler
        if handler is None:
            try:
                self.dispatch()
            except ExchangeError as error:
                self.fail(error)
        else:
            coroutine = cast("Coroutine[Any, Any, Any]", handler(cast("Any", self)))  # layers are `async def`
            self._chain = Chain(coroutine, self, self.route.proxy.loop)
            self._chain.step(None)
        return used

    def request_data(self, data: bytes) -> int:
        """Take more of the request's body; return how many bytes belonged to it."""
        try:
            used = self._take_request(data)
        except HeadError as error:
            self._drop_chain()
            if self.committed:
                self.error = BadRequest(error)
                self._abort_upstream()
                self._finish(keep_alive=False, reusable=False, abort=True)
            else:
                self.fail(BadRequest(error))
            return len(data)
        piece = data if used == len(data) else data[:used]
        if self.upstream is not None:
            self.upstream.transport.write(piece)
        elif self._kept_size > self.route.proxy.limits.replay_bytes:
            self.downstream.pause_reading()
        return used

    def _take_request(self, data: bytes) -> int:
        body = self._request_body
        assert body is not None
        used = body.take(data)
        self.received += used
        self.request_done = body.done
        if used and self.replayable:
            assert self._kept is not None
            self._kept.append(data[:used])
            self._kept_size += used
            if self.upstream is not None and self._kept_size > self.route.proxy.limits.replay_bytes:
                self._forget_body()
        return used

    def _forget_body(self) -> None:
        self.replayable = False
        self._kept = None

    def pause_request(self) -> None:
        """Stop reading from the client: the endpoint does not keep up."""
        self.downstream.pause_reading()

    def resume_request(self) -> None:
        """Go on reading from the client."""
        self.downstream.resume_reading()

    def client_gone(self) -> None:
        """The client's connection is lost: end everything that was under way for it."""
        self._drop_chain()
        self._abort_upstream()
        self.route.record(self)

    def give_up(self, error: ExchangeError) -> None:
        """Answer with an error although the request is still on its way."""
        self._drop_chain()
        self.fail(error)

    def _drop_chain(self) -> None:
        chain, self._chain = self._chain, None
        if chain is not None:
            chain.close()

    # Towards an endpoint

    async def forward(self) -> UpstreamResponse:
        """Send the request to the next endpoint: the innermost handler. Raises `ExchangeError`."""
        self.dispatch()
        return cast("UpstreamResponse", await Outcome())

    def dispatch(self) -> None:
        """Choose an endpoint and send the request, or have a connection made for it.

        Raises:
            ExchangeError: there is no endpoint, or the request cannot be sent once more.
        """
        if not self.replayable:
            raise UpstreamReset("the request's body is no longer at hand, so it cannot be sent again")
        route = self.route
        endpoint = route.balancer.pick(self.tried, self.started)
        if endpoint is None:
            if not self.tried:
                route.count(UPSTREAM_NO_ENDPOINT)
                raise NoEndpoint(f"{route.service} has no ready endpoint for port {route.port}")
            # Every endpoint has had its try: begin anew rather than give up early.
            self.tried = ()
            endpoint = route.balancer.pick((), self.started)
            assert endpoint is not None
        self.endpoint = endpoint
        pool = route.proxy.pool(endpoint)
        connection = None
        if self._resends < RESEND_TRIES:
            connection = pool.take(probe=self.head.method not in IDEMPOTENT)
        if connection is None:
            pool.connect(self)
        else:
            self._send(connection)

    def connected(self, connection: UpstreamConnection) -> None:
        """Take the connection that was made for this exchange into use."""
        self.route.count(UPSTREAM_CONNECTIONS)
        self.route.balancer.connected(connection.pool.upstream)
        if self.downstream.exchange is not self:  # the client has gone meanwhile
            connection.pool.give_back(connection, self.route.proxy.now())
            return
        self._send(connection)
        if not self.request_done:
            self.downstream.resume_reading()

    def connect_failed(self, upstream: Upstream, error: Exception) -> None:
        """Try another endpoint: nothing has been sent yet."""
        timed_out = isinstance(error, TimeoutError)
        self.route.count(UPSTREAM_CONNECT_TIMEOUT if timed_out else UPSTREAM_CONNECT_FAILED)
        self.route.balancer.connect_failed(upstream, self.route.proxy.now())
        if self.downstream.exchange is not self:
            return
        self._connect_failures += 1
        self.tried = (*self.tried, upstream)
        if self._connect_failures < CONNECT_TRIES:
            untried = self.route.balancer.pick(self.tried, self.started)
            if untried is not None:
                self._dispatch_again()
                return
        self._connect_failures = 0
        reason = "timed out" if timed_out else (getattr(error, "strerror", None) or "failed")
        self._outcome(ConnectFailed(f"connecting to {upstream} {reason.lower()}"))

    def _dispatch_again(self) -> None:
        try:
            self.dispatch()
        except ExchangeError as error:
            self._outcome(error)

    def _send(self, connection: UpstreamConnection) -> None:
        self.upstream = connection
        head = self.head
        forwarded = head.forwarded_for
        line = self.downstream.forwarded_for
        if forwarded:
            line = b"X-Forwarded-For: " + forwarded + b", " + self.downstream.source_bytes + b"\r\n\r\n"
        if self._kept:
            data = b"".join((head.line_and_fields, line, *self._kept))
            if self._kept_size > self.route.proxy.limits.replay_bytes:
                self._forget_body()
        else:
            data = head.line_and_fields + line
        connection.start(self, data)

    def upstream_lost(self, connection: UpstreamConnection) -> None:
        """The endpoint's connection ended while this exchange owned it."""
        self.upstream = None
        if self.tunnel:
            self._finish(keep_alive=False, reusable=False)
        elif self._response is not None:
            return  # `_commit_waiting` will find the connection gone
        elif self.committed:
            self._response_cut()
        elif connection.served and self.replayable and self.head.method in IDEMPOTENT:
            # It was closed while idle in the pool: that is not the endpoint's verdict on this request.
            self._resends += 1
            self.route.count(RESENDS)
            self._dispatch_again()
        else:
            self.route.count(UPSTREAM_RESET)
            self._tried_in_vain()
            self._outcome(
                UpstreamReset(f"{connection.pool.upstream} closed the connection without answering")
            )

    def upstream_failed(self, error: UpstreamProtocolError) -> None:
        """The endpoint answered something that cannot be passed on."""
        self.route.count(UPSTREAM_PROTOCOL_ERROR)
        self._abort_upstream()
        if self.committed:
            self.error = error
            self._finish(keep_alive=False, reusable=False, abort=True)
        else:
            self._tried_in_vain()
            self._outcome(error)

    def _tried_in_vain(self) -> None:
        if self.endpoint is not None:
            self.tried = (*self.tried, self.endpoint)

    def _abort_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abort()

    # The endpoint's answer

    def informational(self, head: ResponseHead) -> None:
        """Pass a 1xx response on (RFC 9110 section 15.2), not to HTTP/1.0 clients."""
        if self.head.minor == b"1":
            self.downstream.write(b"HTTP/1.1 %b\r\n%b\r\n" % (head.status_line, head.raw_fields))

    def response_started(self, head: ResponseHead, rest: bytes) -> None:
        """The endpoint's response head is there, with `rest` behind it."""
        if head.status == 101 and not self.head.upgrade:
            self.upstream_failed(UpstreamProtocolError(f"{self.endpoint} switched protocols unasked"))
            return
        if self._chain is None:
            self._commit(head, rest)
            return
        response = self._response = UpstreamResponse(self, head, rest)
        assert self.upstream is not None
        self._chain.step(cast("Any", response))
        if self._response is response and self.upstream is not None:
            self.upstream.transport.pause_reading()  # a layer thinks it over

    def discard(self, response: UpstreamResponse) -> None:
        """Throw away the response that waits; the request may then be sent again."""
        if self._response is not response:
            return
        self._response = None
        self._tried_in_vain()
        upstream, self.upstream = self.upstream, None
        if upstream is None:
            return
        upstream.transport.resume_reading()  # it was paused while the layer thought it over
        head = response.head
        complete = head.length >= 0 and len(response.rest) == head.length
        upstream.release(complete and head.keep_alive and self.request_done, self.route.proxy.now())

    def _commit(self, head: ResponseHead, rest: bytes) -> None:
        """Send the response's head to the client, and what has come of the body."""
        self.committed = True
        self._kept = None
        self.status = head.status
        downstream = self.downstream
        modern = self.head.minor == b"1"
        if head.status == 101:
            self._commit_tunnel(head, rest)
            return
        fields = head.raw_fields
        length = head.length
        whole = 0 <= length <= len(rest)
        keep_alive = self.keep_alive and downstream.stays_open and (self.request_done or not whole)
        body = None if whole else Body(length, unchunk=not modern, rechunk=modern)
        if length == UNTIL_CLOSE and modern:
            fields += b"Transfer-Encoding: chunked\r\n"
        elif (
            length < 0 and not modern
        ):  # HTTP/1.0 knows no chunks: the end of the connection is the end of the body
            fields = without_transfer_encoding(fields)
            keep_alive = False
        self._response_body = body
        if not keep_alive:
            fields += b"Connection: close\r\n"
        elif not modern:
            fields += b"Connection: keep-alive\r\n"
        self.keep_alive = keep_alive
        out = b"HTTP/1.1 %b\r\n%b\r\n" % (head.status_line, fields)
        if body is None:
            self._write(out + rest[:length])
            self._finish(keep_alive, reusable=len(rest) == length)
        else:
            self._relay(out, rest, body)

    def response_data(self, data: bytes) -> None:
        """More bytes of the response have come."""
        if self._response is not None:  # they came before the layers had decided
            self._response.rest += data
        elif self.tunnel:
            self._write(data)
        else:
            assert self._response_body is not None
            self._relay(b"", data, self._response_body)

    def _relay(self, prefix: bytes, data: bytes, body: Body) -> None:
        try:
            used = body.take(data)
        except HeadError as error:
            if prefix:
                self._write(prefix)
            self.upstream_failed(UpstreamProtocolError(f"{self.endpoint} sent a bad body: {error.detail}"))
            return
        exact = used == len(data)
        out = body.forwarded(data if exact else data[:used])
        self._write(prefix + out if prefix else out)
        if body.done:
            self._finish(self.keep_alive, reusable=exact)

    def response_eof(self) -> bool:
        """The endpoint will send no more; return whether its connection stays open for our side."""
        if self.tunnel:
            self.downstream.write_eof()
            return True
        return False

    def _response_cut(self) -> None:
        """The endpoint's connection ended after the head: the end of the body, or a truncation."""
        ending = self._response_body.end() if self._response_body is not None else None
        if ending is None:
            self.route.count(UPSTREAM_TRUNCATED)
            self.error = UpstreamReset(f"{self.endpoint} closed the connection within its response")
            self._finish(keep_alive=False, reusable=False, abort=True)
        else:
            self._write(ending)
            self._finish(self.keep_alive, reusable=False)

    def _commit_tunnel(self, head: ResponseHead, rest: bytes) -> None:
        """Switch protocols (RFC 9110 section 7.8): from now on both sides' bytes pass as they are."""
        self.tunnel = True
        self.keep_alive = False
        upgrade = head.upgrade or self.head.upgrade
        self._write(
            b"HTTP/1.1 %b\r\n%bConnection: upgrade\r\nUpgrade: %b\r\n\r\n%b"
            % (head.status_line, head.raw_fields, upgrade, rest)
        )
        self.downstream.start_tunnel()

    def tunnel_data(self, data: bytes) -> None:
        """Pass the client's bytes of a switched protocol to the endpoint."""
        self.received += len(data)
        if self.upstream is not None:
            self.upstream.transport.write(data)

    def tunnel_eof(self) -> None:
        """The client of a switched protocol will send no more."""
        if self.upstream is not None and self.upstream.transport.can_write_eof():
            self.upstream.transport.write_eof()

    def _write(self, data: bytes) -> None:
        self.sent += len(data)
        self.downstream.write(data)

    # The end

    def _finish(self, keep_alive: bool, reusable: bool, abort: bool = False) -> None:
        upstream, self.upstream = self.upstream, None
        now = self.route.proxy.now()
        if upstream is not None:
            upstream.release(reusable and upstream.keep_alive and self.request_done, now)
        self.route.record(self, now)
        self.downstream.exchange_finished(keep_alive and self.request_done, now, abort)

    def fail(self, error: ExchangeError) -> None:
        """End the exchange with a response that the mesh itself makes."""
        self._kept = None
        self.error = error
        self.status = error.status
        self.committed = True
        self._abort_upstream()
        keep_alive = self.keep_alive and self.request_done and self.downstream.stays_open
        if error.fault == "client":
            keep_alive = False
        self._write(self.downstream.render(error, keep_alive, self.to_head))
        self._finish(keep_alive, reusable=False)

    # The chain of layers

    def _outcome(self, error: ExchangeError) -> None:
        if self._chain is None:
            self.fail(error)
        else:
            self._chain.step(error)

    def chain_returned(self, response: UpstreamResponse) -> None:
        """Send the response that the layers have settled on."""
        self._chain = None
        if response is not self._response:
            self.fail(ExchangeError("a middleware returned a response that it had discarded"))
            return
        self._response = None
        upstream = self.upstream
        if upstream is not None:
            upstream.transport.resume_reading()
        self._commit(response.head, response.rest)
        if upstream is None and self.downstream.exchange is self:
            self._response_cut()

    def chain_raised(self, error: ExchangeError) -> None:
        """Tell the client of the error that the layers let through."""
        self._chain = None
        self.fail(error)

    def chain_broke(self, error: Exception) -> None:
        """Tell the client that a layer has a bug; one request is all it costs."""
        self._chain = None
        self.route.proxy.layer_failed(self.route, error)
        self.fail(ExchangeError("a middleware failed on this request"))


def without_transfer_encoding(fields: bytes) -> bytes:
    """Remove Transfer-Encoding, for clients that do not know it."""
    lines = fields.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"transfer-encoding:"))
