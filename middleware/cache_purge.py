"""`svc.mesh/cache-purge: 2026-01-31T12:00:00Z path=/images/`: has all caches of a Service forget responses.

A purge is a mark, which may be any word, and perhaps the beginning of the targets that it is about. A cache
purges when a mark appears that it has not seen before; that the mark stays, or is removed, does nothing. So a
purge reaches each worker of each node in the way that every other change of a Service does, and whoever may
change the Service may purge its cache.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from middleware.values import InvalidValue, quote

PURGE: Final = "svc.mesh/cache-purge"
MOST_PURGES: Final = 16
"""In one annotation: several purges in quick succession may reach an agent as one change."""
_MARK: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}")
_PATH: Final = re.compile(r"/[!-~]{0,1023}")


class Purge(msgspec.Struct, frozen=True):
    """A purge that somebody asks for."""

    mark: str
    """What makes it another one than those before."""
    path: str = ""
    """With what the targets begin that it is about; empty: everything."""


def check_path(path: str) -> str:
    """Return the beginning of targets that a purge is about.

    Raises:
        InvalidValue: no target begins like that.
    """
    if not _PATH.fullmatch(path):
        raise InvalidValue(
            f"path={quote(path)} is not how a target begins",
            "a path such as /images/, percent-encoded as in requests, with 1024 characters at most",
        )
    return path


def parse_purges(text: str) -> tuple[Purge, ...]:
    """Read `MARK [path=/PREFIX]`, once or several times in a row.

    Raises:
        InvalidValue: it says why not.
    """
    purges: list[Purge] = []
    for word in text.split():
        if word.startswith("path="):
            if not purges or purges[-1].path:
                raise InvalidValue(f"{quote(word)} has no mark before it", "MARK path=/PREFIX")
            purges[-1] = Purge(purges[-1].mark, check_path(word.removeprefix("path=")))
        elif _MARK.fullmatch(word):
            purges.append(Purge(word))
        else:
            raise InvalidValue(
                f"{quote(word)} is not a mark",
                "a word of 64 letters, digits, dots, colons, dashes, underscores and plus signs at most, such"
                " as the time",
            )
    if not purges:
        raise InvalidValue("there is no mark", "a mark such as the time, then perhaps path=/PREFIX")
    if len(purges) > MOST_PURGES:
        raise InvalidValue(f"there are {len(purges)} marks", f"at most {MOST_PURGES}, the latest ones")
    return tuple(purges)


def write_purges(purges: tuple[Purge, ...]) -> str:
    """Return purges as `parse_purges` reads them."""
    return " ".join(f"{one.mark} path={one.path}" if one.path else one.mark for one in purges)


def add_purge(before: tuple[Purge, ...], purge: Purge) -> tuple[Purge, ...]:
    """Return the purges with one more at the end: the latest ones, as many as an annotation may have."""
    return (*before, purge)[-MOST_PURGES:]


def new_purges(before: tuple[Purge, ...], after: tuple[Purge, ...]) -> tuple[Purge, ...]:
    """Return those that were not there before."""
    return tuple(one for one in after if one not in before)


class PurgeTimes:
    """When a cache was purged, so that what was asked for before that is neither kept nor used after."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: dict[str, float] = {}

    def add(self, path: str, now: float) -> None:
        """Take note of a purge of the targets that begin like this. `now` never goes back."""
        if not path:
            self._times = {}
        self._times.pop(path, None)
        self._times[path] = now
        if len(self._times) > MOST_PURGES:
            # The oldest one now counts for every path: what was under way at that time is merely not kept.
            self._times.pop("", None)
            oldest = next(iter(self._times))
            self._times = {"": self._times.pop(oldest), **self._times}

    def covers(self, target: str, requested: float) -> bool:
        """Return whether the response to a request of this time has been purged."""
        return any(requested <= time and target.startswith(path) for path, time in self._times.items())
