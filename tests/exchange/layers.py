"""Layers of tests: plain functions, and something to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from middleware.contract import Handler, Layer, Request, Response

Serve = Callable[[Request, Handler], Awaitable[Response]]


def layer(serve: Serve) -> Layer:
    """Make a layer of `async def serve(request, handler)`."""

    def around(handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            return await serve(request, handler)

        return handle

    return around


class Gate:
    """What layers wait for: `await gate()` returns once the test has called `gate.opens()`."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[Any]] = []

    async def __call__(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        await future

    def opens(self) -> None:
        """Let all go on that wait."""
        waiting, self.waiting = self.waiting, []
        assert waiting, "nobody waits"
        for future in waiting:
            if not future.done():
                future.set_result(None)
