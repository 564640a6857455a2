"""Cookies of requests (RFC 6265), for all that go by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from middleware.contract import Headers

COOKIE_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
"""What a cookie may be called here."""


def find_cookie(name: str) -> Callable[[Headers], str | None]:
    """Return what finds the value of the first cookie of this name (RFC 6265 section 5.4)."""
    search = re.compile(rf'(?:^|;)[ \t]*{re.escape(name)}="?([^;"]*)').search

    def find(headers: Headers) -> str | None:
        for field in headers.get_all("Cookie"):
            match = search(field)
            if match is not None:
                return match[1].rstrip()
        return None

    return find
