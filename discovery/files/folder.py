"""Which files below a path count, and which folders must be watched to learn of every change to them.

Files named `*.yaml`, `*.yml`, `*.json` count, in all sub-folders; a path that is itself a file counts
whatever its name. What is hidden does not, so an editor's swap file is never read, nor the `..data` of a
ConfigMap volume; links are followed, which is how such a volume is read all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

SUFFIXES = (".yaml", ".yml", ".json")
CONFIG_MAP_DATA = "..data"
"""The link that Kubernetes swaps when a ConfigMap volume changes."""


class Listing(msgspec.Struct):
    """What a scan found. `outside` names the entries to look out for in folders that are not ours."""

    present: bool = True
    """False if the path itself does not exist."""
    files: list[str] = []
    folders: list[str] = []
    unreadable: dict[str, str] = {}
    """Folders that cannot be listed, or not be watched, and why."""
    outside: dict[str, set[str]] = {}


def is_manifest(name: str) -> bool:
    """Whether a file of this name counts."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def scan(top: str, watch: Callable[[str], None]) -> Listing:
    """List what counts at `top`.

    `watch` is called for each folder before it is listed, so that nothing is missed in between; an OSError
    that it raises makes the folder unreadable.
    """
    listing = Listing()
    _watch_way_to(top, listing, watch)
    if os.path.isdir(top):
        _scan_folder(top, listing, watch, seen=set())
    elif os.path.lexists(top):
        listing.files.append(top)
    else:
        listing.present = False
    listing.files.sort()
    return listing


def _watch_way_to(top: str, listing: Listing, watch: Callable[[str], None]) -> None:
    """Watch where `top` may vanish or come back: its folder or, while that is missing, the next above."""
    if os.path.islink(top):
        _watch_outside(*os.path.split(os.path.realpath(top)), listing, watch)
    parent, name = os.path.split(os.path.abspath(top))
    while not os.path.isdir(parent):
        parent, name = os.path.split(parent)
    _watch_outside(parent, name, listing, watch)


def _watch_outside(folder: str, name: str, listing: Listing, watch: Callable[[str], None]) -> None:
    try:
        watch(folder)
    except OSError:
        return  # it vanished, or is not ours to see: then the link or path is judged by reading it
    listing.outside.setdefault(folder, set()).add(name)


def _scan_folder(
    folder: str, listing: Listing, watch: Callable[[str], None], seen: set[tuple[int, int]]
) -> None:
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return  # a link in a circle, or a second way to the same folder
        seen.add((status.st_dev, status.st_ino))
        watch(folder)
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        listing.unreadable[folder] = error.strerror or str(error)
        return
    listing.folders.append(folder)
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            _watch_outside(*os.path.split(os.path.realpath(entry.path)), listing, watch)
        if _is_folder(entry):
            _scan_folder(entry.path, listing, watch, seen)
        elif is_manifest(entry.name):
            listing.files.append(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
