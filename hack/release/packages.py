"""The source distribution and the wheel, by setuptools, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hack.release.archives import normalize

_BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


class BuildFailed(Exception):
    """A builder ended with an error; the message has the end of what it said."""


def build_sdist(tree: Path, out: Path, moment: int) -> Path:
    """Build the source distribution of a tree, which gets files of setuptools' own; return its path.

    Raises:
        BuildFailed: setuptools says no.
    """
    archive = _build("build_sdist", tree, out, moment)
    normalize(archive, moment)
    return archive


def build_wheel(sdist: Path, out: Path, moment: int) -> Path:
    """Build the wheel from the source distribution, which shows that nothing is missing there.

    Raises:
        BuildFailed: setuptools says no.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _build("build_wheel", unpack(sdist, Path(folder)), out, moment)


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack a source distribution; return its one folder."""
    subprocess.run(["tar", "-xzf", sdist, "-C", folder], check=True)
    return folder / sdist.name.removesuffix(".tar.gz")


def _build(hook: str, tree: Path, out: Path, moment: int) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, hook, str(out.resolve())],
        cwd=tree,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(moment), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildFailed(f"{hook} in {tree}: {done.stderr[-2000:]}")
    return out / done.stdout.splitlines()[-1]
