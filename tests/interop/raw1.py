"""A client of HTTP/1 that sends whatever it is told to, and reads answers one after another."""

from __future__ import annotations

import socket

import msgspec

from tests.interop.raw import PATIENCE


class Answer(msgspec.Struct, frozen=True):
    """A whole response. `of_mesh`: the mesh has given it itself."""

    status: int
    body: bytes
    of_mesh: bool
    closes: bool


class Http1Client:
    """A connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, PATIENCE)
        self._reader = self._socket.makefile("rb")

    def __enter__(self) -> Http1Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._socket.close()

    def send(self, what: bytes, end: bool = False) -> None:
        """Send bytes, and perhaps the end."""
        self._socket.sendall(what)
        if end:
            self._socket.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer | None:
        """Read the next final response; None if the connection has ended, or its answer is not whole."""
        try:
            while (answer := self._read(method)) is not None and answer.status < 200:
                pass
        except (ConnectionResetError, EOFError):
            return None
        return answer

    def _line(self) -> bytes:
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError
        return line[:-2]

    def _exactly(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def _read(self, method: str) -> Answer | None:
        start = self._reader.readline()
        if not start:
            return None
        assert start.startswith(b"HTTP/1.1 "), start
        fields: dict[bytes, bytes] = {}
        while line := self._line():
            name, _, value = line.partition(b":")
            fields[name.lower()] = value.strip()
        status = int(start.split()[1])
        body = b""
        if status >= 200 and status not in (204, 304) and method != "HEAD":
            body = self._body(fields)
        return Answer(status, body, b"proxy-status" in fields, fields.get(b"connection") == b"close")

    def _body(self, fields: dict[bytes, bytes]) -> bytes:
        if b"transfer-encoding" not in fields:
            if b"content-length" not in fields:
                return self._reader.read()
            return self._exactly(int(fields[b"content-length"]))
        body = b""
        while size := int(self._line().partition(b";")[0], 16):
            body += self._exactly(size)
            assert self._line() == b""
        while self._line():
            pass
        return body
