"""What a release needs beside setuptools, and where it comes from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


class LeftOut(Exception):
    """A part cannot be built here; the message says why, and how to get it."""


def tools_folder() -> Path:
    """Return where `make manifest-tools` puts programs of pinned versions."""
    return Path(os.environ.get("SVCMESH_TOOLS", "") or Path.home() / ".cache" / "svcmesh" / "bin")


def helm() -> Path:
    """Return the path of helm.

    Raises:
        LeftOut: it has not been built.
    """
    path = tools_folder() / "helm"
    if not path.exists():
        raise LeftOut(f"{path} is not there: `make manifest-tools` builds it (needs Go)")
    return path


def cyclonedx(tree: Path, folder: Path) -> Path:
    """Return the path of cyclonedx-py, of the version that the image is built with; installed into `folder`.

    Raises:
        LeftOut: it cannot be installed.
    """
    lock = tree / "hack" / "locks" / "image.txt"
    program, installed = folder / "bin" / "cyclonedx-py", folder / "installed.txt"
    if not (program.exists() and installed.exists() and installed.read_bytes() == lock.read_bytes()):
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "venv", str(folder)], "python -m venv")
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(lock)], "installing cyclonedx-py")
        installed.write_bytes(lock.read_bytes())
    return program


def has_docker() -> bool:
    """Return whether there is a Docker with buildx whose daemon answers."""
    if shutil.which("docker") is None:
        return False
    asked = (["docker", "buildx", "version"], ["docker", "info"])
    return all(subprocess.run(one, capture_output=True, check=False).returncode == 0 for one in asked)


def run(command: Sequence[str], what: str, folder: Path | None = None) -> None:
    """Run a program whose output matters only if it fails.

    Raises:
        LeftOut: it failed; the message has the end of what it said.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise LeftOut(f"{what} failed: {' / '.join(said[-3:]) or f'exit status {done.returncode}'}")
