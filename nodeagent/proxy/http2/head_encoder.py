"""Makes header blocks of HTTP/2 of the mesh's heads; see `nodeagent.proxy.http2.headers`."""

from __future__ import annotations

from typing import Final

from nodeagent.proxy.http2.encoding import LineEncoder
from nodeagent.proxy.http2.literals import compact, literal
from nodeagent.proxy.memory import PATIENCE, SELDOM, Memory
from nodeagent.proxy.message import RequestHead, ResponseHead
from nodeagent.proxy.streams import Source


class _Encoded:
    """A head as a header block: the parts before and after the path."""

    __slots__ = ("after", "before", "cost")

    def __init__(self, before: bytes, after: bytes, cost: int) -> None:
        self.before = before
        self.after = after
        self.cost = cost


_EncodedHeads = Memory[tuple[bytes, ...], _Encoded]
_ENCODED_ROOM: Final = 16 * 1024
_PATHS: Final = tuple(literal(b":path", b"x" * size)[:-size] for size in range(1, 127))
"""What stands in front of a path, by its length less one."""
_ROOT: Final = compact(b":path", b"/")
_HTTP: Final = literal(b":scheme", b"http")
_WEBSOCKET: Final = literal(b":protocol", b"websocket")
"""Behind a CONNECT, which is nothing but this here: see `nodeagent.proxy.websocket`."""


class HeaderEncoder:
    """Writes the header blocks of one direction of a connection."""

    __slots__ = ("_heads", "_lines", "_news")

    def __init__(self) -> None:
        self._lines = LineEncoder()
        self._heads: _EncodedHeads = Memory(_ENCODED_ROOM)
        self._news = 0
        """Requests in a row that were not remembered."""

    @property
    def held(self) -> int:
        """Bytes that are kept for this connection, about."""
        return self._heads.held + self._lines.held

    def resize(self, size: int) -> None:
        """Follow the peer's SETTINGS_HEADER_TABLE_SIZE."""
        self._lines.resize(size)

    def request(self, head: RequestHead, source: Source) -> bytes:
        """Return a request's head with the client's address at the end of X-Forwarded-For."""
        key = (head.method, head.fields, head.forwarded_for, source.address_bytes)
        news = self._news
        if news > PATIENCE and news & SELDOM:
            self._news = news + 1
            known = self._request(key, False)
        else:
            young = self._heads.young.get(key)
            if young is None or self._lines.resizes:
                self._news = news + 1
                known = self._request(key, True)
            else:
                self._news = 0
                known = young
        path = head.target
        size = len(path)
        if path == b"/":
            return known.before + _ROOT + known.after
        if size > len(_PATHS):
            return known.before + compact(b":path", path) + known.after
        return b"".join((known.before, _PATHS[size - 1], path, known.after))

    def response(self, head: ResponseHead) -> bytes:
        """Return a response's head, or that of an interim one."""
        key = (head.status_line, head.fields)
        known = self._heads.young.get(key)
        if known is None or self._lines.resizes:
            known = self._whole(key, compact(b":status", b"%d" % head.status), head.fields)
        return known.after

    def trailers(self, lines: bytes) -> bytes:
        """Return trailers."""
        key = (lines,)
        known = self._heads.young.get(key)
        if known is None or self._lines.resizes:
            known = self._whole(key, b"", lines)
        return known.after

    # What is not in the younger generation

    def _request(self, key: tuple[bytes, ...], remembered: bool) -> _Encoded:
        method, fields, forwarded_for, address = key
        lines = _split(fields)
        if lines and not _is_host(lines[0]):  # the pseudo-header fields come first
            lines.sort(key=_is_host, reverse=True)
        forwarded = forwarded_for + b", " + address if forwarded_for else address
        lines.append(b"x-forwarded-for: " + forwarded)
        first = compact(b":method", method) + _HTTP
        if method == b"CONNECT":
            first += _WEBSOCKET
        return self._encode(key, first, lines, remembered)

    def _whole(self, key: tuple[bytes, ...], first: bytes, lines: bytes) -> _Encoded:
        """Return what has no path: all of it is in `after`."""
        encoded = self._encode(key, first, _split(lines))
        encoded.before, encoded.after = b"", encoded.before + encoded.after
        return encoded

    def _encode(
        self, key: tuple[bytes, ...], first: bytes, lines: list[bytes], remembered: bool = True
    ) -> _Encoded:
        heads, encoder = self._heads, self._lines
        if remembered and not encoder.resizes:
            known = heads.older(key)
            if known is not None:
                return known
        resizing = encoder.begin()
        before = encoder.added
        after = encoder.encode(lines)
        encoded = _Encoded(resizing + first, after, sum(map(len, key)) + len(after) + 500)
        if resizing or encoder.added != before:  # what refers to the table means something else now
            heads.clear()
        elif remembered and heads.again(key):
            heads.keep(key, encoded)
        return encoded


def _split(lines: bytes) -> list[bytes]:
    split = lines.split(b"\r\n")
    del split[-1]
    return split


def _is_host(line: bytes) -> bool:
    return line[:5].lower() == b"host:"
