"""The wheel in an environment of its own, as pipx and uv make one: without the extra, from any folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from hack.release.versions import read_version
from tests.cli.test_meshctl import BAD
from tests.packaging.elsewhere import AGENT_ONLY, ROOT

VERSION = read_version(ROOT)


class Environment:
    """A virtual environment that has the packages of this one, but for the agent's and ours."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (self.packages,) = (folder / "lib").glob("python*/site-packages")
        # Of a path in a .pth file the .pth files are not read, so an editable svcmesh there is not seen.
        blocked = f"import sys; sys.modules.update(dict.fromkeys({AGENT_ONLY!r}))"
        (self.packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{blocked}\n")

    def install(self, *what: str | Path) -> None:
        pip = (sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "--quiet")
        options = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
        done = subprocess.run([*pip, *options, *what], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / program, *arguments],
            cwd=cwd,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("venv"))
    environment.install(wheel)
    return environment


def test_meshctl_works_without_the_extra(installed: Environment, tmp_path: Path) -> None:
    assert installed.run("meshctl", "--version", cwd=tmp_path).stdout == f"meshctl, svc.mesh {VERSION}\n"
    shown = installed.run("meshctl", "--help", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    (tmp_path / "shop.yaml").write_text(BAD)
    checked = installed.run("meshctl", "check", tmp_path, cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (1, "")
    assert "shop.yaml:" in checked.stdout


def test_the_agent_says_which_wheel_to_install(installed: Environment, tmp_path: Path) -> None:
    done = installed.run("nodeagent", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert f"pip install 'svcmesh-{VERSION}-py3-none-any.whl[agent]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_another_distribution_that_overwrites_a_package_of_ours_is_noticed(
    wheel: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "venv")
    environment.install(wheel)
    (environment.packages / "discovery" / "__init__.py").write_text("from .client import Client\n")
    for program in ("meshctl", "nodeagent"):
        done = environment.run(program, "--help", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"discovery: {environment.packages}/discovery is there, but another" in done.stderr


def test_an_editable_installation_works_from_any_folder(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy, symlinks=True)
    environment = Environment(tmp_path / "venv")
    environment.install("--editable", copy)
    done = environment.run("meshctl", "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"meshctl, svc.mesh {VERSION}\n"), done.stderr
    done = environment.run("nodeagent", "version", cwd=copy)
    assert (done.returncode, done.stderr) == (0, "")
