"""Where the version stands in the tree, and setting it. Pure, but for `read_version` and `set_version`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

FILES = (
    "pyproject.toml",
    "Dockerfile",
    "docs/*.md",
    "manifests/base/*.yaml",
    "manifests/charts/svcmesh/Chart.yaml",
    "manifests/monitoring/*.yaml",
)
"""The files that name the version of this tree, as patterns below its root."""
_PLACE = re.compile(
    r'(?:^version = "|^version: |^appVersion: |app\.kubernetes\.io/version: "|image\.version="|newTag: '
    r"|svcmesh-agent:|svcmesh-agent-|svcmesh-agent +|svcmesh-chart-|svcmesh-"
    r"|^meshctl |^svc\.mesh |^agent |agree \(| (?:ready|stale) +)"
    r"(\d+\.\d+\.\d+)(?![\w.]*\d)",
    re.MULTILINE,
)
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


class BadVersion(Exception):
    """Not a version that Python, Helm and the CHANGELOG all understand."""


def parse_version(text: str) -> tuple[int, int, int]:
    """Read `MAJOR.MINOR.PATCH`.

    Raises:
        BadVersion: anything else.
    """
    found = _VERSION.fullmatch(text)
    if found is None:
        raise BadVersion(f"{text!r} is not a version: give three numbers, such as 0.2.0")
    major, minor, patch = map(int, found.groups())
    return major, minor, patch


def versions_in(text: str) -> list[str]:
    """Return the version in each place of a file that names it."""
    return _PLACE.findall(text)


def with_version(text: str, version: str) -> str:
    """Return the text of a file with this version in each place that names it."""
    return _PLACE.sub(lambda found: found[0].removesuffix(found[1]) + version, text)


def version_files(tree: Path) -> Iterator[Path]:
    """Yield the files of a tree that name its version."""
    for pattern in FILES:
        yield from sorted(tree.glob(pattern))


def read_version(tree: Path) -> str:
    """Return the version of a tree."""
    project = tomllib.loads((tree / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["version"])


def set_version(tree: Path, version: str) -> None:
    """Write the version into every place that names it."""
    for path in version_files(tree):
        path.write_text(with_version(path.read_text("utf-8"), version), "utf-8")
