"""Peers of HTTP/1.1."""

from __future__ import annotations

import re
from typing import Final

from tests.exchange.ledger import Asked, Ledger, Try
from tests.exchange.peers import Client, Endpoint

_REQUEST: Final = re.compile(rb"([A-Z]+) /(\d+) HTTP/1\.1\r\n")
_RESPONSE: Final = re.compile(rb"HTTP/1\.1 (\d+) [^\r]*\r\n")
_CHUNK: Final = re.compile(rb"([0-9a-fA-F]+)\r\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Messages:
    """Takes bytes of one direction apart: heads, then pieces of a body, then its end."""

    def __init__(self) -> None:
        self.rest = b""
        self._left = 0
        """Bytes that are to come of the body, or of its chunk."""
        self._chunked = False

    def head(self, pattern: re.Pattern[bytes]) -> tuple[re.Match[bytes], dict[str, str]] | None:
        """Return the next head, if it is all there."""
        end = self.rest.find(b"\r\n\r\n")
        if end < 0:
            return None
        match = pattern.match(self.rest)
        assert match is not None, self.rest[:100]
        lines = self.rest[match.end() : max(end, match.end())].decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if line)
        self.rest = self.rest[end + 4 :]
        return match, {name.lower(): value for name, value in fields.items()}

    def begin(self, fields: dict[str, str]) -> None:
        """Have a body come."""
        self._chunked = fields.get("transfer-encoding") == "chunked"
        assert not (self._chunked and "content-length" in fields), fields
        self._left = int(fields.get("content-length", "0"))

    def body(self) -> tuple[bytes, dict[str, str] | None]:
        """Return what has come of a body; with trailers, perhaps none, if that is its end."""
        if not self._chunked:
            data, self.rest = self.rest[: self._left], self.rest[self._left :]
            self._left -= len(data)
            return data, ({} if not self._left else None)
        out = b""
        while True:
            if self._left:
                if self._left > 2:
                    size = min(self._left - 2, len(self.rest))
                    out, self.rest, self._left = out + self.rest[:size], self.rest[size:], self._left - size
                if self._left > 2 or len(self.rest) < 2:
                    return out, None
                assert self.rest.startswith(b"\r\n")
                self.rest, self._left = self.rest[2:], 0
            match = _CHUNK.match(self.rest)
            if match is None:
                assert b"\r\n" not in self.rest, self.rest[:40]
                return out, None
            size = int(match[1], 16)
            if size:
                self.rest, self._left = self.rest[match.end() :], size + 2
                continue
            behind = self.rest[match.end() - 2 :]
            end = behind.find(b"\r\n\r\n")
            if end < 0:
                return out, None
            self.rest = behind[end + 4 :]
            lines = [line for line in behind[:end].decode().split("\r\n") if line]
            return out, {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


class Http1Client(Client):
    """A client that asks, perhaps ahead of the answers."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self._messages = Messages()
        self._pieces: list[bytes] = []
        self._last = False
        """The mesh has said that it closes after this answer."""

    @property
    def may_ask(self) -> bool:
        return self.active and not (self._pieces or self._last or self.mesh_ended)

    @property
    def sending(self) -> bool:
        return self.active and bool(self._pieces)

    def ask(self, method: str, size: int, *, known_length: bool, trailer: bool, most: int) -> Asked:
        asked = self.ledger.ask(method, size, trailer and not known_length and method != "GET")
        fields = b"Host: web\r\nTE: trailers\r\n"
        body = b""
        if method != "GET":
            fields += b"Content-Length: %d\r\n" % size if known_length else b"Transfer-Encoding: chunked\r\n"
            body = asked.whole
            if not known_length:
                half = len(body) // 2
                parts = [part for part in (body[:half], body[half:]) if part]
                end = b"X-Sum: %d\r\n" % asked.number if asked.trailer else b""
                body = b"".join(map(_chunk, parts)) + b"0\r\n%b\r\n" % end
        head = b"%b /%d HTTP/1.1\r\n%b\r\n" % (method.encode(), asked.number, fields)
        self.waiting.append(asked)
        first = head + body[:most]
        cut = len(first) if most > 3 else len(head) - 3  # or not even all of the head
        self.says(first[:cut])
        rest = first[cut:] + body[most:]
        if rest:
            self._pieces.append(rest)
        self.flush()
        return asked

    def go_on(self, most: int) -> bool:
        if not self._pieces or not self.active:
            return False
        piece = self._pieces.pop(0)
        self.says(piece[:most])
        if piece[most:]:
            self._pieces.insert(0, piece[most:])
        self.flush()
        return True

    def left(self) -> None:
        self._pieces.clear()
        super().left()

    def read(self, data: bytes) -> None:
        messages = self._messages
        messages.rest += data
        while messages.rest:
            assert self.waiting, messages.rest[:100]
            asked = self.waiting[0]
            if asked.body is None:
                found = messages.head(_RESPONSE)
                if found is None:
                    return
                match, fields = found
                if int(match[1]) < 200:
                    continue
                self.ledger.answered(asked, int(match[1]), fields)
                self._last = fields.get("connection") == "close"
                messages.begin(fields)
            assert asked.body is not None
            piece, trailers = messages.body()
            asked.body.came(piece)
            if trailers is None:
                return
            self.ledger.finished(self.waiting.pop(0), trailers.get("x-sum"))


class Http1Endpoint(Endpoint):
    """An endpoint that answers one request after the other."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self._messages = Messages()
        self._coming: Try | None = None
        self._framing = ""

    @property
    def _first(self) -> Try | None:
        return next((one for one in self.tries if not (one.ended or one.over)), None)

    def answerable(self) -> list[Try]:
        first = self._first
        return [first] if first is not None and first.answer is None and self.active else []

    def unfinished(self) -> list[Try]:
        first = self._first
        return [first] if first is not None and first.answer is not None and self.active else []

    def respond(self, one: Try, status: int, size: int, framing: str, most: int) -> None:
        answer = self.ledger.answer(one, status, size)
        head = b"HTTP/1.1 %d X\r\nX-Answer: %d\r\n" % (status, answer.number)
        self._framing = framing
        if framing == "length":
            head += b"Content-Length: %d\r\n" % size
        elif framing == "close":
            answer.until_close = True
        else:
            answer.trailer = framing == "trailer"
            head += b"Transfer-Encoding: chunked\r\n"
        self.says(head + b"\r\n")
        if most:
            self.go_on(one, most)
        self.flush()

    def go_on(self, one: Try, most: int) -> bool:
        if not self.active:
            return False
        piece, one.left = one.left[:most], one.left[most:]
        chunked = self._framing in ("chunked", "trailer")
        if piece:
            self.says(_chunk(piece) if chunked else piece)
        if not one.left:
            one.ended = True
            if chunked:
                assert one.answer is not None
                end = b"X-Sum: %d\r\n" % one.answer.number if one.answer.trailer else b""
                self.says(b"0\r\n%b\r\n" % end)
        self.flush()
        if one.ended and self._framing == "close":
            self.dribble = None
            self.flush()
            self.leaves("ends")
        return True

    def inform(self, one: Try, count: int) -> None:
        self.says(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * count)
        self.flush()

    def blurt(self, one: Try, size: int) -> None:
        """Answer whole, and say in the same breath what nobody asked for."""
        self.dribble = None
        answer = self.ledger.answer(one, 200, size)
        one.left, one.ended = b"", True
        head = b"HTTP/1.1 200 X\r\nX-Answer: %d\r\nContent-Length: %d\r\n\r\n" % (answer.number, size)
        self.says(head + answer.whole + b"HTTP/1.1 200 X\r\nX-Answer: 0\r\nContent-Length: 7\r\n\r\nsurplus")
        self.flush()

    def babble(self) -> None:
        """Say what is no HTTP."""
        self.says(b"nonsense\r\n\r\n")
        self.flush()

    def read(self, data: bytes) -> None:
        messages = self._messages
        messages.rest += data
        while messages.rest or self._coming is not None:
            if self._coming is None:
                found = messages.head(_REQUEST)
                if found is None:
                    return
                match, fields = found
                self._coming = self.ledger.reached(
                    match[1].decode(), int(match[2]), self.hears_all, refused=False, late=bool(self.gone)
                )
                self.tries.append(self._coming)
                messages.begin(fields)
            piece, trailers = messages.body()
            self._coming.data(piece)
            if trailers is None:
                return
            self._coming.end(trailers.get("x-sum"))
            self._coming = None
