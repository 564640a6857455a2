"""Which files below a path count.

Files named `*.yaml`, `*.yml`, `*.json` count, in all sub-folders; a path that is itself a file counts
whatever its name. What is hidden does not, so an editor's swap file is never read, nor the `..data` of a
ConfigMap volume; links are followed, which is how such a volume is read all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

import msgspec

SUFFIXES = (".yaml", ".yml", ".json")
WANTED = "*.yaml, *.yml or *.json"
"""What files are named that count, for people."""
STEP = 64
"""Files that are looked at in a quarter of a millisecond."""


class Stamp(NamedTuple):
    """What is another after a file was changed or replaced."""

    changed: int
    """Nanoseconds of the wall clock; unlike the time of modification nobody sets it to the past."""
    size: int
    inode: int
    device: int


class Listing(msgspec.Struct):
    """What a scan found."""

    files: dict[str, Stamp | None] = {}
    """None: it is there and cannot be looked at."""
    folders: list[str] = []
    outside: set[str] = set()
    """The path itself, and the targets of links: these may be changed from outside of the folders."""
    unreadable: dict[str, str] = {}
    """Folders that cannot be listed, and why."""

    @property
    def present(self) -> bool:
        """Whether the path itself exists."""
        return bool(self.files or self.folders or self.unreadable)


def scan(top: str) -> Listing:
    """List what counts at `top`."""
    listing = Listing()
    for _ in scan_in_steps(top, listing):
        pass
    return listing


def scan_in_steps(top: str, listing: Listing) -> Iterator[None]:
    """Add what counts at `top` to `listing`; yields every `STEP` files or folders, so that others run."""
    listing.outside.update((top, os.path.realpath(top)))
    if not os.path.isdir(top):
        _add_file(top, listing)
        return
    for number, folder in enumerate(_folders(top, listing)):
        if number % STEP == STEP - 1:
            yield
        for place, path in enumerate(folder):
            _add_file(path, listing)
            if place % STEP == STEP - 1:
                yield


def _folders(top: str, listing: Listing) -> Iterator[list[str]]:
    """Yield the files of each folder, a folder before its sub-folders; takes note of the folders."""
    seen: set[tuple[int, int]] = set()
    ahead = [top]
    while ahead:
        folder = ahead.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue  # a link in a circle, or a second way to the same folder
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            listing.unreadable[folder] = error.strerror or str(error)
            continue
        listing.folders.append(folder)
        files, folders = _sort_entries(found, listing)
        ahead += reversed(folders)
        yield files


def _sort_entries(found: Iterable[os.DirEntry[str]], listing: Listing) -> tuple[list[str], list[str]]:
    """Return the paths of the files that count and of the folders."""
    files: list[str] = []
    folders: list[str] = []
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            listing.outside.add(os.path.realpath(entry.path))
        if _is_folder(entry):
            folders.append(entry.path)
        elif entry.name.endswith(SUFFIXES):
            files.append(entry.path)
    return files, folders


def _add_file(path: str, listing: Listing) -> None:
    with suppress(FileNotFoundError):
        listing.files[path] = stamp_of(path)


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a file, None if it cannot be looked at.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    return Stamp(status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
