"""Random choices: every task has its own, so that they do not depend on the order in which tasks run."""

from __future__ import annotations

import contextvars
import random

_CHANCE: contextvars.ContextVar[random.Random] = contextvars.ContextVar("chance")


def begin(seed: object) -> None:
    """Begin the choices of this task, and of those that it starts."""
    _CHANCE.set(random.Random(str(seed)))


def chance() -> random.Random:
    """Return where this task takes its choices from."""
    return _CHANCE.get()
