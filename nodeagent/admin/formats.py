"""The formats of `/metrics`, and which one a scraper gets.

What differs between them is in `TextFormat`; lines of samples are alike, but that OpenMetrics lets a bucket
have an exemplar. Content negotiation follows RFC 9110, section 12.5.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics

from nodeagent.admin.family import Family

LONGEST_ACCEPT: Final = 1024
"""Characters. Prometheus sends about 400."""


class TextFormat(msgspec.Struct, frozen=True):
    """What differs between the formats."""

    content_type: str
    write: Callable[[CollectorRegistry], bytes]
    """Writes the families of a registry, with `end` behind them."""
    header: Callable[[Family], str]
    """Returns what stands above the samples of a family."""
    exemplars: bool
    """Whether a bucket may have one."""
    end: bytes = b""
    """The last line of a page."""


def _plain_header(family: Family) -> str:
    text = _escape(family.help)
    return f"# HELP {family.name} {text}\n# TYPE {family.name} {family.kind}\n"


def _open_header(family: Family) -> str:
    name, text = family.base, _escape(family.help).replace('"', r"\"")
    unit = f"# UNIT {name} {family.unit}\n" if family.unit else ""
    return f"# HELP {name} {text}\n# TYPE {name} {family.kind}\n{unit}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


PLAIN: Final = TextFormat(CONTENT_TYPE_PLAIN_0_0_4, generate_latest, _plain_header, exemplars=False)
"""Prometheus' text format 0.0.4, which every scraper reads."""
OPEN_METRICS: Final = TextFormat(
    openmetrics.CONTENT_TYPE_LATEST, openmetrics.generate_latest, _open_header, exemplars=True, end=b"# EOF\n"
)
"""OpenMetrics 1.0."""


class _Range(NamedTuple):
    """One element of `Accept`."""

    kind: str
    """`text/plain`, `text/*` or `*/*`, in lower case."""
    version: str
    """Empty: any."""
    quality: float


_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = rf"[ \t]*;[ \t]*({_WORD})=({_WORD}|\"[^\"\\]*\")"
_ELEMENT = re.compile(rf"[ \t]*(?:({_WORD}/{_WORD})((?:{_PARAMETER})*)[ \t]*)?(?:,|\Z)")
_PARAMETERS = re.compile(_PARAMETER)
_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


class _Malformed(Exception):
    """The value does not follow the grammar of `Accept` in RFC 9110."""


def choose(accept: str) -> TextFormat:
    """Return the format that a scraper with this `Accept` prefers.

    OpenMetrics is only for those that ask for it. Whoever sends something malformed or enormous, or wants
    what is not given here, gets the plain format, as from other exporters.
    """
    if not accept or len(accept) > LONGEST_ACCEPT:
        return PLAIN
    try:
        ranges = list(_ranges(accept))
    except _Malformed:
        return PLAIN
    wanted, how = _quality(ranges, "application/openmetrics-text", "1.0.0")
    plain, _ = _quality(ranges, "text/plain", "0.0.4")
    named = how >= _NAMED
    return OPEN_METRICS if wanted > plain or (named and wanted == plain > 0) else PLAIN


def _ranges(accept: str) -> Iterator[_Range]:
    at = 0
    while at < len(accept):
        element = _ELEMENT.match(accept, at)
        if element is None:
            raise _Malformed
        at = element.end()
        if element[1] is None:
            continue  # a list may have empty elements
        parameters = {name.lower(): value.strip('"') for name, value in _PARAMETERS.findall(element[2])}
        quality = parameters.get("q", "1")
        if _QUALITY.fullmatch(quality) is None:
            raise _Malformed
        yield _Range(element[1].lower(), parameters.get("version", ""), float(quality))


_NAMED: Final = 2
"""How specific a range is, at least, that names the type itself."""


def _quality(ranges: list[_Range], kind: str, version: str) -> tuple[float, int]:
    """Return how much a type is wanted, 0 to 1, by the most specific range that it is in, and how specific
    that is: -1 for none.
    """
    best, specific = 0.0, -1
    for one in ranges:
        levels = ("*/*", f"{kind.partition('/')[0]}/*", kind)
        if one.kind not in levels or one.version not in ("", version):
            continue
        level = levels.index(one.kind) + bool(one.version)
        if level > specific or (level == specific and one.quality > best):
            best, specific = one.quality, level
    return best, specific
