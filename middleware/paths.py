"""Paths of requests: what may stand in one, and what it begins with. Prefixes end at a segment's end."""

from __future__ import annotations

import re
from typing import Final

PATH: Final = re.compile(r"/[!\"$-\x3e@-\x5b\x5d-~]*")
"""A path that may stand in a request target: no query, fragment, backslash or white space."""
PREFIX: Final = re.compile(r"/[!\"$-\x3e@-\x5b\x5d-~]+")
"""A path that is not `/` alone."""


def has_prefix(path: str, prefix: str) -> bool:
    """Whether a path begins with these segments: `/a` is a prefix of `/a` and `/a/b`, and not of `/ab`.

    `prefix` does not end with a slash.
    """
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/")
