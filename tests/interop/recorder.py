"""An endpoint of HTTP/1 that reads as strictly as can be, and says what others might read otherwise."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from typing import BinaryIO

from tests.dataplane.peers import on_thread

_REQUEST_LINE = re.compile(rb"([A-Z]+) (/[!-~]*|\*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*)")
_SIZE = re.compile(rb"[0-9a-f]+")
_FRAMING = ("content-length", "transfer-encoding", "host")


class Unclear(Exception):
    """Bytes that not every server would read alike."""


class Recorder:
    """Answers `hello TARGET`. `asked` has the requests that came, `unclear` what was wrong with others."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.unclear: list[str] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Serve while the block runs; yields the port."""
        with on_thread(self._serve) as endpoint:
            yield endpoint.port

    def _serve(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as reader:
            try:
                while answer := self._read_request(reader):
                    connection.sendall(answer)
            except Unclear as error:
                self.unclear.append(str(error))

    def _read_request(self, reader: BinaryIO) -> bytes:
        """Return the answer to the next request; none if the connection ended before, or within its body."""
        start = reader.readline()
        if not start:
            return b""
        match = _REQUEST_LINE.fullmatch(_line(start))
        if match is None:
            raise Unclear(repr(start))
        fields = _fields(reader)
        count = {name: sum(1 for one, _ in fields if one == name) for name in _FRAMING}
        if count["host"] != 1 or count["content-length"] + count["transfer-encoding"] > 1:
            raise Unclear(f"{match[0]!r}: {count}")
        values = dict(fields)
        self.asked.append(f"{match[1].decode()} {match[2].decode()} {values.get('x-marker', '')}")
        if not _body_is_whole(reader, values):
            return b""
        body = b"hello %b\n" % match[2]
        if match[1] == b"HEAD":
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _line(line: bytes) -> bytes:
    """Return a line without its end."""
    if not line.endswith(b"\r\n") or re.search(rb"[\r\n\0]", line[:-2]):
        raise Unclear(repr(line))
    return line[:-2]


def _fields(reader: BinaryIO) -> list[tuple[str, str]]:
    """Return the fields up to an empty line."""
    found = []
    while line := _line(reader.readline()):
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Unclear(repr(line))
        found.append((match[1].decode().lower(), match[2].decode("latin-1")))
    return found


def _body_is_whole(reader: BinaryIO, fields: dict[str, str]) -> bool:
    """Read a body and what follows it; it may break off, which is unambiguous."""
    if "transfer-encoding" not in fields:
        length = fields.get("content-length", "0")
        if not re.fullmatch("[0-9]+", length):
            raise Unclear(f"content-length: {length!r}")
        return len(reader.read(int(length))) == int(length)
    if fields["transfer-encoding"] != "chunked":
        raise Unclear(f"transfer-encoding: {fields['transfer-encoding']!r}")
    while line := reader.readline():
        if not line.endswith(b"\n"):
            return False
        if _SIZE.fullmatch(_line(line)) is None:
            raise Unclear(repr(line))
        size = int(line, 16)
        if not size:
            trailers = {name for name, _ in _fields(reader)}
            if trailers & set(_FRAMING):
                raise Unclear(f"trailers: {trailers}")
            return True
        chunk = reader.read(size + 2)
        if len(chunk) < size + 2:
            return False
        if not chunk.endswith(b"\r\n"):
            raise Unclear(f"a chunk of {size}: {chunk!r}")
    return False
