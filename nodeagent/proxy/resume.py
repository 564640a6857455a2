"""Resumes a coroutine, for `nodeagent.proxy.chain`.

It is a module of its own because it is never compiled: compiled code that catches an exception, such as the
StopIteration with which each coroutine ends, first makes a code object and a frame for its traceback.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any


def resume(coroutine: Coroutine[Any, Any, Any], outcome: Any) -> tuple[bool, Any]:
    """Give a coroutine what it has waited for, and let it run until it waits again, returns or raises.

    Return whether it has returned, and with what, or what it waits for now. An exception as outcome is raised
    where it waits.
    """
    try:
        if isinstance(outcome, BaseException):
            return False, coroutine.throw(outcome)
        return False, coroutine.send(outcome)
    except StopIteration as stop:
        return True, stop.value
