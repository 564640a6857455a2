"""The wheel with the data plane compiled: built, tagged, preferred by pip; and what compilers say."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hack.compile.build import without_folders
from hack.compile.quiet import quiet_unless_it_fails
from hack.release.compiled import build_compiled_wheel, why_not
from hack.release.packages import BuildFailed, build_sdist
from hack.release.tools import LeftOut
from hack.release.versions import read_version
from tests.packaging.conftest import MOMENT
from tests.packaging.elsewhere import ROOT
from tests.packaging.test_installed import Environment

pytestmark = pytest.mark.timeout(600)
"""It compiles, beside other tests: 80 s in a quiet hour, several times as long on a busy machine."""
VERSION = read_version(ROOT)
EXCHANGE = "nodeagent/proxy/exchange"
EXCHANGE_PARTS = ("exchange_state", "responding", "forwarding", "exchange")

needs_compiler = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def few(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution in which few modules are compiled: all of them take a minute.

    Those of the exchange are one class with its bases.
    """
    copy = tmp_path_factory.mktemp("few") / "tree"
    shutil.copytree(tree, copy, symlinks=True)
    modules = copy / "hack" / "compile" / "modules.py"
    source = modules.read_text()
    start, end = source.index("PATTERNS: Final = ("), source.index(")\n", source.index("PATTERNS: Final"))
    few = [*(f"nodeagent/proxy/{name}.py" for name in EXCHANGE_PARTS), "nodeagent/stats/cells.py"]
    modules.write_text(source[:start] + f"PATTERNS: Final = ({', '.join(map(repr, few))}" + source[end:])
    return build_sdist(copy, tmp_path_factory.mktemp("sdist"), MOMENT)


@pytest.fixture(scope="module")
def compiled_wheel(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_compiled_wheel(few, tmp_path_factory.mktemp("compiled"), MOMENT)


@needs_compiler
def test_it_has_the_sources_and_the_modules_and_says_where_it_runs(compiled_wheel: Path, wheel: Path) -> None:
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert compiled_wheel.name.startswith(f"svcmesh-{VERSION}-{tag}-{tag}-")
    assert compiled_wheel.name.endswith(f"_{platform.machine()}.whl")
    assert "-linux_" not in compiled_wheel.name, "the tag names a C library"
    with zipfile.ZipFile(compiled_wheel) as archive, zipfile.ZipFile(wheel) as plain:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        modules = {name for name in names if name.endswith(".so")}
        assert {name.split(".")[0] for name in modules} >= {EXCHANGE, "nodeagent/stats/cells"}
        assert names - modules == set(plain.namelist()), "the same sources"
        assert not [name for name in modules if sys.base_prefix.encode() in archive.read(name)]


@needs_compiler
def test_pip_takes_it_where_it_runs(compiled_wheel: Path, wheel: Path, tmp_path: Path) -> None:
    for path in (compiled_wheel, wheel):
        shutil.copy(path, tmp_path)
    environment = Environment(tmp_path / "venv")
    environment.install("--ignore-installed", "--find-links", tmp_path, "svcmesh")
    said = environment.run("nodeagent", "version", cwd=tmp_path)
    assert "; data plane compiled)" in said.stdout, said.stderr
    assert environment.run("meshctl", "--version", cwd=tmp_path).returncode == 0
    environment.install("--force-reinstall", wheel)
    assert "; data plane not compiled)" in environment.run("nodeagent", "version", cwd=tmp_path).stdout


@needs_compiler
def test_what_does_not_compile_is_named(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy, symlinks=True)
    modules = copy / "hack" / "compile" / "modules.py"
    (copy / "nodeagent" / "stats" / "wrong.py").write_text('"""Wrong."""\n\nNUMBER: int = "text"\n')
    modules.write_text(
        modules.read_text().replace(
            "PATTERNS: Final = (", 'PATTERNS: Final = ("nodeagent/stats/wrong.py",)\n_ = ('
        )
    )
    sdist = build_sdist(copy, tmp_path / "sdist", MOMENT)
    with pytest.raises(BuildFailed, match=r"wrong\.py:3: error: Incompatible types"):
        build_compiled_wheel(sdist, tmp_path, MOMENT)


def test_without_a_compiler_it_is_left_out_by_name(
    monkeypatch: pytest.MonkeyPatch, few: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(LeftOut, match=r"no C compiler here .no-such-compiler; "):
        build_compiled_wheel(few, tmp_path, MOMENT)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "on Linux" in why_not()


def test_the_folders_of_the_machine_that_builds_are_not_in_the_modules() -> None:
    given = "gcc -shared -L/home/me/lib -Wl,-rpath,/home/me/lib -Wl,-O1"
    assert without_folders(given) == "gcc -shared -Wl,-O1"


def test_compilers_are_heard_only_if_they_fail(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_unless_it_fails():
        subprocess.run(["sh", "-c", "echo a warning; echo another >&2"], check=True)
        os.write(1, b"a third\n")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(subprocess.CalledProcessError), quiet_unless_it_fails():
        subprocess.run(["sh", "-c", "echo why; exit 1"], check=True)
    assert capfd.readouterr() == ("", "why\n")
    os.write(1, b"as before\n")
    assert capfd.readouterr() == ("as before\n", "")
