"""What is in the archive of an image, as `docker save` writes it: the files that a container sees."""

from __future__ import annotations

import hashlib
import json
import stat
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_XATTR = "SCHILY.xattr."


class Entry(NamedTuple):
    """A file, folder or link, without its times."""

    kind: str
    """`file`, `folder`, `link`, or what else it is."""
    mode: str
    """Octal, without the kind."""
    owner: str
    """`uid:gid`."""
    size: int
    content: str
    """SHA-256 of a file, the target of a link."""
    xattrs: tuple[tuple[str, str], ...]
    """File capabilities are among them."""


def file_system(archive: Path) -> dict[str, Entry]:
    """Return every path in the image with what is there."""
    found: dict[str, Entry] = {}
    for layer in _layers(archive):
        _whiten(found, layer)
        links: list[tuple[str, str]] = []
        for member in layer.getmembers():
            name = _name(member)
            if _is_whiteout(name):
                continue
            if member.islnk():
                links.append((name, _clean(member.linkname)))
                continue
            if not member.isdir() and name in found and found[name].kind == "folder":
                _remove_below(found, name)
            found[name] = _entry(layer, member)
        found.update({name: found[target] for name, target in links})
    return found


def read_files(archive: Path, paths: Collection[str]) -> dict[str, bytes]:
    """Return the content of those of these files that the image has; paths without the first slash."""
    found: dict[str, bytes] = {}
    for layer in _layers(archive):
        for member in layer.getmembers():
            name = _name(member)
            if name in paths and (file := layer.extractfile(member)) is not None:
                found[name] = file.read()
    return found


def _layers(archive: Path) -> Iterator[tarfile.TarFile]:
    """Yield the layers, the lowest first."""
    with tarfile.open(archive) as outer:
        manifest = outer.extractfile("manifest.json")
        assert manifest is not None
        for name in json.load(manifest)[0]["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(name)) as layer:
                yield layer


def _whiten(found: dict[str, Entry], layer: tarfile.TarFile) -> None:
    """Remove what a layer says is gone."""
    for member in layer.getmembers():
        folder, _, base = _name(member).rpartition("/")
        if base == _OPAQUE:
            _remove_below(found, folder)
        elif base.startswith(_WHITEOUT):
            path = f"{folder}/{base.removeprefix(_WHITEOUT)}".lstrip("/")
            found.pop(path, None)
            _remove_below(found, path)


def _remove_below(found: dict[str, Entry], folder: str) -> None:
    for path in [path for path in found if path.startswith(f"{folder}/")]:
        del found[path]


def _entry(layer: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    content = member.linkname if member.issym() else ""
    if member.isreg() and (file := layer.extractfile(member)) is not None:
        content = hashlib.sha256(file.read()).hexdigest()
    kinds = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link", tarfile.REGTYPE: "file"}
    xattrs = sorted(
        (name.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape").hex())
        for name, value in member.pax_headers.items()
        if name.startswith(_XATTR)
    )
    return Entry(
        kinds.get(member.type, f"type {member.type!r}"),
        f"{stat.S_IMODE(member.mode):04o}",
        f"{member.uid}:{member.gid}",
        member.size if member.isreg() else 0,
        content,
        tuple(xattrs),
    )


def _is_whiteout(name: str) -> bool:
    return name.rpartition("/")[2].startswith(_WHITEOUT)


def _name(member: tarfile.TarInfo) -> str:
    return _clean(member.name)


def _clean(name: str) -> str:
    return name.removeprefix("./").strip("/")
