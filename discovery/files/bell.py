"""inotify as a bell: something happened in these folders, look again.

What happened is found by looking, so nothing depends on it but the time until a change is seen: that is the
pause between looks where the system grants no inotify or no further watch, or a file system tells nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog
from asyncinotify import Inotify, Mask

log = structlog.get_logger()

_COMPLETE = Mask.CLOSE_WRITE | Mask.MOVED_TO
_HEARD = _COMPLETE | Mask.CREATE | Mask.MOVED_FROM | Mask.DELETE | Mask.ATTRIB | Mask.ONLYDIR


class Bell:
    """Rings when something happens in the folders that it hears."""

    def __init__(self, inotify: Inotify | None) -> None:
        self._inotify = inotify
        self._folders: set[str] = set()
        self._paths: set[str] = set()
        self._rung = asyncio.Event()
        self._complete: set[str] = set()
        self._more = False

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Bell]:
        """Give a bell; it is silent where there is no inotify."""
        try:
            inotify = Inotify(cache_size=64)
        except OSError as error:
            log.warning(
                "source_polled", reason=f"no inotify: {error.strerror}", effect="changes are seen later"
            )
            yield cls(None)
            return
        with inotify:
            bell = cls(inotify)
            listening = asyncio.create_task(bell._listen(inotify))
            try:
                yield bell
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    def hear(self, folders: Iterable[str], paths: Iterable[str]) -> bool:
        """Hear what happens in these folders and to these paths, no more; return whether a folder is new.

        Then something may have happened there unheard.
        """
        self._folders, self._paths = set(folders), set(paths)
        if self._inotify is None:
            return False
        before = {watch.wd for watch in self._inotify.watches}
        heard: set[int] = set()
        for folder in (*(os.path.dirname(path) or "." for path in self._paths), *self._folders):
            with suppress(OSError):  # it is gone, or there are more folders than the system watches
                watch = self._inotify.add_watch(folder, _HEARD)
                watch.path = Path(folder)  # a folder that was renamed keeps its watch, with its former path
                heard.add(watch.wd)
        for watch in self._inotify.watches:
            if watch.wd not in heard:
                with suppress(OSError):  # the kernel gave it up already: the folder is gone
                    self._inotify.rm_watch(watch)
        return not heard <= before

    async def wait(self, seconds: float) -> tuple[set[str], bool]:
        """Wait until it rings, or for so long.

        Returns the files that were written to their end, and whether that is not all that may have happened.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        heard = self._complete, self._more or not self._rung.is_set()
        self._rung.clear()
        self._complete, self._more = set(), False
        return heard

    async def _listen(self, inotify: Inotify) -> None:
        async for notice in inotify:
            path = notice.path
            if path is None:  # there were more than the system keeps
                self._more = True
            elif str(path) not in self._paths and str(path.parent) not in self._folders:
                continue
            elif notice.mask & _COMPLETE:
                self._complete.add(str(path))
            else:
                self._more = True
            self._rung.set()
            await asyncio.sleep(0)  # there may be thousands
