"""Single keys of a terminal, where the system has termios; elsewhere there are none."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def watch_keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Call `pressed` for each key, without Enter, on the running loop; then leave the terminal as it was."""
    try:
        import termios
        import tty
    except ImportError:
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(descriptor)

    def read() -> None:
        data = os.read(descriptor, 64)
        if not data:  # the terminal has gone
            loop.remove_reader(descriptor)
            pressed("\x04")
        text = data.decode("utf-8", "replace")
        # Arrows and the like come as one piece that begins with Esc: they have no meaning here.
        for key in text if not (text.startswith("\x1b") and len(text) > 1) else ():
            pressed(key)

    tty.setcbreak(descriptor, termios.TCSADRAIN)
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
