"""Writes responses to a client's HTTP/1.1 connection, in the framing that the client understands."""

from __future__ import annotations

from middleware.contract import Reply
from nodeagent.proxy.body import LAST_CHUNK, Unchunked, chunk
from nodeagent.proxy.connection import AHEAD, probe_peer
from nodeagent.proxy.http1.render import render_reply
from nodeagent.proxy.http1.server_state import ServerState
from nodeagent.proxy.message import CHUNKED, UNTIL_CLOSE, ResponseHead, dated
from nodeagent.proxy.runtime import FOREVER


class ServerWriting(ServerState):
    """A client's connection with what an exchange sends on it."""

    __slots__ = ()

    def respond(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """Send the response's head with the beginning of its body."""
        self._responding = True
        if head.status == 101:
            self._switch(head, data)
            return
        fields = head.fields
        date = self.runtime.date
        if date:
            fields = dated(fields, date)
        keep_alive = self._keep_alive
        if keep_alive:
            gone = self._eof or self.runtime.draining or self.listener.removed
            keep_alive = not gone and (self._body is None or not end)
        length = head.length
        if length < 0:
            if self._modern:
                if length == UNTIL_CLOSE:
                    fields += b"Transfer-Encoding: chunked\r\n"
                    self._rechunk = True
                    data = chunk(data) + (LAST_CHUNK if end else b"")
            else:  # HTTP/1.0 knows no chunks: the end of the connection is the end of the body
                keep_alive = False
                if length == CHUNKED:
                    self._unchunked = Unchunked()
                    data = self._unchunked.payload(data)
        if not self._modern:
            fields = _without_transfer_encoding(fields)  # also that of a response to HEAD, which has no body
        if head.upgrade:  # 426: RFC 9110 section 15.5.22
            fields += b"Connection: upgrade\r\nUpgrade: %b\r\n" % head.upgrade
        if not keep_alive:
            fields += b"Connection: close\r\n"
        elif not self._modern:
            fields += b"Connection: keep-alive\r\n"
        self._keep_alive = keep_alive
        out = b"HTTP/1.1 %b\r\n%b\r\n%b" % (head.status_line, fields, data)
        self.sent += len(out)
        if not end:
            self._set_deadline(self.runtime.now())
        self.transport.write(out)

    def _switch(self, head: ResponseHead, data: bytes) -> None:
        """Switch protocols (RFC 9110 section 7.8): from now on both sides' bytes pass as they are."""
        self._keep_alive = False
        probe_peer(self.transport)
        out = b"HTTP/1.1 %b\r\n%bConnection: upgrade\r\nUpgrade: %b\r\n\r\n%b"
        out %= (head.status_line, head.fields, head.upgrade, data)
        self.sent += len(out)
        self.deadline = FOREVER if self.idle_time is None else self.runtime.now() + self.idle_time
        self.transport.write(out)
        exchange = self._exchange
        if exchange is not None and self._pending:
            ahead = self._pending[self._at :]
            self._pending, self._at = b"", 0
            self.received += len(ahead)
            exchange.request_data(ahead, False)
        self.let_go(AHEAD)
        if exchange is not None and self._eof:
            exchange.request_data(b"", True)

    def send_data(self, data: bytes, end: bool) -> None:
        """Send more of the body, or of a tunnel, where `end` is a half-close."""
        if self._rechunk:
            data = chunk(data) + (LAST_CHUNK if end else b"")
        elif self._unchunked is not None:
            data = self._unchunked.payload(data)
        if (self.idle_time is not None or self._eof) and not self.write_paused:
            self._set_deadline(self.runtime.now())
        transport = self.transport
        if transport.is_closing():
            return
        if data:
            self.sent += len(data)
            transport.write(data)
        if end and self._tunnels:
            transport.write_eof()

    def send_trailers(self, lines: bytes) -> None:
        """End a body that is sent in chunks; its trailers go on to a client that takes them."""
        if self._rechunk and not self.transport.is_closing():
            wanted = self._exchange is not None and self._exchange.takes_trailers
            out = b"0\r\n%b\r\n" % (lines if wanted else b"")
            self.sent += len(out)
            self.transport.write(out)

    def respond_reply(self, reply: Reply, close: bool) -> None:
        """Send a whole response of the mesh itself."""
        self._responding = True
        gone = self._eof or self.runtime.draining or self.listener.removed
        keep_alive = self._keep_alive and not (gone or close) and self._body is None
        self._keep_alive = keep_alive
        out = render_reply(reply, keep_alive, self._to_head, self.runtime.date)
        self.sent += len(out)
        if not self.transport.is_closing():
            self.transport.write(out)

    def informational(self, head: ResponseHead) -> None:
        """Pass a 1xx response on, not to HTTP/1.0 clients."""
        if self._modern:
            out = b"HTTP/1.1 %b\r\n%b\r\n" % (head.status_line, head.fields)
            self.sent += len(out)
            self.transport.write(out)


def _without_transfer_encoding(fields: bytes) -> bytes:
    """Remove Transfer-Encoding, for clients that do not know it."""
    lines = fields.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"transfer-encoding:"))
