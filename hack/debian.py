"""Installs Debian's packages, where this is Debian and root: for tools and tests, never for users' sake."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path

_POLICY = Path("/usr/sbin/policy-rc.d")


def can_install() -> bool:
    """Whether packages can be installed here at all."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: Collection[str]) -> None:
    """Install packages without starting their services; packages that cannot be installed are missing
    afterwards.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_services_started():
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(
                ["apt-get", "-qq", *command],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )


@contextlib.contextmanager
def _no_services_started() -> Iterator[None]:
    """Packages start their service when they are installed; nobody wants a web server on port 80 here."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
