"""One request and its response, from the client's stream to an endpoint's and back, whatever protocols these
use.

An `Exchange` is the `Request` that layers see (`nodeagent.proxy.request`). A rule without layers is served by
plain callbacks; one with layers runs them as a `nodeagent.proxy.chain`.

Its stages: `start` - `dispatch` (again for every try) - `response_started` - `_commit` - `_finish`, or `fail`
at any point before `_commit`.

This module has what comes from the client and what happens when a limit of time passes. `forwarding` is the
way to an endpoint, `responding` the way back and the end, and `exchange_state` what all three know. None of
the four has a socket, or a byte of a wire protocol. Only they pause one side because of the other.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, cast

from middleware.contract import ExchangeError
from nodeagent.proxy.chain import Chain
from nodeagent.proxy.errors import NoRule, ResponseTimeout, UpstreamStalled, WorkerOverloaded
from nodeagent.proxy.forwarding import Forwarding
from nodeagent.proxy.health import Outcome as Verdict
from nodeagent.proxy.listeners import send
from nodeagent.stats.columns import UPSTREAM_STALLED, UPSTREAM_TIMEOUT, WORKER_REQUESTS_SHED


class Exchange(Forwarding):
    """A request on its way; see the module."""

    __slots__ = ()

    # What comes from the client

    def start(self, data: bytes, end: bool) -> None:
        """Begin; `data` is what has come of the body, `end` if that is all of it."""
        if end:
            self.completed = self.started
        if data:
            self._kept = [data]
            self._kept_size = len(data)
        listener = self.listener
        if listener.on_request and not self._shown():
            return
        if listener.runtime.shedding:
            listener.runtime.count(WORKER_REQUESTS_SHED)
            self.fail(WorkerOverloaded("the node's worker has no memory for further requests"))
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

    def _shown(self) -> bool:
        """Show the request to those that see each of them; return False if it has ended by that."""
        try:
            for call in self.listener.on_request:
                call(self)
        except ExchangeError as error:
            self.fail(error)
            return False
        except Exception as error:
            self.chain_broke(error)
            return False
        return True

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

    def whole_body(self) -> Sequence[bytes] | None:
        """Return the request's body, if all of it has come and is kept; else None."""
        return (self._kept or ()) if self.replayable and self.completed is not None else None

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

    # Limits of time

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

    def _time_out(self, error: ExchangeError) -> None:
        self.listener.count(UPSTREAM_TIMEOUT)
        self._blame(Verdict.TIMEOUT)
        self._tried_in_vain()
        self._give_try_up()
        self._raise(error)
