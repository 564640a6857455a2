"""STAND-IN, replaced by branch hpack."""

from __future__ import annotations

import hpack

from nodeagent.proxy.message import *
from nodeagent.proxy.message import NO_BODY, UNTIL_CLOSE, RequestHead, ResponseHead


class StreamFault(Exception):
    def __init__(self, reason, detail):
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class CompressionFault(Exception):
    def __init__(self, detail):
        super().__init__(detail)
        self.detail = detail


BAD = (b"connection", b"transfer-encoding", b"upgrade", b"keep-alive", b"proxy-connection")


class HeaderDecoder:
    def __init__(self, limits, table_size=4096):
        self.d = hpack.Decoder()
        self.limits = limits

    def _fields(self, block):
        try:
            return [(n, v) for n, v in self.d.decode(block, raw=True)]
        except hpack.HPACKError as e:
            raise CompressionFault(str(e)) from None

    def request(self, block, end_stream):
        ps = {}
        lines = b""
        ff = b""
        trailers = False
        length = None
        for n, v in self._fields(block):
            if n.startswith(b":"):
                if lines or n in ps or n not in (b":method", b":path", b":scheme", b":authority"):
                    raise StreamFault("malformed_field", "pseudo")
                ps[n] = v
            elif n in BAD or n != n.lower():
                raise StreamFault("malformed_field", n.decode())
            elif n == b"te":
                if v != b"trailers":
                    raise StreamFault("malformed_field", "te")
                trailers = True
                lines += b"te: trailers\r\n"
            elif n == b"x-forwarded-for":
                ff = v
            else:
                if n == b"content-length":
                    length = int(v)
                lines += n + b": " + v + b"\r\n"
        if ps.get(b":method") == b"CONNECT":
            raise StreamFault("connect", "CONNECT")
        if not ps.get(b":path") or b":scheme" not in ps or b":method" not in ps:
            raise StreamFault("malformed_line", "pseudo-header fields are missing")
        if end_stream and length:
            raise StreamFault("content_length", "end")
        h = RequestHead(
            ps[b":method"], ps[b":path"], b"1", b"Host: " + ps.get(b":authority", b"") + b"\r\n" + lines, 0
        )
        h.forwarded_for = ff
        h.trailers = trailers
        h.length = NO_BODY if end_stream else UNTIL_CLOSE if length is None else length
        return h

    def response(self, block, end_stream, to_head=False):
        st = None
        lines = b""
        length = None
        for n, v in self._fields(block):
            if n == b":status":
                st = int(v)
            elif n.startswith(b":"):
                raise StreamFault("malformed_field", "pseudo")
            else:
                if n == b"content-length":
                    length = int(v)
                lines += n + b": " + v + b"\r\n"
        if st is None:
            raise StreamFault("malformed_line", "no status")
        h = ResponseHead(st, b"1", b"%d OK" % st, lines, 0)
        bodiless = to_head or st < 200 or st in (204, 304)
        if end_stream and length and not bodiless:
            raise StreamFault("content_length", "end")
        if end_stream and length is None and not bodiless:
            h.fields += b"Content-Length: 0\r\n"
        h.length = NO_BODY if (bodiless or end_stream) else UNTIL_CLOSE if length is None else length
        return h

    def trailers(self, block):
        out = b""
        for n, v in self._fields(block):
            if n.startswith(b":"):
                raise StreamFault("trailer", "pseudo")
            out += n + b": " + v + b"\r\n"
        return out

    def skip(self, block):
        self._fields(block)


class HeaderEncoder:
    def __init__(self):
        self.e = hpack.Encoder()

    def resize(self, size):
        self.e.header_table_size = size

    def _lines(self, lines):
        out = []
        for l in lines.split(b"\r\n"):
            n, c, v = l.partition(b":")
            if c and n.lower() not in BAD:
                out.append((n.lower(), v.strip()))
        return out

    def request(self, head, source):
        fs = self._lines(head.fields)
        host = [v for n, v in fs if n == b"host"]
        ff = (head.forwarded_for + b", " if head.forwarded_for else b"") + source.address_bytes
        return self.e.encode(
            [
                (b":method", head.method),
                (b":scheme", b"http"),
                (b":path", head.target),
                (b":authority", host[0] if host else b""),
            ]
            + [f for f in fs if f[0] != b"host"]
            + [(b"x-forwarded-for", ff)]
        )

    def response(self, head):
        return self.e.encode([(b":status", b"%d" % head.status)] + self._lines(head.fields))

    def trailers(self, lines):
        return self.e.encode(self._lines(lines))
