"""Calls that may never come back, such as a write to a disk that hangs: each in a thread of its own.

They do not use the loop's own pool: it has few threads, which other calls need, and the process waits for all
of them at its end. The thread of such a call is a daemon, which nothing waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def call_aside(call: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Call in a thread of this name, at once; the future has what it returns or raises.

    It has an `OSError` if the system grants no further thread. Cancelling the future does not end the call:
    wait for it with `asyncio.wait`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: the result is not needed any more
            loop.call_soon_threadsafe(settle, result, error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        future.set_exception(OSError(errno.EAGAIN, str(error)))
    return future
