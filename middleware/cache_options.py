"""What a Service's owner says of its cache: `svc.mesh/cache: on size=64Mi stale-if-error=1h`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from middleware.cache_purge import PURGE, Purge, parse_purges
from middleware.cache_rules import (
    Policy,
)
from middleware.contract import (
    Problem,
)
from middleware.values import (
    InvalidValue,
    Seconds,
    parse_annotation,
    parse_choice,
    parse_duration,
    parse_size,
    split_settings,
)

CACHE: Final = "svc.mesh/cache"
LEAST_SIZE: Final = 1 << 16
LARGEST_SIZE: Final = 1 << 32
USUAL_SIZE: Final = 64 << 20
LONGEST_WAIT: Final = 60.0
LONGEST_STALE: Final = 31_536_000.0
"""Seconds: 365 days."""
_SETTINGS: Final = (
    "size", "object", "collapse", "stale-while-revalidate", "stale-if-error", "heuristic",
)  # fmt: skip


class Options(msgspec.Struct, frozen=True):
    """Bounds of the cache of one port in each worker, and what it may do beyond what responses say."""

    size: int = 64 << 20
    """Bytes of all responses."""
    object: int = 1 << 20
    """Bytes of one response's body."""
    collapse: Seconds = 5.0
    """How long a request waits for the response to an equal one; 0: not at all."""
    stale_while_revalidate: Seconds = 0.0
    stale_if_error: Seconds = 0.0
    heuristic: bool = False
    purges: tuple[Purge, ...] = ()
    """Those that somebody has asked for lately. A new one does not begin another cache."""

    @property
    def policy(self) -> Policy:
        """What the rules go by."""
        return Policy(self.stale_while_revalidate, self.stale_if_error, self.heuristic)


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/cache`: `on` or `off`, then settings in any order, at most once each; and the purges.

    A cache that is off keeps nothing, so purges of it are done.
    """
    options = parse_annotation(annotations, CACHE, _parse)
    purges = parse_annotation(annotations, PURGE, parse_purges)
    if isinstance(options, Problem):
        return options
    if isinstance(purges, Problem):
        return purges
    return msgspec.structs.replace(options, purges=purges) if options and purges else options


def read_size(text: str) -> int:
    """Read the bytes that a cache may hold; raises InvalidValue."""
    return parse_size(text, least=LEAST_SIZE, most=LARGEST_SIZE)


def _parse(value: str) -> Options | None:
    word, settings = split_settings(value, _SETTINGS)
    if parse_choice(word, ("on", "off")) == "off":
        if settings:
            raise InvalidValue("off has no settings", "off alone, or on with settings")
        return None
    size = read_size(settings["size"]) if "size" in settings else USUAL_SIZE
    largest = (
        parse_size(settings["object"], least=1024, most=size) if "object" in settings else min(size, 1 << 20)
    )
    return Options(
        size=size,
        object=largest,
        collapse=parse_duration(settings.get("collapse", "5s"), most=LONGEST_WAIT),
        stale_while_revalidate=parse_duration(
            settings.get("stale-while-revalidate", "0"), most=LONGEST_STALE
        ),
        stale_if_error=parse_duration(settings.get("stale-if-error", "0"), most=LONGEST_STALE),
        heuristic=parse_choice(settings.get("heuristic", "off"), ("on", "off")) == "on",
    )
