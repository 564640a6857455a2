"""The programs that render manifests: those of `make manifest-tools`, at pinned versions."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

BIN = Path(os.environ.get("SVCMESH_TOOLS", "") or Path.home() / ".cache" / "svcmesh" / "bin")


def tool(name: str, made_by: str = "manifest-tools") -> Path:
    """Return the path of a program, or skip: what is on PATH may be of any version."""
    path = BIN / name
    if not path.exists():
        pytest.skip(f"{path} is not there: `make {made_by}` builds it (needs Go)")
    return path


def invoke(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program without a cluster and without the caller's configuration."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/dev/null"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def run(*command: str | Path) -> str:
    """Run a program as `invoke` does; return what it prints."""
    done = invoke(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout
