"""`python -m hack.bench.block_load FILE URL`: sends the header blocks of a file over HTTP/2 without TLS.

h2load sends the same fields in every request. This sends blocks that `hack.bench.blocks` has prepared, no two
of which need be alike, and costs as little as h2load. Each connection of the file has a number of streams at
once, until the time is over or a connection has sent all its blocks. It prints JSON.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import click
import hpack
import msgspec
import uvloop

from hack.bench.blocks import read_blocks
from hack.bench.http2_load import Http2Load
from hack.kit.ports import LOCALHOST

_HEAD: Final = 9
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK = _END_STREAM = 0x1
_END_HEADERS: Final = 0x4
_TABLE_SIZE: Final = 0x1
_USUAL_TABLE: Final = 4096
_WINDOW: Final = 2**30 - 1
OPENING: Final = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + struct.pack(">BHBBLHLHL", 0, 12, _SETTINGS, 0, 0, 2, 0, 4, _WINDOW)
    + struct.pack(">BHBBLL", 0, 4, 8, 0, 0, _WINDOW - 65535)
)
"""Preface, SETTINGS (no push, a window as h2load has it), WINDOW_UPDATE of the connection."""
_CONNECT_TIME: Final = 5.0


class Refused(Exception):
    """The proxy answered with something other than what was asked for."""


def request_frames(blocks: Sequence[bytes]) -> list[bytes]:
    """Return a HEADERS frame that ends its stream for each block, on the streams 1, 3, 5 ..."""
    return [
        struct.pack(
            ">BHBBL",
            len(block) >> 16,
            len(block) & 0xFFFF,
            _HEADERS,
            _END_STREAM | _END_HEADERS,
            2 * number + 1,
        )
        + block
        for number, block in enumerate(blocks)
    ]


class Answers:
    """Reads what comes over one connection; `replies` has what is owed for it."""

    def __init__(self) -> None:
        self.replies = b""
        self.body = 0
        self._rest = b""
        self._first = True

    def feed(self, data: bytes) -> int:
        """Return how many streams have ended with this.

        Raises:
            Refused: a stream or the connection was given up, or the first response is no 200.
        """
        if self._rest:
            data = self._rest + data
        position, end, ended = 0, len(data), 0
        while position + _HEAD <= end:
            start = position + _HEAD
            position = start + (data[position] << 16 | data[position + 1] << 8 | data[position + 2])
            if position > end:
                position = start - _HEAD
                break
            kind, flags = data[start - 6], data[start - 5]
            if kind == _DATA:
                self.body += position - start
                ended += flags & _END_STREAM
            elif kind == _HEADERS:
                ended += flags & _END_STREAM
                if self._first:
                    self._first = False
                    _check_status(data[start:position])
            else:
                self._control(kind, flags, data[start:position])
        self._rest = data[position:]
        return ended

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind in (_RST_STREAM, _GOAWAY):
            raise Refused(f"frame of type {kind}: {payload.hex()}")
        if kind == _SETTINGS and not flags & _ACK:
            for name, value in struct.iter_unpack(">HL", payload):
                if name == _TABLE_SIZE and value < _USUAL_TABLE:
                    raise Refused(f"a table of {value} bytes, and the blocks are made for {_USUAL_TABLE}")
            self.replies += struct.pack(">BHBBL", 0, 0, _SETTINGS, _ACK, 0)
        elif kind == _PING and not flags & _ACK:
            self.replies += struct.pack(">BHBBL", 0, len(payload), _PING, _ACK, 0) + payload


def _check_status(block: bytes) -> None:
    fields = dict(hpack.Decoder().decode(block, raw=True))
    if fields.get(b":status") != b"200":
        raise Refused(f"a response with {fields}")


class _Client(asyncio.Protocol):
    """One connection with its blocks."""

    def __init__(self, frames: Sequence[bytes], streams: int, ended: asyncio.Event) -> None:
        self.answers = Answers()
        self.done = 0
        self.bytes = 0
        self.problem = ""
        self._streams = streams
        self._ended = ended
        self._frames = frames
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin HTTP/2."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class
        self.transport.write(OPENING)

    def start(self) -> None:
        """Send the first requests."""
        self._sent = self._streams
        self.transport.write(b"".join(self._frames[: self._streams]))

    def data_received(self, data: bytes) -> None:
        """Count what has ended and send as many again."""
        if self._ended.is_set():
            return
        self.bytes += len(data)
        try:
            ended = self.answers.feed(data)
        except Refused as error:
            self._end(str(error))
            return
        self.done += ended
        more = self._frames[self._sent : self._sent + ended]
        self._sent += ended
        if self.answers.replies or more:
            self.transport.write(self.answers.replies + b"".join(more))
            self.answers.replies = b""
        if len(more) < ended:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell that it has gone before its time."""
        if not self._ended.is_set():
            self._end(f"the connection was closed: {error or 'in order'}")

    def _end(self, problem: str = "") -> None:
        self.problem = problem
        self._ended.set()


async def put_load(
    url: str, blocks: Sequence[Sequence[bytes]], streams: int, seconds: float
) -> list[_Client]:
    """Connect, send until the time is over or a connection has no more blocks, and return the connections."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    host, port = parts.hostname or LOCALHOST, parts.port or 80
    ended = asyncio.Event()
    clients = []
    for connection in blocks:
        frames = request_frames(connection)
        async with asyncio.timeout(_CONNECT_TIME):
            _, client = await loop.create_connection(
                lambda frames=frames: _Client(frames, streams, ended),  # type: ignore[misc]
                host,
                port,
            )
        clients.append(client)
    for client in clients:
        client.start()
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        ended.set()
    return clients


def summed_up(clients: Sequence[_Client], streams: int, seconds: float, answer: int) -> Http2Load:
    """Return what came of it; a connection whose answers are not of that size counts as wrong."""
    problems = [client.problem for client in clients if client.problem]
    if problems:
        raise click.ClickException(problems[0])
    wrong = sum(
        not client.done * answer <= client.answers.body <= (client.done + streams) * answer
        for client in clients
    )
    return Http2Load(
        sum(client.done for client in clients),
        round(seconds * 1e6),
        sum(client.bytes for client in clients),
        {"connections with wrong answers": wrong},
    )


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("url")
@click.option("--streams", type=click.IntRange(1), default=10, show_default=True, help="For each connection.")
@click.option("--seconds", type=click.FloatRange(0.1), default=2.0, show_default=True)
@click.option("--answer", type=click.IntRange(0), required=True, help="Bytes of each response's body.")
def main(file: Path, url: str, streams: int, seconds: float, answer: int) -> None:
    """Send the header blocks of FILE to URL."""
    blocks = read_blocks(file)
    began = time.perf_counter()
    clients = uvloop.run(put_load(url, blocks, streams, seconds))
    load = summed_up(clients, streams, time.perf_counter() - began, answer)
    click.echo(msgspec.json.encode(load).decode())


if __name__ == "__main__":
    main()
