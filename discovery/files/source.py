"""The source `file:PATH`: ordinary Kubernetes YAML and JSON, a file or a folder, followed by notification.

A file counts as written when its writer closes it or renames it into place. One that vanishes, or is found
empty, is believed only after a moment (`GRACE`): editors and scripts replace files that way, and a Service
must not blink. When the path itself is gone, what it held stays in force and the source is stale until it is
back. inotify (asyncinotify) says what to read again; whatever it cannot say exactly, such as links, new
folders and an overflowed queue, leads to a rescan, which parses only what changed.

A `Malformed` event is about one file: its origin is the file's path, and the line is in each problem.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from asyncinotify import Event as Notice
from asyncinotify import Inotify, Mask, Watch

from discovery.compat import Compat
from discovery.files.content import EMPTY, Content, file_problem, read_content, unusable
from discovery.files.declared import Declarations
from discovery.files.folder import CONFIG_MAP_DATA, Listing, is_manifest, scan
from discovery.source import Event, SourceError, Stale, Synced

MAX_BYTES = 64 * 1024 * 1024
"""Of one file; larger ones are reported and left out."""
GRACE = 0.05
"""Seconds after which a file that is gone or empty is believed to be."""

_WATCHED = (
    Mask.CREATE | Mask.CLOSE_WRITE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.DELETE | Mask.ATTRIB
    | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR
)  # fmt: skip
_SELF = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ATTRIB
_NOTICES_A_TURN = 512


class FileSource:
    """A file or folder as a source; see `discovery.source.Source`, and `read_object` for `compat`."""

    def __init__(self, path: str | os.PathLike[str], compat: Compat | None = None) -> None:
        self._top = os.fspath(path)
        self._compat = compat

    async def watch(self) -> AsyncIterator[tuple[Event, ...]]:
        """Yield all that the path holds, then what changes, until the iterator is closed.

        Raises:
            SourceError: the path does not exist or cannot be listed, or the system grants no inotify.
        """
        with _Notices.open(self._top) as notices:
            reading = _Reading(self._top, notices, self._compat)
            reading.check_start(notices.scan())
            while True:
                events = await reading.catch_up()
                if events:
                    yield events
                await notices.wait(reading.deadline())


def read_once(*paths: str | os.PathLike[str], compat: Compat | None = None) -> tuple[Event, ...]:
    """Return the events of one complete reading of all paths together, without watching.

    A file that is found twice is read once. `compat` is as in `discovery.manifest.read_object`.

    Raises:
        SourceError: a path does not exist or cannot be listed.
    """
    declarations = Declarations()
    found: dict[str, str] = {}
    for path in paths:
        top = os.fspath(path)
        listing = scan(top, lambda _: None)
        _require(top, listing)
        for folder, reason in listing.unreadable.items():
            declarations.put(folder, _unreadable_folder(folder, reason))
        for file in listing.files:
            found.setdefault(os.path.realpath(file), file)
    for file in found.values():
        with suppress(FileNotFoundError):
            text = _read(file)
            if isinstance(text, str):
                declarations.put(
                    file, unusable(file_problem(file, 1, text, effect="the file is left out"), EMPTY)
                )
            else:
                declarations.put(file, read_content(file, text, EMPTY, compat))
    return (*declarations.take_events(), Synced())


class _Reading:
    """Keeps the declarations equal to what is on disk."""

    def __init__(self, top: str, notices: _Notices, compat: Compat | None) -> None:
        self._top = top
        self._compat = compat
        self._notices = notices
        self._declarations = Declarations()
        self._suspects: dict[str, float] = {}
        """Files found gone or empty, and when to believe it (monotonic)."""
        self._unreadable: set[str] = set()
        self._synced = False
        self._gone_since: float | None = None
        """When the path itself was found to be gone (monotonic)."""
        self._stale = False
        self._now = asyncio.get_running_loop().time

    def check_start(self, listing: Listing) -> None:
        _require(self._top, listing)
        self._notices.rescan = True

    def deadline(self) -> float | None:
        """When to look again though nothing is notified (monotonic)."""
        deadlines = list(self._suspects.values())
        if self._gone_since is not None and not self._stale:
            deadlines.append(self._gone_since + GRACE)
        return min(deadlines, default=None)

    async def catch_up(self) -> tuple[Event, ...]:
        """Read what may have changed and return what did."""
        rescan, dirty = self._notices.take()
        now = self._now()
        due = {path for path, deadline in self._suspects.items() if deadline <= now}
        if rescan or self._gone_since is not None:
            listing = self._notices.scan()
            if not listing.present:
                return self._lose(now)
            self._gone_since = None
            self._note_unreadable(listing)
            dirty |= set(listing.files) | self._missing(listing)
        await self._reload(dirty | due)
        events = self._declarations.take_events()
        if not self._synced or self._stale:
            self._synced, self._stale = True, False
            return (*events, Synced())
        return events

    def _lose(self, now: float) -> tuple[Event, ...]:
        if self._gone_since is None:
            self._gone_since = now
        if self._stale or now < self._gone_since + GRACE:
            return ()
        self._stale = True
        return (Stale(f"{self._top} does not exist any more"),)

    def _note_unreadable(self, listing: Listing) -> None:
        for folder in self._unreadable - listing.unreadable.keys():
            self._declarations.remove(folder)
        for folder, reason in listing.unreadable.items():
            self._declarations.put(folder, _unreadable_folder(folder, reason))
        self._unreadable = set(listing.unreadable)

    def _missing(self, listing: Listing) -> set[str]:
        """Return files that are not listed any more; below an unreadable folder nobody can say."""
        unseen = tuple(f"{folder}/" for folder in listing.unreadable)
        paths = self._declarations.paths - set(listing.files) - self._unreadable
        return {path for path in paths if not path.startswith(unseen)}

    async def _reload(self, paths: set[str]) -> None:
        for path in sorted(paths):
            content = await asyncio.to_thread(self._read, path)
            if content is not None:
                self._declarations.put(path, content)

    def _read(self, path: str) -> Content | None:
        """Read one file; None leaves it as it is known."""
        previous = self._declarations.content(path)
        try:
            text = _read(path)
        except FileNotFoundError:
            if self._believe(path, known=path in self._declarations.paths):
                self._declarations.remove(path)
            return None
        self._suspects.pop(path, None)
        if isinstance(text, str):
            return unusable(file_problem(path, 1, text, effect="the file is left out"), previous)
        return read_content(path, text, previous, self._compat)

    def _believe(self, path: str, *, known: bool) -> bool:
        """Whether a file that is gone or empty has been so for long enough."""
        if not known:
            return False
        now = self._now()
        if now < self._suspects.setdefault(path, now + GRACE):
            return False
        del self._suspects[path]
        return True


class _Notices:
    """What inotify said since it was last asked."""

    def __init__(self, top: str, inotify: Inotify) -> None:
        self._top = top
        self._inotify = inotify
        self._inotify.sync_timeout = 0  # `sync_get` takes what is there and never waits
        self._watches: dict[int, Watch] = {}
        self._inside: dict[int, str] = {}
        """Folders whose files count, by watch descriptor."""
        self._outside: dict[int, set[str]] = {}
        """Names that matter in other folders, by watch descriptor."""
        self._awake = asyncio.Event()
        self._dirty: set[str] = set()
        self._closed = False
        self.rescan = False

    @classmethod
    @contextmanager
    def open(cls, top: str) -> Iterator[_Notices]:
        try:
            inotify = Inotify(cache_size=64)
        except OSError as error:
            raise SourceError(f"{top}: no notification of changes: {_explain(error)}") from error
        loop = asyncio.get_running_loop()
        notices = cls(top, inotify)
        loop.add_reader(inotify.fd, notices._read)
        try:
            yield notices
        finally:
            notices._closed = True
            loop.remove_reader(inotify.fd)
            inotify.close()

    def take(self) -> tuple[bool, set[str]]:
        """Return whether everything must be scanned again, and the files to read again."""
        self._awake.clear()
        taken = (self.rescan, self._dirty)
        self.rescan, self._dirty = False, set()
        return taken

    async def wait(self, deadline: float | None) -> None:
        """Wait until something is notified, or until the deadline (monotonic)."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._awake.wait()

    def scan(self) -> Listing:
        """List the files, watching all folders on the way, and give up watches of no more use."""
        descriptors: dict[str, int] = {}

        def watch(folder: str) -> None:
            try:
                added = self._inotify.add_watch(folder, _WATCHED)
            except OSError as error:
                raise OSError(error.errno, _explain(error)) from error
            added.path = Path(folder)  # a folder that was renamed keeps its watch, with its former path
            descriptors[folder] = added.wd
            self._watches[added.wd] = added

        listing = scan(self._top, watch)
        self._inside = {descriptors[folder]: folder for folder in listing.folders}
        self._outside = {}
        for folder, names in listing.outside.items():
            self._outside.setdefault(descriptors[folder], set()).update(names)
        for descriptor in self._watches.keys() - self._inside.keys() - self._outside.keys():
            with suppress(OSError):  # the kernel gave it up already: the folder is gone
                self._inotify.rm_watch(self._watches[descriptor])
            del self._watches[descriptor]
        return listing

    def _read(self) -> None:
        for _ in range(_NOTICES_A_TURN):
            notice = self._inotify.sync_get()
            if notice is None:
                break
            self._take_note(notice)
        else:  # there may be more in asyncinotify's own buffer, of which the loop knows nothing
            asyncio.get_running_loop().call_soon(self._read_on)
        if self.rescan or self._dirty:
            self._awake.set()

    def _read_on(self) -> None:
        if not self._closed:
            self._read()

    def _take_note(self, notice: Notice) -> None:
        mask, watch = notice.mask, notice.watch
        if mask & (Mask.Q_OVERFLOW | Mask.UNMOUNT):
            self.rescan = True
        elif watch is not None and watch.wd in self._watches and not mask & Mask.IGNORED:
            name = str(notice.name) if notice.name is not None else ""
            if name in self._outside.get(watch.wd, ()) and not _is_unwritten(watch.path / name, mask):
                self.rescan = True
            folder = self._inside.get(watch.wd)
            if folder is not None:
                self._take_note_inside(folder, name, mask)
            elif not name and mask & _SELF:
                self.rescan = True

    def _take_note_inside(self, folder: str, name: str, mask: Mask) -> None:
        path = os.path.join(folder, name)
        if not name or name == CONFIG_MAP_DATA:
            self.rescan = True
        elif name.startswith(".") or _is_unwritten(path, mask):
            return
        elif mask & Mask.ISDIR or os.path.islink(path) or path in self._inside.values():
            self.rescan = True
        elif is_manifest(name):
            self._dirty.add(path)


def _is_unwritten(path: str | os.PathLike[str], mask: Mask) -> bool:
    """Whether a file has just been made by a writer who has yet to close it; links are complete at once."""
    if not mask & Mask.CREATE or mask & Mask.ISDIR:
        return False
    try:
        status = os.lstat(path)
    except OSError:
        return True
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _read(path: str) -> bytes | str:
    """Return the bytes of a file, or why they cannot be had.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its writer for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return "is not a regular file"
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if len(text) > MAX_BYTES:
        return f"is larger than {MAX_BYTES // 1024 // 1024} MiB"
    return text


def _unreadable_folder(folder: str, reason: str) -> Content:
    effect = "what its files held last stays in force"
    return Content(problems=(file_problem(folder, 1, f"cannot be watched: {reason}", effect=effect),))


def _require(top: str, listing: Listing) -> None:
    if not listing.present:
        raise SourceError(f"{top} does not exist: create it, or name another file or folder")
    if top in listing.unreadable:
        raise SourceError(f"{top} cannot be read: {listing.unreadable[top]}")


def _explain(error: OSError) -> str:
    """Return the reason of a failed inotify call; the kernel's own words mislead."""
    if error.errno == errno.ENOSPC:
        return "too many watched folders (raise sysctl fs.inotify.max_user_watches)"
    if error.errno == errno.EMFILE:
        return "too many inotify instances or open files (raise sysctl fs.inotify.max_user_instances)"
    return error.strerror or str(error)
