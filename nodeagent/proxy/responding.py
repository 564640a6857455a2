"""The way back: an endpoint's answer to the client, past the layers, and the end of the exchange.

It ends exactly once, in `_end`, to which all ends lead: a whole response (`_finish`), one that is broken off
(`_break_off`), and a response of the mesh itself (`fail`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from middleware.contract import ExchangeError, Reply, UpstreamProtocolError, UpstreamReset
from nodeagent.proxy.backend import Backend, Target
from nodeagent.proxy.collector import Collector
from nodeagent.proxy.errors import LayerBroke, NoWebSockets, reply_to, signed
from nodeagent.proxy.exchange_state import ExchangeState
from nodeagent.proxy.message import ResponseHead
from nodeagent.proxy.response import UpstreamResponse
from nodeagent.proxy.second import SecondTry
from nodeagent.proxy.steering import FIRST_ERROR
from nodeagent.stats.columns import UPSTREAM_PROTOCOL_ERROR

MOST_INFORMATIONAL: Final = 16
"""1xx responses to one request; an endpoint that sends more does nothing else."""


class Responding(ExchangeState):
    """An exchange with what goes back to the client."""

    __slots__ = ()

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
        if self._journey is not None:
            self._journey.answered(self._journey.current, self.listener.runtime.now(), str(head.status))
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

    def _truncated(self) -> None:
        self._break_off(UpstreamReset(f"{self._target} closed the connection within its response"))

    # What the layers do with it

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
        if self._journey is not None:
            self._journey.over(self._journey.current, self.listener.runtime.now())
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            self.client.resume_reading()
            upstream.release(response.end and self.completed is not None, self.listener.runtime.now())

    def collect(self, head: ResponseHead, limit: int, done: Callable[[bytes | None], None]) -> None:
        """Have the body of this response collected as it passes to the client."""
        self.client = Collector(self.client, head, limit, done)

    def _raise(self, error: ExchangeError) -> None:
        """Tell the layers of an error, or the client if there are no layers."""
        if self._journey is not None:
            self._journey.over(self._journey.current, self.listener.runtime.now(), error.reason)
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
