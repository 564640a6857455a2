"""`/tap`: live requests of a Service, as a response that goes on: one JSON object a line.

An empty line every few seconds shows that the connection lives. A line with `dropped` says how many requests
were left out since the line before, and the last line, with `ended`, why the page ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec
from aiohttp import web

LONGEST_WATCH: Final = 600.0
"""Seconds; who wants more asks again."""
SIGN_OF_LIFE: Final = 5.0
"""Seconds without a line, after which an empty one is sent."""
TAKING_TIME: Final = 30.0
"""Seconds in which a client has to take what was sent."""


class TapRefused(Exception):
    """Nothing can be watched; the message says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Watching(Protocol):
    """Lines as they come: `nodeagent.control.tap.Watching`."""

    async def next(self, seconds: float) -> tuple[list[bytes], int]:
        """Return lines, and how many are missing; nothing if there is none for so long."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Tap(Protocol):
    """Where lines come from."""

    def open(self, values: Mapping[str, str]) -> Watching:
        """Begin to watch what the parameters of a query say.

        Raises:
            TapRefused: it cannot be.
        """
        ...


class NoTap:
    """Nothing can be watched: there are no workers."""

    def open(self, values: Mapping[str, str]) -> Watching:
        """Refuse."""
        raise TapRefused(404, "there are no workers whose requests could be watched")


async def show_tap(
    request: web.Request, tap: Tap, now: Callable[[], float], longest: float = LONGEST_WATCH
) -> web.StreamResponse:
    """Answer with lines until the client leaves or does not read, or the time is over."""
    try:
        watching = tap.open(request.query)
    except TapRefused as error:
        return web.Response(text=f"{error}\n", status=error.status, headers={"Cache-Control": "no-store"})
    try:
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        if request.method != "HEAD":
            await _stream(response, watching, now, now() + longest)
    except (ConnectionError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()
    finally:
        watching.close()
    return response


async def _stream(
    response: web.StreamResponse, watching: Watching, now: Callable[[], float], end: float
) -> None:
    """Write lines up to a time.

    Raises:
        ConnectionError: the client has left.
        TimeoutError: it does not read.
    """
    while (left := end - now()) > 0:
        lines, dropped = await watching.next(min(left, SIGN_OF_LIFE))
        piece = b"".join(line + b"\n" for line in lines)
        if dropped:
            piece += msgspec.json.encode({"dropped": dropped}) + b"\n"
        async with asyncio.timeout(TAKING_TIME):
            await response.write(piece or b"\n")
    await response.write(msgspec.json.encode({"ended": "the longest time of a watch is over"}) + b"\n")
    await response.write_eof()
