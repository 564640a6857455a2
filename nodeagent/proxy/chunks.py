"""Chunked transfer coding (RFC 9112 section 7.1): follows the framing of a body that is passed on.

The bytes are passed on unchanged; this reader finds where the body ends and refuses framing that two parsers
could read differently, or that is mostly overhead. It keeps at most one unfinished line. Trailers are passed
on only if both sides want them: a server that does not read the trailer section takes it for the next request
(RFC 9110 section 6.5.1 lets an intermediary drop it).
"""

from __future__ import annotations

import re
from typing import Final

from nodeagent.proxy.message import FIELD, TCHAR, HeadError

CHUNKS_PER_TURN: Final = 512
"""Chunks that are followed before other connections have their turn: well under a millisecond."""
LARGEST_CHUNK: Final = 2**31 - 1
"""Bytes. Some servers take a size modulo 2**32; larger ones are refused."""
MOST_OVERHEAD: Final = 16 * 1024
"""Bytes of size lines beyond what is usual, as Go counts them since CVE-2023-39326: a chunk is allowed 16
bytes and twice its data."""

_EXTENSIONS: Final = (
    rb"(?:;" + TCHAR + rb"++(?:=(?:" + TCHAR + rb'++|"[\t\x20-\x21\x23-\x5b\x5d-\x7e]*+"))?)*+'
)
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})" + _EXTENSIONS + rb"\r\n")
_SIZE_PREFIX: Final = re.compile(rb"[0-9A-Fa-f]{1,15}(?:;[\t\x20-\x7e]*+)?+\r?")
_TRAILER_LINES: Final = re.compile(rb"(?:%b)*+" % FIELD)
_TRAILER_START: Final = re.compile(TCHAR + rb"++(?::[\t\x20-\x7e\x80-\xff]*+\r?)?+|\r?")
# RFC 9110 section 6.5.1: what decides framing, routing, authentication or the meaning of the content. Some
# recipients merge trailers into the header, where these would have an effect that we have not checked.
FORBIDDEN_TRAILER: Final = re.compile(
    rb"\n(?:authorization|connection|content-(?:encoding|length|range|type)|cookie|expect|forwarded|host"
    rb"|keep-alive|max-forwards|proxy-(?:authorization|connection)|range|set-cookie|te|trailer"
    rb"|transfer-encoding|upgrade|x-forwarded-[a-z]+):",
    re.IGNORECASE,
)
_LONGEST_LINE: Final = 4096

_AT_SIZE, _IN_DATA, _AFTER_DATA, _IN_TRAILERS, _DONE = range(5)


class ChunkedReader:
    """Feed it the body's bytes as they come; `done` once the last trailer line has passed.

    With `keep_payload` the data of the chunks is collected in `payload` (for a receiver that does not know
    chunks); the caller empties the list. `trailers` lets trailer fields pass.
    """

    __slots__ = (
        "_cut",
        "_held",
        "_overhead",
        "_remaining",
        "_state",
        "_trailer_room",
        "_trailers",
        "keep_payload",
        "payload",
        "trailer_lines",
    )

    def __init__(
        self, keep_payload: bool = False, trailer_limit: int = 16 * 1024, trailers: bool = False
    ) -> None:
        self._state = _AT_SIZE
        self._remaining = 0
        self._held = b""
        self._overhead = 0
        self._trailer_room = trailer_limit
        self._trailers = trailers
        self._cut = -1
        """Where the trailer section began in what was fed last; negative: not in it."""
        self.keep_payload = keep_payload
        self.payload: list[bytes] = []
        self.trailer_lines = b""
        """Collected with the payload."""

    @property
    def done(self) -> bool:
        """True when the body has ended."""
        return self._state == _DONE

    def feed(self, data: bytes) -> int:
        """Follow `data`; return how many of its bytes have been followed.

        They are all of them unless the body has ended (`done`), or there are so many chunks that others
        must have their turn first: then feed the rest again later.

        Raises:
            HeadError: the framing is malformed; nothing of `data` may be trusted.
        """
        held = len(self._held)
        if held:
            data = self._held + data
            self._held = b""
        self._cut = 0 if self._state == _IN_TRAILERS else -1
        position = 0
        budget = CHUNKS_PER_TURN
        while self._state != _DONE:
            if self._state == _AT_SIZE:
                budget -= 1
                if not budget and position > held:
                    break
            following = self._advance(data, position)
            if following < 0:
                return len(data) - held
            position = following
            if self._state == _IN_TRAILERS and self._cut < 0:
                self._cut = position - held
        return position - held

    def passed_on(self, data: bytes) -> bytes:
        """Return what goes on for `data`, which is what `feed` has just followed."""
        if self._cut < 0 or self._trailers:
            return data
        ended = b"\r\n" if self._state == _DONE else b""
        if len(data) == self._cut + 2 and ended:
            return data  # no trailers, the usual case
        return data[: self._cut] + ended

    def _advance(self, data: bytes, position: int) -> int:
        """Take one step; return the next position, or -1 when more bytes are needed."""
        if self._state == _AT_SIZE:
            return self._read_size(data, position)
        if self._state == _IN_DATA:
            return self._skip_data(data, position)
        if self._state == _AFTER_DATA:
            ending = data[position : position + 2]
            if ending == b"\r\n":
                self._state = _AT_SIZE
                return position + 2
            if b"\r\n".startswith(ending):
                return self._hold(data, position)
            raise HeadError("chunk", "a chunk's data does not end with CRLF")
        return self._read_trailers(data, position)

    def _read_size(self, data: bytes, position: int) -> int:
        match = _SIZE_LINE.match(data, position, position + _LONGEST_LINE)
        if match is None:
            rest = data[position : position + _LONGEST_LINE]
            if len(rest) == _LONGEST_LINE or (rest and _SIZE_PREFIX.fullmatch(rest) is None):
                raise HeadError("chunk", "a chunk's size line is malformed or too long")
            return self._hold(data, position)
        size = int(match[1], 16)
        end = match.end()
        if size > LARGEST_CHUNK:
            raise HeadError("chunk", f"a chunk of more than {LARGEST_CHUNK} bytes")
        overhead = self._overhead + end - position - 14 - 2 * size  # its data's own CRLF included
        self._overhead = overhead = max(overhead, 0)
        if overhead > MOST_OVERHEAD:
            raise HeadError("chunk", "the chunks are mostly overhead")
        self._remaining = size
        self._state = _IN_DATA if size else _IN_TRAILERS
        return end

    def _skip_data(self, data: bytes, position: int) -> int:
        available = len(data) - position
        taken = min(available, self._remaining)
        if self.keep_payload and taken:
            self.payload.append(data[position : position + taken])
        self._remaining -= taken
        if self._remaining:
            return -1
        self._state = _AFTER_DATA
        return position + taken

    def _read_trailers(self, data: bytes, position: int) -> int:
        match = _TRAILER_LINES.match(data, position)
        assert match is not None
        end = match.end()
        if FORBIDDEN_TRAILER.search(b"\n" + match[0]):
            raise HeadError("trailer", "a trailer field that may not be one (RFC 9110 section 6.5.1)")
        if self.keep_payload:
            self.trailer_lines += match[0]
        rest = data[end:]
        ended = rest[:2] == b"\r\n"
        self._trailer_room -= end - position
        if self._trailer_room < (2 if ended else len(rest) + 1):
            raise HeadError("trailer", "the trailer section is too large")
        if ended:
            self._state = _DONE
            return end + 2
        if _TRAILER_START.fullmatch(rest) is None:
            raise HeadError("trailer", "the trailer section is malformed")
        return self._hold(data, end)

    def _hold(self, data: bytes, position: int) -> int:
        self._held = data[position:]
        return -1
