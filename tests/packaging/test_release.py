"""`make dist` and `make release`: in a repository of its own, with its own tags."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.release import dist, release
from hack.release.changelog import NoSection, release_section
from hack.release.dist import SUMS, Work, build_dist, write_sums
from hack.release.git import GitFailed, Repository
from hack.release.release import NotReleased, check, make_release
from hack.release.sbom import image_bom, with_mypyc
from hack.release.tools import LeftOut
from hack.release.versions import BadVersion, read_version, set_version
from tests.packaging.conftest import BUILT
from tests.packaging.elsewhere import ROOT

CHANGELOG = """\
# Changes

## 0.2.0, not released yet

- Something new.

## 0.1.0, 2026-01-02

- All of it.
"""
ME = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.invalid")
TODAY = dt.datetime.now(dt.UTC).date().isoformat()


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A copy of this tree with one commit."""
    tree = tmp_path_factory.mktemp("origin") / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*BUILT, "PKG-INFO", "setup.cfg"), symlinks=True)
    (tree / "CHANGELOG.md").write_text(CHANGELOG)
    set_version(tree, "0.1.0")
    origin = Repository(tree)
    origin.run("init", "--quiet", "--initial-branch=main")
    origin.run("add", "--all")
    origin.run(*ME, "commit", "--quiet", "--message", "A tree")
    return origin


@pytest.fixture
def repository(origin: Repository, tmp_path: Path) -> Repository:
    """A clone of it, in which somebody may commit."""
    origin.run("clone", "--quiet", str(origin.root), str(tmp_path / "tree"))
    repository = Repository(tmp_path / "tree")
    for setting in ME[1::2]:
        repository.run("config", *setting.split("=", 1))
    return repository


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builders that take no time: the real ones have tests of their own."""

    def build(work: Work) -> Iterator[Path]:
        path = work.out / f"svcmesh-{work.version}.tar.gz"
        path.write_text((work.tree / "CHANGELOG.md").read_text())
        yield path

    def fail(work: Work) -> Iterator[Path]:
        if work.version:
            raise LeftOut("needs root")
        yield work.out

    monkeypatch.setattr(dist, "_BUILDERS", {**dict.fromkeys(dist.PARTS, build), "image": fail})


def test_the_section_of_a_version_gets_its_date() -> None:
    section = release_section(CHANGELOG, "0.2.0", "2026-05-06")
    assert section.body == "- Something new."
    assert section.text == CHANGELOG.replace("not released yet", "2026-05-06")
    assert release_section(section.text, "0.2.0", "2027-01-01") == section, "it keeps it"
    assert release_section(CHANGELOG, "0.1.0", "x").body == "- All of it."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# Changes\n", "no section headed '## 0.2.0, not released yet'"),
        ("## 0.2.0\n\n- A\n", "no section headed"),
        ("## 0x2.0, not released yet\n\n- A\n", "no section headed"),
        ("## 0.2.0, not released yet\n\n## 0.1.0, 2026-01-02\n\n- A\n", "is empty"),
    ],
)
def test_a_version_without_a_section_is_not_released(text: str, message: str) -> None:
    with pytest.raises(NoSection, match=re.escape(message)):
        release_section(text, "0.2.0", "2026-05-06")


@pytest.mark.usefixtures("quick")
def test_a_release(repository: Repository, said: list[str]) -> None:
    make_release(repository, "0.2.0", ["image"], said.append)
    assert repository.changes() == [], "all is committed"
    assert read_version(repository.root) == "0.2.0"
    assert f"## 0.2.0, {TODAY}" in (repository.root / "CHANGELOG.md").read_text()
    assert repository.run("log", "--format=%s").splitlines() == ["Release 0.2.0", "A tree"]
    assert repository.run("cat-file", "-t", "v0.2.0") == "tag", "an annotated one"
    assert (
        repository.run("tag", "--list", "--format=%(contents)", "v0.2.0")
        == "svc.mesh 0.2.0\n\n- Something new.\n"
    )
    assert repository.run("rev-parse", "v0.2.0^{commit}") == repository.run("rev-parse", "HEAD")
    built = (repository.root / "dist" / "svcmesh-0.2.0.tar.gz").read_text()
    assert f"## 0.2.0, {TODAY}" in built, "it is built from the commit of the release"
    assert "git push origin HEAD v0.2.0" in said[-1]
    before = repository.run("rev-parse", "--short", "HEAD^")
    assert f"git reset --hard {before}" in said[-1]
    with pytest.raises(NotReleased, match="released already"):
        make_release(repository, "0.2.0", ["image"], said.append)


@pytest.mark.usefixtures("quick")
def test_without_a_part_there_is_no_tag_until_it_is_said_to_be_meant(
    repository: Repository, said: list[str]
) -> None:
    with pytest.raises(NotReleased, match="WITHOUT='image'"):
        make_release(repository, "0.2.0", [], said.append)
    assert not repository.has_tag("v0.2.0")
    assert "  Left out: image: needs root" in said
    make_release(repository, "0.2.0", ["image"], said.append)
    assert repository.has_tag("v0.2.0")
    assert repository.run("log", "--format=%s").splitlines() == ["Release 0.2.0", "A tree"], "not twice"


def test_what_keeps_a_version_from_being_released(repository: Repository) -> None:
    with pytest.raises(BadVersion):
        check(repository, "v0.2.0")
    with pytest.raises(NotReleased, match=re.escape("lower than 0.1.0")):
        check(repository, "0.0.9")
    with pytest.raises(NoSection):
        check(repository, "0.3.0")
    assert check(repository, "0.2.0").body == "- Something new."
    (repository.root / "new.txt").write_text("")
    with pytest.raises(NotReleased, match=re.escape("not committed: ?? new.txt")):
        check(repository, "0.2.0")
    shutil.rmtree(repository.root / ".git")
    with pytest.raises(GitFailed):
        check(repository, "0.2.0")


def test_packages_and_chart_of_a_commit(repository: Repository, said: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    without = ["compiled", "image", "sbom"]
    left_out = build_dist(repository, out, without, said.append)
    expected = {"svcmesh-0.1.0.tar.gz", "svcmesh-0.1.0-py3-none-any.whl", SUMS}
    chart = out / "svcmesh-chart-0.1.0.tgz"
    if "chart" in left_out:
        assert "make manifest-tools" in left_out["chart"]
    else:
        expected |= {chart.name}
        with tarfile.open(chart) as tar:
            assert {"svcmesh/Chart.yaml", "svcmesh/templates/daemonset.yaml"} <= set(tar.getnames())
    assert {path.name for path in out.iterdir()} == expected
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=out, check=True, capture_output=True)
    first = (out / SUMS).read_text()
    (repository.root / "README.md").write_text("not committed")
    build_dist(repository, out, without, said.append)
    assert (out / SUMS).read_text() == first, "of the same commit, the same bytes"


def test_without_helm_the_chart_is_left_out(
    repository: Repository, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVCMESH_TOOLS", str(tmp_path))
    left_out = build_dist(
        repository, tmp_path / "out", ["packages", "compiled", "image", "sbom"], said.append
    )
    assert list(left_out) == ["chart"]
    assert "make manifest-tools" in left_out["chart"]


def test_sums_are_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"b")
    (tmp_path / "a").write_bytes(b"a")
    write_sums(tmp_path)
    digests = [hashlib.sha256(data).hexdigest() for data in (b"a", b"b")]
    assert (tmp_path / SUMS).read_text() == f"{digests[0]}  a\n{digests[1]}  b\n"


STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12+deb13u1
Description: GNU C Library: Shared libraries
 Contains the standard libraries.

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: adduser
Status: install ok installed
Architecture: all
Version: 1:3.152
"""


def test_the_bill_of_materials_of_an_image() -> None:
    python = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "components": [{"bom-ref": "uvloop==1", "name": "uvloop"}],
        "dependencies": [{"ref": "uvloop==1"}, {"ref": "root-component", "dependsOn": ["uvloop==1"]}],
        "metadata": {"tools": {}},
    }
    release = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\nID=debian\n'
    bom = json.loads(image_bom(json.dumps(python).encode(), STATUS, release, "svcmesh-agent", "0.1.0"))
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert bom["metadata"]["component"]["name"] == "svcmesh-agent"
    assert bom["dependencies"] == [{"ref": "uvloop==1"}]
    assert {one["name"]: one.get("purl") for one in bom["components"]} == {
        "adduser": "pkg:deb/debian/adduser@1:3.152?arch=all&distro=debian-13",
        "libc6": "pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64&distro=debian-13",
        "uvloop": None,
    }
    descriptions = {one["name"]: one.get("description") for one in bom["components"]}
    assert descriptions["libc6"] == "GNU C Library: Shared libraries"


def test_the_bill_of_materials_names_what_mypyc_compiles_in() -> None:
    bom = {"components": [{"bom-ref": "uvloop==1"}], "dependencies": [{"ref": "uvloop==1"}], "version": 1}
    added = json.loads(with_mypyc(json.dumps(bom).encode(), "2.4.1"))
    assert [one["bom-ref"] for one in added["components"]] == ["mypyc-lib-rt==2.4.1", "uvloop==1"]
    assert added["components"][0]["purl"] == "pkg:pypi/mypy@2.4.1"
    assert added["dependencies"] == [{"ref": "mypyc-lib-rt==2.4.1"}, {"ref": "uvloop==1"}]
    assert added["version"] == 1


def test_the_next_steps_name_what_was_built() -> None:
    text = release.next_steps("0.2.0", "abc")
    assert "svcmesh-chart-0.2.0.tgz" in text
    assert "--tag REGISTRY/svcmesh-agent:0.2.0" in text
