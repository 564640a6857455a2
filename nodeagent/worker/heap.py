"""How the C library's heap keeps memory that is freed, where it has a say in that (glibc).

By default what is freed at the heap's end goes back to the kernel as soon as it is some 128 KiB, and comes
back page by page, each with a fault. Every read of uvloop makes a buffer of up to 256 KiB and frees it soon
after: a worker that passes bodies on spent a fifth of its time on nothing else.
"""

from __future__ import annotations

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""Of `mallopt` (mallopt(3))."""
_KEPT: Final = 8 * 1024 * 1024
"""Bytes at the heap's end that are kept; `trim` gives them back too."""
_MAPPED_FROM: Final = 4 * 1024 * 1024
"""Bytes from which on a block is mapped for itself, and unmapped when it is freed."""

_libc = ctypes.CDLL(None)


def keep_buffers() -> None:
    """Have memory that is freed kept for the next buffers of reads."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_MMAP_THRESHOLD, _MAPPED_FROM)
        _libc.mallopt(_TRIM_THRESHOLD, _KEPT)


def trim() -> None:
    """Give back to the kernel what is kept for later."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
