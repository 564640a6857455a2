"""Archives that are the same bytes whenever and wherever they are made of the same files."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path


def normalize(archive: Path, moment: int) -> None:
    """Rewrite a `.tar.gz` with its members in order, owned by root and of one time; their modes stay."""
    content = io.BytesIO()
    with (
        tarfile.open(archive) as old,
        tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = moment, 0, 0, "root", "root"
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
    with archive.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=moment) as packed:
        packed.write(content.getvalue())
