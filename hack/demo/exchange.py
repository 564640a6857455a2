"""Clients that hide nothing: HTTP with one request at a time and no second try, and DNS queries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Literal

import dns.asyncquery
import dns.message
import dns.name
import dns.rcode
import msgspec

TIMEOUT = 10.0
"""Seconds after which an answer is taken for lost."""


class Answer(msgspec.Struct, frozen=True):
    """A response: fields by their name in lower case."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's value."""
        return json.loads(self.body)

    @property
    def name(self) -> str:
        """Which sample server answered; empty if none did."""
        return (
            str(self.json()["name"])
            if self.fields.get("content-type", "").startswith("application/json")
            else ""
        )


class Connection:
    """A keep-alive HTTP/1.1 connection to `address` for the host `host`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host

    @classmethod
    async def open(cls, address: str, port: int, host: str = "") -> Connection:
        """Connect.

        Raises:
            OSError: nothing listens there.
        """
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(address, port)
        return cls(reader, writer, f"{host or address}:{port}")

    async def get(self, path: str = "/") -> Answer:
        """Send a request and read its response.

        Raises:
            OSError: the connection broke, or no answer came (TimeoutError).
        """
        async with asyncio.timeout(TIMEOUT):
            status, fields = await self.begin(path)
            return Answer(status, fields, await self.finish(fields))

    async def begin(self, path: str) -> tuple[int, Mapping[str, str]]:
        """Send a request and read the head of its response; read the rest with `finish`."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        await self._writer.drain()
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("closed before a response came") from error
        first, *lines = head.rstrip("\r\n").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split(" ")[1]), fields

    async def finish(self, fields: Mapping[str, str]) -> bytes:
        """Read the body of the response whose head is `fields`."""
        try:
            if fields.get("transfer-encoding") != "chunked":
                return await self._reader.readexactly(int(fields.get("content-length", "0")))
            body = b""
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readuntil(b"\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("closed in the middle of a response") from error
        return body

    async def close(self) -> None:
        """Close it."""
        self._writer.close()


async def fetch(address: str, port: int, path: str, host: str = "") -> Answer:
    """Send one request on a connection of its own.

    Raises:
        OSError: nothing listens there, the connection broke, or no answer came.
    """
    connection = await Connection.open(address, port, host)
    try:
        return await connection.get(path)
    finally:
        await connection.close()


class Resolved(msgspec.Struct, frozen=True):
    """What a DNS server said: the response code (`NOERROR`) and the answers as text."""

    code: str
    answers: tuple[str, ...]


async def resolve(port: int, name: str, kind: str = "A", over: Literal["udp", "tcp"] = "udp") -> Resolved:
    """Ask the DNS server at this port of 127.0.0.1.

    Raises:
        OSError: it does not answer.
        dns.exception.Timeout: it does not answer in time.
    """
    query = dns.message.make_query(dns.name.from_text(name), kind)
    ask = dns.asyncquery.udp if over == "udp" else dns.asyncquery.tcp
    answer = await ask(query, "127.0.0.1", port=port, timeout=TIMEOUT)
    texts = tuple(item.to_text() for rrset in answer.answer for item in rrset)
    return Resolved(dns.rcode.to_text(answer.rcode()), texts)
