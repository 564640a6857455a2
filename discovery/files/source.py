"""The source `file:PATH`: ordinary Kubernetes YAML and JSON, a file or a folder, looked at again and again.

Each look lists the files and reads those that changed. inotify says when to look and what was written to its
end, and there is a look every `POLL` seconds anyway. What a writer has yet to close is left for later. A file
that vanishes is believed to be gone only after a moment: editors and scripts replace files that way, and no
Service must blink. When the path itself is gone, what it held stays in force and the source is stale until it
is back.

A `Malformed` event is about one file, and its origin is the file's path; or about the endpoints that
`discovery.files.backing` works out, or about flags. The line is in each problem.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence, Set
from contextlib import suppress
from pathlib import Path

import structlog

from discovery.annotations import ENABLED
from discovery.compat import Compat
from discovery.files.backing import Backing
from discovery.files.bell import Bell
from discovery.files.declared import Declarations
from discovery.files.existing import check_path
from discovery.files.folder import Listing, Stamp, scan_in_steps, stamp_of
from discovery.files.overrides import Override
from discovery.files.reading import NO_FILES, not_nothing, read_file, unreadable_folder
from discovery.source import Event, Stale, Synced

log = structlog.get_logger()

SMALL = 16 * 1024
"""Bytes that are read and parsed in a few ms; of more a thread takes care, so that others have their turn."""
MANY = 200
"""Objects whose changes are told in a few milliseconds; of more a thread takes care as well."""
POLL = 0.5
"""Seconds between two looks at most."""
GRACE = 0.05
"""Seconds after which a file that is gone is believed to be, and one of which no notice came to be complete:
the same, so that a Service in a folder that moves does not blink."""
TICK = 0.02
"""Seconds within which a file may change twice without another stamp: the clock of files is coarse."""


class FileSource:
    """A file or folder as a source; see `discovery.source.Source`, and `read_object` for `compat`.

    `overrides` are endpoints that go before those in the files.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        compat: Compat | None = None,
        overrides: Sequence[Override] = (),
    ) -> None:
        self._top = str(Path(path))  # as inotify puts together its paths
        self._compat = compat
        self._overrides = overrides

    async def check(self) -> None:
        """See `discovery.source.Source`."""
        await asyncio.to_thread(check_path, self._top)

    async def watch(self) -> AsyncIterator[tuple[Event, ...]]:
        """Yield all that the path holds, then what changes, until the iterator is closed.

        Raises:
            SourceError: the path does not exist or cannot be listed.
        """
        reading = _Reading(self._top, self._compat, self._overrides)
        complete: set[str] = set()
        more = True
        async with Bell.open() as bell:
            heard: Listing | None = None
            while True:
                events, pause = await reading.look(complete, more)
                new = False
                if reading.listing is not heard:
                    heard = reading.listing
                    new = bell.hear(heard.folders, heard.outside)
                if events:
                    yield events
                complete, more = await bell.wait(0 if new else pause)
                more = more or new


class _Reading:
    """Keeps the declarations equal to what is on disk."""

    def __init__(self, top: str, compat: Compat | None, overrides: Sequence[Override]) -> None:
        self._top = top
        self._compat = compat
        self._declarations = Declarations()
        self._backing = Backing(overrides)
        self._stamps: dict[str, Stamp | None] = {}
        """Of the files as they were read; None if they have to be read again."""
        self._gone: dict[str, float] = {}
        """Files that are gone, or the path itself, and since when (monotonic)."""
        self._unreadable: set[str] = set()
        self._in_touch = False
        self._stale = False
        self._listed_at = 0.0
        self._pause = POLL
        self.listing = Listing()

    async def look(self, complete: Set[str], more: bool) -> tuple[tuple[Event, ...], float]:
        """Read what has changed; return what did, and the seconds until the next look.

        `complete` names files that were written to their end; with `more` others may have changed too.

        Raises:
            SourceError: it is the first look, and there is nothing to look at.
        """
        now = time.monotonic()
        due = self._listed_at + POLL
        if more or not complete <= self.listing.files.keys() or now >= due + POLL:
            self.listing, self._listed_at = await self._list(), now
            return await self._compare(complete, now) if self.listing.present else self._lose(now)
        # A thousand others are not looked at for one, nor before it if it is time to: they are next.
        for path in complete:
            with suppress(FileNotFoundError):
                await self._update(path, stamp_of(path))
        return await self._take_events(), GRACE if now >= due else min(self._pause, due - now)

    async def _list(self) -> Listing:
        listing = Listing()
        for _ in scan_in_steps(self._top, listing):
            await asyncio.sleep(0)
        return listing if self._in_touch or self._stale else not_nothing(self._top, listing)

    async def _compare(self, complete: Set[str], now: float) -> tuple[tuple[Event, ...], float]:
        """Read the files that are listed and not known as they are now."""
        self._note_unreadable(self.listing)
        self._pause = POLL
        for path, stamp in self.listing.files.items():
            if stamp is not None and self._stamps.get(path) == stamp:
                continue
            if self._is_unfinished(path, stamp, complete):
                self._pause = GRACE
            else:
                await self._update(path, stamp)
        self._gone = {path: self._gone.get(path, now) for path in self._missing(self.listing)}
        for path in [path for path, since in self._gone.items() if now - since >= GRACE]:
            self._declarations.remove(path)
            self._stamps.pop(path, None)
            del self._gone[path]
        if self._gone:
            self._pause = GRACE
        events = await self._take_events()
        if not self._in_touch:
            self._say_if_empty(self.listing)
            self._in_touch, self._stale = True, False
            events = (*events, Synced())
        return events, self._pause

    def _say_if_empty(self, listing: Listing) -> None:
        """Say why nothing is in the mesh, if nothing is: the folder may be the wrong one."""
        services = self._backing.services
        if not listing.files:
            reason = NO_FILES
        elif not services:
            reason = "no Service in its files"
        elif not any(service.meshed for service in services):
            reason = f'none of its Services ({len(services)}) is annotated with {ENABLED}: "true"'
        else:
            return
        log.warning(
            "source_empty", path=self._top, reason=reason, effect="nothing is in the mesh until that changes"
        )

    def _lose(self, now: float) -> tuple[tuple[Event, ...], float]:
        since = self._gone.setdefault(self._top, now)
        if self._stale or now - since < GRACE:
            return (), POLL if self._stale else GRACE
        self._in_touch, self._stale = False, True
        return (Stale(f"{self._top} does not exist any more"),), POLL

    def _note_unreadable(self, listing: Listing) -> None:
        for folder in self._unreadable - listing.unreadable.keys():
            self._declarations.remove(folder)
        for folder, reason in listing.unreadable.items():
            self._declarations.put(folder, unreadable_folder(folder, reason))
        self._unreadable = set(listing.unreadable)

    def _missing(self, listing: Listing) -> set[str]:
        """Return files that are not listed any more; below an unreadable folder nobody can say."""
        unseen = tuple(f"{folder}/" for folder in listing.unreadable)
        paths = self._declarations.paths - listing.files.keys() - self._unreadable
        return {path for path in paths if not path.startswith(unseen)}

    def _is_unfinished(self, path: str, stamp: Stamp | None, complete: Set[str]) -> bool:
        """Whether somebody may be writing a file; links are swapped, not written."""
        fresh = self._in_touch and stamp is not None and 0 <= _age(stamp) < GRACE
        return fresh and path not in complete and not os.path.islink(path)

    async def _update(self, path: str, stamp: Stamp | None) -> None:
        # Within a tick of its last change a file may change again and have the same stamp.
        certain = stamp if stamp is not None and abs(_age(stamp)) > TICK else None
        with suppress(FileNotFoundError):
            if stamp is None or stamp.size > SMALL:
                await asyncio.to_thread(self._take_in, path)
            else:
                self._take_in(path)
                await asyncio.sleep(0)
            self._stamps[path] = certain

    def _take_in(self, path: str) -> None:
        self._declarations.put(path, read_file(path, self._declarations.content(path), self._compat))

    async def _take_events(self) -> tuple[Event, ...]:
        if self._declarations.waiting <= MANY:
            return self._tell()
        return await asyncio.to_thread(self._tell)

    def _tell(self) -> tuple[Event, ...]:
        return self._backing.fold(self._declarations.take_events())


def _age(stamp: Stamp) -> float:
    return time.time() - stamp.changed / 1e9
