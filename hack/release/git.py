"""The few things that a release asks of git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class GitFailed(Exception):
    """git ended with an error; the message has what it said."""


class Repository:
    """A working tree."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *arguments: str) -> str:
        """Return what `git ARGUMENTS` prints, without the last line feed.

        Raises:
            GitFailed: it ended with an error.
        """
        try:
            done = subprocess.run(
                ["git", "-C", self.root, *arguments], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise GitFailed("git is not installed") from None
        if done.returncode:
            raise GitFailed(f"git {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.removesuffix("\n")

    def changes(self) -> list[str]:
        """Return a line for each file that differs from the last commit or is not in it."""
        return self.run("status", "--porcelain").splitlines()

    def has_tag(self, name: str) -> bool:
        """Return whether there is a tag of this name."""
        return bool(self.run("tag", "--list", name))

    def time_of(self, commit: str) -> int:
        """Return when a commit was made, in seconds since 1970."""
        return int(self.run("show", "--no-patch", "--format=%ct", commit))

    def export(self, commit: str, folder: Path) -> None:
        """Write the files of a commit into a folder, with the modes that git keeps and no others.

        Raises:
            GitFailed: it cannot be read.
        """
        archive = folder.parent / f"{folder.name}.tar"
        self.run("-c", "tar.umask=0022", "archive", "--format=tar", f"--output={archive}", commit)
        folder.mkdir()
        subprocess.run(["tar", "-xpf", archive, "-C", folder, "--no-same-owner"], check=True)
        # Builders write the time of the file into archives.
        moment = self.time_of(commit)
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (moment, moment), follow_symlinks=False)
        archive.unlink()
