"""The source distribution and the wheel: complete, reproducible, and their tests run."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from hack.release.archives import normalize
from hack.release.git import GitFailed, Repository
from hack.release.packages import build_sdist, build_wheel, unpack
from hack.release.versions import read_version
from tests.packaging.conftest import MOMENT
from tests.packaging.elsewhere import ROOT

VERSION = read_version(ROOT)
OF_SETUPTOOLS = {
    "PKG-INFO",
    "setup.cfg",
    *(
        f"svcmesh.egg-info/{name}"
        for name in (
            "PKG-INFO",
            "SOURCES.txt",
            "dependency_links.txt",
            "entry_points.txt",
            "requires.txt",
            "top_level.txt",
        )
    ),
}


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """The files of this tree that git keeps, or would; in an unpacked sdist those that it lists itself."""
    try:
        listed = Repository(ROOT).run("ls-files", "--cached", "--others", "--exclude-standard").splitlines()
        return {name for name in listed if (ROOT / name).exists()}
    except GitFailed:
        listed = (ROOT / "svcmesh.egg-info" / "SOURCES.txt").read_text().splitlines()
        return {name for name in listed if name} - OF_SETUPTOOLS


def names_in(archive: Path) -> set[str]:
    """Return the paths of the files in a `.tar.gz`, below its one folder."""
    with tarfile.open(archive) as tar:
        return {member.name.partition("/")[2] for member in tar.getmembers() if member.isfile()}


def test_the_sdist_is_the_whole_tree(sdist: Path, tracked: set[str]) -> None:
    assert sdist.name == f"svcmesh-{VERSION}.tar.gz"
    names = names_in(sdist)
    assert tracked - names == set(), "missing"
    assert names - tracked - OF_SETUPTOOLS == set(), "too much"


def test_programs_stay_programs_in_the_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as tar:
        assert tar.getmember(f"svcmesh-{VERSION}/.ci/run").mode == 0o755
        assert tar.getmember(f"svcmesh-{VERSION}/README.md").mode == 0o644


def test_tests_run_from_the_unpacked_sdist(sdist: Path, tmp_path: Path) -> None:
    """Without git, and without the tree that it was made from."""
    folder = unpack(sdist, tmp_path)
    chosen = ["tests/docs", "tests/plan/test_addresses.py", "tests/manifests/test_image.py"]
    chosen += ["tests/packaging/test_versions.py", "tests/cli/test_settings.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


def test_the_wheel_has_our_three_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"svcmesh-{VERSION}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"nodeagent", "discovery", "middleware", info}
    assert f"{info}/licenses/LICENSE" in names
    sources = {
        str(path.relative_to(ROOT))
        for package in ("nodeagent", "discovery", "middleware")
        for path in (ROOT / package).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed" or path.parent.name == "static"
    }
    assert {name for name in names if not name.startswith(info)} == sources


def test_the_wheel_says_nothing_that_is_not_so(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"svcmesh-{VERSION}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        scripts = archive.read(f"{info}/entry_points.txt").decode()
    assert (metadata["Name"], metadata["Version"]) == ("svcmesh", VERSION)
    assert metadata["License-Expression"] == "Apache-2.0"
    invented = ("Author-Email", "Maintainer", "Maintainer-Email", "Home-Page", "Project-URL", "Download-URL")
    assert [field for field in invented if metadata[field]] == []
    assert metadata.get_all("Provides-Extra") == ["agent", "traces", "dev", "bench"]
    assert "nodeagent = nodeagent.start:nodeagent" in scripts
    assert "meshctl = nodeagent.start:meshctl" in scripts


def test_the_same_tree_gives_the_same_bytes(tree: Path, sdist: Path, wheel: Path, tmp_path: Path) -> None:
    again = build_sdist(tree, tmp_path, MOMENT)
    assert again.read_bytes() == sdist.read_bytes()
    assert build_wheel(again, tmp_path, MOMENT).read_bytes() == wheel.read_bytes()


def test_normalizing_forgets_times_owners_and_the_order(tmp_path: Path) -> None:
    def make(name: str, members: list[str], owner: int) -> bytes:
        with tarfile.open(tmp_path / name, "w:gz") as tar:
            for member in members:
                entry = tarfile.TarInfo(member)
                entry.uid, entry.uname, entry.mtime, entry.mode = owner, f"u{owner}", owner, 0o664
                tar.addfile(entry)
        normalize(tmp_path / name, MOMENT)
        return (tmp_path / name).read_bytes()

    assert make("one.tar.gz", ["a", "b"], 1) == make("two.tar.gz", ["b", "a"], 2)
