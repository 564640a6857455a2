"""Waiting for what can only be looked at: a process that starts, a change that takes effect."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")


def until(
    condition: Callable[[], T],
    seconds: float = 60.0,
    every: float = 0.01,
    check: Callable[[], object] | None = None,
) -> T:
    """Wait until the condition gives something true, and return that.

    `check` is called between two looks, and raises if it can never be.

    Raises:
        TimeoutError: it gave nothing true within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if check is not None:
            check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"the condition did not come true within {seconds:g} s")
        pause(every)
    return value


@overload
async def until_async(
    condition: Callable[[], Awaitable[T]], seconds: float = 60.0, every: float = 0.01
) -> T: ...


@overload
async def until_async(condition: Callable[[], T], seconds: float = 60.0, every: float = 0.01) -> T: ...


async def until_async(
    condition: Callable[[], T | Awaitable[T]], seconds: float = 60.0, every: float = 0.01
) -> T:
    """Wait as `until` does, without blocking the loop.

    Raises:
        TimeoutError: the condition gave nothing true within `seconds`.
    """
    async with asyncio.timeout(seconds):
        while True:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return cast("T", value)
            await asyncio.sleep(every)


def pause(seconds: float) -> None:
    """Let time pass; for programs without a loop."""
    threading.Event().wait(seconds)
