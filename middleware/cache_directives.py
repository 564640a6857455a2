"""Reads the fields that caches go by: Cache-Control (RFC 9111 section 5.2), dates, entity tags.

Strict where a lenient reading would keep a response too long. A directive that cannot be read counts as the
strictest value that it might have: `max-age=x` is 0.
"""

from __future__ import annotations

import functools
import re
from calendar import timegm
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

LONGEST: Final = 2**31
"""Seconds: a longer time means this (RFC 9111 section 1.2.2)."""

_DIRECTIVE: Final = re.compile(
    r"""[\t ,]*+(?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]++)"""
    r"""(?:=(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"|(?P<plain>[^,"\t ]*+)))?+"""
    r"""[\t ]*+(?=,|\Z)"""
)
_DIGITS: Final = re.compile(r"[0-9]++")
_TAG: Final = re.compile(r'[\t ,]*+((?:W/)?+"[!#-~\x80-\xff]*+")[\t ]*+(?=,|\Z)')
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_TIME: Final = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES: Final = (
    re.compile(
        rf"(?a)[A-Z][a-z]{{2}}, (?P<day>\d\d) (?P<month>[A-Z][a-z]{{2}}) (?P<year>\d{{4}}) {_TIME} GMT"
    ),
    re.compile(
        rf"(?a)[A-Z][a-z]{{5,8}}, (?P<day>\d\d)-(?P<month>[A-Z][a-z]{{2}})-(?P<year>\d\d) {_TIME} GMT"
    ),
    re.compile(rf"(?a)[A-Z][a-z]{{2}} (?P<month>[A-Z][a-z]{{2}}) (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})"),
)
"""The three forms of RFC 9110 section 5.6.7."""

Directives = Mapping[str, str | None]
"""The directives of a message by name, in lower case, with their values; None: it has none."""

NONE: Final[Directives] = MappingProxyType({})


@functools.lru_cache(maxsize=1024)
def parse_directives(text: str) -> Directives:
    """Read the value of Cache-Control, of which several fields are joined by commas.

    Of a directive that is there more than once the first counts (RFC 9111 section 4.2.1). Where a part
    cannot be read, all of it counts as `no-store`: it may have been anything.
    """
    found: dict[str, str | None] = {}
    at, end = 0, len(text.rstrip("\t ,"))
    while at < end:
        match = _DIRECTIVE.match(text, at)
        if match is None:
            return MappingProxyType({**found, "no-store": None})
        value = match["quoted"] if match["quoted"] is not None else match["plain"]
        found.setdefault(match["name"].lower(), value)
        at = match.end()
    return MappingProxyType(found)


def directives(values: Sequence[str]) -> Directives:
    """Read all fields `Cache-Control` of a message."""
    return parse_directives(", ".join(values)) if values else NONE


def seconds(found: Directives, name: str) -> int | None:
    """Return the time that a directive gives; None: it is not there. One that cannot be read is 0."""
    if name not in found:
        return None
    return parse_seconds(found[name] or "") or 0


def parse_seconds(text: str) -> int | None:
    """Read a number of seconds (RFC 9111 section 1.2.2); None: it is none."""
    if not _DIGITS.fullmatch(text):
        return None
    return min(int(text), LONGEST) if len(text) < 12 else LONGEST


@functools.lru_cache(maxsize=1024)
def parse_date(text: str, now: float) -> float | None:
    """Read a date (RFC 9110 section 5.6.7) in seconds since 1970; None: it is none.

    A year of two digits is that of the last hundred years, or within the next fifty, as of `now`.
    """
    for form in _DATES:
        match = form.fullmatch(text)
        if match is not None:
            break
    else:
        return None
    month = _MONTHS.get(match["month"])
    day, year = int(match["day"]), int(match["year"])
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    if month is None or not 1 <= day <= 31 or hour > 23 or minute > 59 or second > 60:
        return None
    if len(match["year"]) == 2:
        this_year = 1970 + int(now // 31_556_952)
        year += this_year // 100 * 100
        if year > this_year + 50:
            year -= 100
    if year < 1:
        return None
    return float(timegm((year, month, day, hour, minute, second)))


def parse_tags(text: str) -> tuple[str, ...] | None:
    """Read the entity tags of If-None-Match (RFC 9110 section 13.1.2); None: the field cannot be read."""
    tags = []
    at, end = 0, len(text.rstrip("\t ,"))
    while at < end:
        match = _TAG.match(text, at)
        if match is None:
            return None
        tags.append(match[1])
        at = match.end()
    return tuple(tags)


def opaque(tag: str) -> str:
    """Return an entity tag as the weak comparison compares it (RFC 9110 section 8.8.3.2)."""
    return tag.removeprefix("W/")
