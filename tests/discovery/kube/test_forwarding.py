"""HTTP over a forwarded port: answers in any pieces, cut short, and what is no answer at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import aiohttp
import pytest

from discovery.kube.commands.forwarding import LONGEST_HEAD, Forwarded, Response, get
from discovery.kube.failure import ApiError

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nabcd\r\nA\r\n0123456789\r\n0\r\n\r\n"
)
COUNTED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nready"
LAST = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
UNFRAMED = b"HTTP/1.0 200\r\nServer: x\r\n\r\nto the end"


class Socket:
    """A WebSocket that brings these messages, and then its end."""

    def __init__(self, messages: Iterable[bytes]) -> None:
        self.sent: list[bytes] = []
        self._messages = iter([b"\x00\x98\x3a", b"\x01\x98\x3a", *messages])

    async def send_bytes(self, data: bytes) -> None:
        self.sent.append(data)

    async def receive(self, patience: float | None) -> aiohttp.WSMessage:
        data = next(self._messages, None)
        if data is None:
            return aiohttp.WSMessage(aiohttp.WSMsgType.CLOSED, None, None)
        return aiohttp.WSMessage(aiohttp.WSMsgType.BINARY, data, None)


def forwarded(*messages: bytes) -> tuple[Forwarded, Socket]:
    socket = Socket(messages)
    return Forwarded(cast("aiohttp.ClientWebSocketResponse", socket), 1.0), socket


def data(whole: bytes, size: int) -> list[bytes]:
    """Return messages of the data channel, of this size at most."""
    return [b"\x00" + whole[at : at + size] for at in range(0, len(whole), size)]


@pytest.mark.parametrize("size", [1, 3, 7, 10_000])
async def test_one_answer_after_the_other_in_any_pieces(size: int) -> None:
    there, socket = forwarded(*data(CHUNKED + COUNTED + LAST, size))
    assert await get(there, "/metrics", 1000) == Response(200, b"abcd0123456789", whole=True, reusable=True)
    assert await get(there, "/readyz?verbose=1", 1000) == Response(503, b"ready", whole=True, reusable=True)
    assert await get(there, "/", 1000) == Response(200, b"ok", whole=True, reusable=False)
    assert socket.sent[1].startswith(b"\x00GET /readyz?verbose=1 HTTP/1.1\r\nHost: localhost\r\n")


@pytest.mark.parametrize("size", [1, 10_000])
async def test_a_body_without_a_length_ends_with_the_connection(size: int) -> None:
    there, _ = forwarded(*data(UNFRAMED, size))
    assert await get(there, "/", 1000) == Response(200, b"to the end", whole=True, reusable=False)


@pytest.mark.parametrize("answer", [CHUNKED, COUNTED, UNFRAMED])
async def test_no_more_is_read_than_was_asked_for(answer: bytes) -> None:
    there, _ = forwarded(*data(answer, 2))
    found = await get(there, "/", 3)
    assert (len(found.body), found.whole, found.reusable) == (3, False, False)


@pytest.mark.parametrize("answer", [CHUNKED, COUNTED])
async def test_an_answer_that_is_cut_anywhere_is_no_answer(answer: bytes) -> None:
    for end in range(len(answer)):
        there, _ = forwarded(*data(answer[:end], 50))
        with pytest.raises(ApiError, match="the forwarded connection ended"):
            await get(there, "/", 1000)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0xA\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 17 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"x" * (LONGEST_HEAD + 1),
    ],
)
async def test_what_is_no_http(answer: bytes) -> None:
    there, _ = forwarded(*data(answer, LONGEST_HEAD * 2))
    with pytest.raises(ApiError, match="is no HTTP"):
        await get(there, "/", 1000)


async def test_what_the_far_end_reports() -> None:
    there, _ = forwarded(b"\x01dial tcp4 127.0.0.1:15000: connect: connection refused\n")
    with pytest.raises(ApiError, match=r"connection refused$"):
        await get(there, "/", 1000)
