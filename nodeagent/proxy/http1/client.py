"""A connection to an endpoint that speaks HTTP/1.1: sends requests, reads responses, one exchange at a time.

Implements `nodeagent.proxy.streams.UpstreamStream`.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Sequence
from typing import Final

from nodeagent.proxy.body import LAST_CHUNK, Body, chunk
from nodeagent.proxy.connection import PEER_FULL, TURN, Connection, probe_peer
from nodeagent.proxy.http1.incomplete import UNMEASURED, check_incomplete, check_size
from nodeagent.proxy.http1.known import ResponseReader
from nodeagent.proxy.message import UNTIL_CLOSE, HeadError, RequestHead, ResponseHead
from nodeagent.proxy.pool import Pool
from nodeagent.proxy.runtime import FOREVER
from nodeagent.proxy.streams import Source, UpstreamOwner
from nodeagent.proxy.websocket import WebSocketHead, key_line, make_key, why_not_switched
from nodeagent.settings import Limits

_HEAD_LIMITS: Final = Limits(head_bytes=256 * 1024, head_fields=512)
LINGER_TIME: Final = 30.0
"""Seconds that a tunnel's last bytes have to reach an endpoint that reads slowly."""


class Http1Upstream(Connection):
    """One connection of a pool. `served` counts the exchanges before the present one."""

    __slots__ = (
        "_body",
        "_buffer",
        "_heads",
        "_key",
        "_owner",
        "_poll",
        "_pool",
        "_rechunk",
        "_to_head",
        "_trailers",
        "_tunnel",
        "_unsent",
        "_waiting",
        "counted",
        "keep_alive",
        "served",
    )

    unprocessed: Final = False
    """HTTP/1.1 has no way to say so."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool.runtime)
        self.served = 0
        self.counted = False
        self.keep_alive = True
        self._pool = pool
        self._owner: UpstreamOwner | None = None
        self._heads = ResponseReader()
        self._body: Body | None = None
        self._to_head = False
        self._trailers = False
        self._rechunk = False
        self._tunnel = False
        self._key = ""
        """The key of a WebSocket that was made here, until it is answered."""
        self._unsent = 0
        """Bytes of the request that were still to be sent at the last look."""
        self._buffer = b""
        """An unfinished head."""
        self._waiting = b""
        """What has come and has to wait for its turn."""
        self._poll: select.poll | None = None

    @property
    def busy(self) -> bool:
        """Whether it carries an exchange."""
        return self._owner is not None

    # What the pool asks

    def usable(self) -> bool:
        """Whether nothing unexpected has come, not even the end of the connection: one look at the socket.

        If an unexpected response comes after this look and before the endpoint has read the next request, it
        cannot be told from the answer to that; HTTP/1.1 has no way to do so.
        """
        if self.transport.is_closing():
            return False
        return self._poll is None or not self._poll.poll(0)

    # What the exchange calls

    def start(
        self, owner: UpstreamOwner, head: RequestHead, source: Source, body: Sequence[bytes], end: bool
    ) -> None:
        """Send the request's head and what has come of its body."""
        self._owner = owner
        self._to_head = head.method == b"HEAD"
        self._trailers = head.trailers
        self.deadline = FOREVER
        forwarded = source.forwarded_line
        if head.forwarded_for:
            forwarded = b"X-Forwarded-For: %b, %b\r\n" % (head.forwarded_for, source.address_bytes)
        if head.upgrade:
            options = b"upgrade, TE" if head.trailers else b"upgrade"
            forwarded += b"Connection: %b\r\nUpgrade: %b\r\n" % (options, head.upgrade)
            if isinstance(head, WebSocketHead):
                self._key = make_key()
                forwarded += key_line(self._key)
        elif head.trailers:  # RFC 9112 section 7.4: TE is of one connection
            forwarded += b"Connection: TE\r\n"
        if head.length == UNTIL_CLOSE:
            self._start_chunked(head, forwarded, body, end)
            return
        data = b"%b %b HTTP/1.1\r\n%b%b\r\n" % (head.method, head.target, head.fields, forwarded)
        self.transport.write(b"".join((data, *body)) if body else data)

    def _start_chunked(self, head: RequestHead, forwarded: bytes, body: Sequence[bytes], end: bool) -> None:
        """Send a request whose body has come without a length and without chunks."""
        self._rechunk = not end
        framing = b"Transfer-Encoding: chunked\r\n"
        if end:
            framing = b"Content-Length: %d\r\n" % sum(map(len, body))
        else:
            body = [chunk(piece) for piece in body]
        parts = (head.method, head.target, head.fields, forwarded, framing)
        self.transport.write(b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % parts + b"".join(body))

    def send_trailers(self, lines: bytes) -> None:
        """End a body that is sent in chunks; its trailers go on if they are wanted."""
        if self._rechunk and not self.transport.is_closing():
            wanted = self._owner is not None and self._owner.trailers_wanted
            self.transport.write(b"0\r\n%b\r\n" % (lines if wanted else b""))

    def send_data(self, data: bytes, end: bool) -> None:
        """Send more of the body, or of a tunnel, where `end` is a half-close."""
        if self._rechunk:
            data = chunk(data) + (LAST_CHUNK if end else b"")
        transport = self.transport
        if transport.is_closing():
            return
        if data:
            transport.write(data)
        if end and self._tunnel:
            transport.write_eof()

    def pause(self) -> None:
        """Read no more for now."""
        self.hold(PEER_FULL)

    def resume(self) -> None:
        """Read on."""
        self.let_go(PEER_FULL)

    def takes_slowly(self) -> bool:
        """Whether the endpoint has taken anything since this was asked last."""
        unsent, before = self.transport.get_write_buffer_size(), self._unsent
        self._unsent = unsent
        return unsent < before

    def release(self, complete: bool, now: float) -> None:
        """The exchange has ended: back to the pool, or close."""
        self._owner = None
        self.served += 1
        if complete and self.keep_alive and not self._waiting and not self.transport.is_closing():
            self._body = None
            self._rechunk = False
            if self._holds:
                self.let_go(PEER_FULL)
            self._pool.give_back(self, now)
        elif self._tunnel and not self.lost:
            self.deadline = now + LINGER_TIME
            self.let_go(PEER_FULL)
            self.transport.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        self._owner = None
        self._waiting = b""
        if self._tunnel:
            self.reset()
        elif not self.lost:
            self.transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio calls this once."""
        super().connection_made(transport)
        socket = transport.get_extra_info("socket")
        if socket is not None:
            self._poll = select.poll()
            self._poll.register(socket.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Bytes of the endpoint: of the response's head, of its body, or of a tunnel."""
        owner = self._owner
        if owner is None:  # there was no request: whatever this is, it must not answer the next one
            self._pool.forget(self)
            self.abort()
        elif self._waiting:
            self._waiting += data
        elif self._body is not None:
            self._read_body(owner, self._body, data)
        elif self._tunnel:
            owner.response_data(data, False)
        else:
            self._read_heads(owner, data)

    def eof_received(self) -> bool:
        """The endpoint will send no more; return whether the connection stays open for our side."""
        owner = self._owner
        if owner is not None and self._tunnel:
            owner.response_data(b"", True)
            return not self.transport.is_closing()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio calls this once, last."""
        super().connection_lost(exc)
        self._poll = None
        owner, self._owner = self._owner, None
        if owner is None:
            self._pool.forget(self)
        elif exc is None and self._body is not None and not self._waiting and self._body.end():
            owner.response_data(b"", True)
        else:
            owner.upstream_lost(self)
        if self.counted:
            self.counted = False
            self._pool.lost()

    def pause_writing(self) -> None:
        """The endpoint reads slower than the client sends."""
        self.write_paused = True
        self._unsent = self.transport.get_write_buffer_size()
        if self._owner is not None:
            self._owner.pause_request()

    def resume_writing(self) -> None:
        """The endpoint has caught up."""
        self.write_paused = False
        if self._owner is not None:
            self._owner.resume_request()

    def expire(self, now: float) -> None:
        """It has been idle for long, or a tunnel's last bytes do not get through."""
        self._pool.forget(self)
        self.deadline = FOREVER
        if self.transport.is_closing():
            self.reset()
        else:
            self.transport.close()

    # Reading

    def _read_heads(self, owner: UpstreamOwner, data: bytes) -> None:
        if self._buffer:
            held, self._buffer = self._buffer, b""
            if b"\n" not in data and len(held) + len(data) <= _HEAD_LIMITS.head_bytes:
                self._buffer = held + data  # no line was completed, so nothing new can be said of it
                return
            data = held + data
        try:
            while True:
                head = self._heads.read(data, self._to_head)
                if head is None:
                    check_incomplete(data, _HEAD_LIMITS, response=True)
                    self._buffer = data
                    return
                if head.end > UNMEASURED:
                    check_size(data, 0, head.end, _HEAD_LIMITS)
                if head.status >= 200 or head.status == 101:
                    break
                owner.informational(head)
                data = data[head.end :]
                if self._owner is not owner or not data:
                    return
        except HeadError as error:
            owner.response_failed(f"sent an invalid response: {error.detail}")
            return
        self._begin(owner, head, data)

    def _begin(self, owner: UpstreamOwner, head: ResponseHead, data: bytes) -> None:
        """The response's head is there; `data` begins with it."""
        self.keep_alive = head.keep_alive
        if self._key:
            key, self._key = self._key, ""
            wrong = why_not_switched(head, key)
            if wrong:
                owner.response_failed(wrong)
                return
        length, start, size = head.length, head.end, len(data)
        if 0 <= length <= size - start and head.status != 101:
            if size - start > length:
                self.keep_alive = False  # bytes without a request
                data = data[: start + length]
            owner.response_started(head, data[start:], True)
            return
        rest = data[start:]
        if head.status == 101:
            self._switch()
            owner.response_started(head, rest, False)
            return
        body = self._body = Body(length, trailers=self._trailers)
        if not rest:
            owner.response_started(head, b"", False)
            return
        self._read_body(owner, body, rest, head)

    def _read_body(
        self, owner: UpstreamOwner, body: Body, data: bytes, head: ResponseHead | None = None
    ) -> None:
        """Pass on more of the body, the head with it if that has not gone on yet."""
        try:
            used = body.take(data)
        except HeadError as error:
            if head is not None:
                owner.response_started(head, b"", False)
            if self._owner is owner:
                owner.response_failed(f"sent a bad body: {error.detail}")
            return
        exact = used == len(data)
        out = body.forwarded(data if exact else data[:used])
        done = body.done
        if done:
            self._body = None
            self.keep_alive = self.keep_alive and exact
        if head is not None:
            owner.response_started(head, out, done)
        elif out or done:
            owner.response_data(out, done)
        if not exact and not done and self._owner is owner:
            self._waiting = data[used:]
            self.hold(TURN)
            self.runtime.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Others have had their turn."""
        data, self._waiting = self._waiting, b""
        owner, body = self._owner, self._body
        if owner is not None and body is not None and data:
            self._read_body(owner, body, data)
        if not self._waiting:
            self.let_go(TURN)

    def _switch(self) -> None:
        """It is a tunnel from now on, and no pool's any more."""
        self._tunnel = True
        probe_peer(self.transport)
        if self.counted:
            self.counted = False
            self._pool.lost()
