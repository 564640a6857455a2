"""Files of Kubernetes YAML and JSON, read once: what they hold, and what is wrong with the others.

Works on every system that Python runs on: `meshctl check` uses it on a person's own machine.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from discovery.compat import Compat
from discovery.files.backing import Backing
from discovery.files.content import EMPTY, Content, file_problem, read_content, unusable
from discovery.files.declared import Declarations
from discovery.files.documents import is_json
from discovery.files.existing import not_there
from discovery.files.folder import WANTED, Listing, scan
from discovery.files.overrides import Override
from discovery.source import Event, SourceError, Synced

MAX_BYTES = 32 * 1024 * 1024
"""Of one file; larger ones are reported and left out."""
_TOO_LARGE = f"is larger than {MAX_BYTES // 1024 // 1024} MiB"
NO_FILES = f"no file named {WANTED} (hidden files and folders do not count)"
NO_TEXTS: Mapping[str, bytes] = {}
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""Without O_NONBLOCK, opening a named pipe would wait for its writer for ever. Windows has only the last."""


def read_once(
    *paths: str | os.PathLike[str],
    compat: Compat | None = None,
    overrides: Sequence[Override] = (),
    texts: Mapping[str, bytes] = NO_TEXTS,
) -> tuple[Event, ...]:
    """Return the events of one complete reading of all paths together, without watching.

    A file that is found twice is read once. `compat` is as in `discovery.manifest.read_object`; `texts` are
    read besides, under the names given: YAML or JSON, as their beginning tells.

    Raises:
        SourceError: a path does not exist, cannot be listed, or is a folder without any file that counts; or
            one of `texts` is empty.
    """
    declarations = Declarations()
    found: dict[str, str] = {}
    for path in paths:
        top = str(Path(path))  # as the agent names its files
        listing = not_nothing(top, scan(top))
        if not listing.files and not listing.unreadable:
            raise SourceError(f"{top} holds {NO_FILES}")
        for folder, reason in listing.unreadable.items():
            declarations.put(folder, unreadable_folder(folder, reason))
        for file in listing.files:
            found.setdefault(os.path.realpath(file), file)
    for file in found.values():
        with suppress(FileNotFoundError):
            declarations.put(file, read_file(file, EMPTY, compat))
    for name, text in texts.items():
        declarations.put(name, _read_text(name, text, compat))
    return (*Backing(overrides).fold(declarations.take_events()), Synced())


def _read_text(name: str, text: bytes, compat: Compat | None) -> Content:
    if not text.strip():
        raise SourceError(f"{name} is empty")
    if len(text) > MAX_BYTES:
        return unusable(file_problem(name, 1, _TOO_LARGE, effect="it is left out"), EMPTY)
    return read_content(name, text, EMPTY, compat, json=is_json(text))


def read_file(path: str, previous: Content, compat: Compat | None) -> Content:
    """Return what a file holds, with what is known of it where it cannot be read.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        with open(os.open(path, _FLAGS), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                reason = "is not a regular file"
            elif status.st_size > MAX_BYTES:
                reason = _TOO_LARGE
            else:
                return read_content(path, file.read(), previous, compat)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    return unusable(file_problem(path, 1, reason, effect="the file is left out"), previous)


def unreadable_folder(folder: str, reason: str) -> Content:
    """Return what counts for a folder that cannot be listed."""
    effect = "what its files held last stays in force"
    return Content(problems=(file_problem(folder, 1, f"cannot be listed: {reason}", effect=effect),))


def not_nothing(top: str, listing: Listing) -> Listing:
    """Return what a first look has found, if it is something to go by.

    Raises:
        SourceError: it is not.
    """
    if not listing.present:
        raise not_there(top)
    if top in listing.unreadable:
        raise SourceError(f"{top} cannot be read: {listing.unreadable[top]}")
    return listing
