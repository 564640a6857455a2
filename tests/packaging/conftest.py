"""What tests of packages share: the packages of this tree, and a fake API server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hack.release.packages import build_sdist, build_wheel
from tests.cli.conftest import api
from tests.packaging.elsewhere import ROOT

__all__ = ["api"]

MOMENT = 1_700_000_000
"""When the packages were made, as they say."""
BUILT = (".venv", "build", "dist", ".git", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")
"""What is in a tree and does not belong to it."""


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this tree, because setuptools writes into what it builds from."""
    folder = tmp_path_factory.mktemp("copy") / "tree"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*BUILT), symlinks=True)
    (folder / "tests" / "__pycache__").mkdir()
    (folder / "tests" / "__pycache__" / "left.pyc").write_bytes(b"")
    return folder


@pytest.fixture(scope="session")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sdist(tree, tmp_path_factory.mktemp("sdist"), MOMENT)


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(sdist, tmp_path_factory.mktemp("wheel"), MOMENT)
