"""The version stands in several places, and they are equal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hack.release.versions import (
    FILES,
    BadVersion,
    parse_version,
    read_version,
    set_version,
    version_files,
    versions_in,
    with_version,
)

ROOT = Path(__file__).parents[2]
VERSION = read_version(ROOT)
OTHERS = {"CHANGELOG.md", "docs/performance.md"}
"""Name the versions that were released, and the one that was measured."""
SUFFIXES = {"", ".cfg", ".md", ".py", ".sh", ".toml", ".tpl", ".txt", ".yaml"}
PROGRAMS = ("nodeagent", "discovery", "middleware", "hack", "manifests", "docs")


def texts() -> list[Path]:
    """Return the files that people or programs read a version from."""
    below = [path for folder in PROGRAMS for path in (ROOT / folder).rglob("*") if path.is_file()]
    found = [path for path in (*ROOT.glob("*"), *below) if path.is_file() and path.suffix in SUFFIXES]
    return [path for path in found if "locks" not in path.parts and path.name != "PKG-INFO"]


def test_every_place_has_the_version_of_the_project() -> None:
    for pattern in FILES:
        found = [version for path in ROOT.glob(pattern) for version in versions_in(path.read_text())]
        assert set(found) == {VERSION}, pattern


def test_no_other_file_names_the_version() -> None:
    whole = re.compile(rf"(?<![\w.]){re.escape(VERSION)}(?![\w]|\.\d)")
    known = {path: len(versions_in(path.read_text())) for path in version_files(ROOT)}
    named = {path: len(whole.findall(path.read_text())) for path in texts()}
    odd = {
        str(path.relative_to(ROOT)): number
        for path, number in named.items()
        if number > known.get(path, 0) and str(path.relative_to(ROOT)) not in OTHERS
    }
    assert odd == {}


def test_setting_it_reaches_every_place_and_nothing_else(tmp_path: Path) -> None:
    for path in version_files(ROOT):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    set_version(tmp_path, "12.34.56")
    assert read_version(tmp_path) == "12.34.56"
    for path in version_files(ROOT):
        before, after = path.read_text(), (tmp_path / path.relative_to(ROOT)).read_text()
        assert after.count("12.34.56") == len(versions_in(before))
        assert set(versions_in(after)) <= {"12.34.56"}
    set_version(tmp_path, VERSION)
    for path in version_files(ROOT):
        assert (tmp_path / path.relative_to(ROOT)).read_text() == path.read_text()


@pytest.mark.parametrize(
    "line",
    [
        'version = "1.2.3"',
        "appVersion: 1.2.3",
        "image: svcmesh-agent:1.2.3",
        'org.opencontainers.image.version="1.2.3" \\',
        '    app.kubernetes.io/version: "1.2.3"',
        "images: [{name: svcmesh-agent, newTag: 1.2.3}]",
        "pipx install ./svcmesh-1.2.3-py3-none-any.whl",
        "helm install svcmesh svcmesh-chart-1.2.3.tgz",
        "docker load -i svcmesh-agent-1.2.3-amd64.tar",
        "docker.io/library/svcmesh-agent   1.2.3   ...",
        "node-1  svcmesh-agent-4m2xk  ready  1.2.3    7     5m ago   12        1         2",
        "agent 1.2.3 on node-1 (svcmesh-agent-qtgjd)",
    ],
)
def test_places(line: str) -> None:
    assert versions_in(line) == ["1.2.3"]
    assert with_version(line, "4.5.60") == line.replace("1.2.3", "4.5.60")


@pytest.mark.parametrize(
    "line", ['python_version = "3.11"', '"pyyaml>=6.0.3"', "h2 1.2.3", "kubeVersion: 1.25.0"]
)
def test_versions_of_others_are_left_alone(line: str) -> None:
    assert versions_in(line) == []


@pytest.mark.parametrize("text", ["1.2", "1.2.3rc1", "v1.2.3", "1.2.03", "", "1.2.3\n"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(BadVersion, match="three numbers"):
        parse_version(text)


def test_versions_are_numbers() -> None:
    assert parse_version("0.10.2") > parse_version("0.9.11")
