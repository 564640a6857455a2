"""A package of another's that is called `discovery` or `middleware`: an error that names the paths."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from hack.kit.waiting import until
from nodeagent.control.supervisor import worker_command
from nodeagent.start import MARK, OTHERS, ROOT, find_clashes
from tests.agent.harness import Agent

LOUD = 'print("somebody else\'s code ran")\n'
CONSOLE_SCRIPT = "import sys; from nodeagent.start import PROGRAM; sys.argv[0] = 'PROGRAM'; PROGRAM()"
"""What the scripts do that pip writes. Python does not look into the current folder for them (`-P`)."""


def spec(name: str, path: Path | str | None) -> ModuleSpec:
    found = ModuleSpec(name, None, origin=None if path is None else str(path), is_package=True)
    if path is None:
        found.submodule_search_locations = ["/elsewhere/" + name]
    return found


def ours(root: Path) -> Callable[[str], ModuleSpec | None]:
    for name in OTHERS:
        (root / name).mkdir()
        (root / name / "__init__.py").write_text(f'"""A package."""\n\n{MARK}\n')
    return lambda name: spec(name, root / name / "__init__.py")


def shadow(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(LOUD)
    return folder


def run(
    *words: str, cwd: Path, path: str = ROOT, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, *words]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def script(program: str, *arguments: str) -> tuple[str, ...]:
    return ("-P", "-c", CONSOLE_SCRIPT.replace("PROGRAM", program), *arguments)


def test_the_packages_of_this_tree_are_marked() -> None:
    assert list(find_clashes()) == []


def test_packages_beside_ours_are_taken_whichever_way_leads_there(tmp_path: Path) -> None:
    find = ours(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    assert list(find_clashes(str(tmp_path), find)) == []
    assert list(find_clashes(str(link), find)) == []


def test_a_package_that_is_found_elsewhere_is_named_with_both_paths(tmp_path: Path) -> None:
    find = ours(tmp_path)
    other = "/home/me/work/discovery/__init__.py"
    clashes = find_clashes(
        str(tmp_path), lambda name: spec(name, other) if name == "discovery" else find(name)
    )
    assert list(clashes) == [f"discovery: expected in {tmp_path}/discovery, but Python finds {other}"]


def test_a_folder_without_init_and_a_missing_package_are_named(tmp_path: Path) -> None:
    clashes = find_clashes(str(tmp_path), lambda name: spec(name, None) if name == "discovery" else None)
    assert list(clashes) == [
        f"discovery: expected in {tmp_path}/discovery, but Python finds /elsewhere/discovery",
        f"middleware: expected in {tmp_path}/middleware, and there is no such package",
    ]


def test_a_package_that_another_distribution_has_overwritten_is_named(tmp_path: Path) -> None:
    find = ours(tmp_path)
    (tmp_path / "middleware" / "__init__.py").write_text("from .router import Router\n")
    (clash,) = find_clashes(str(tmp_path), find)
    assert clash == f"middleware: {tmp_path}/middleware is there, but another distribution has overwritten it"


@pytest.mark.parametrize("program", ["nodeagent", "meshctl"])
def test_a_folder_in_pythonpath_that_hides_ours_is_an_error(program: str, tmp_path: Path) -> None:
    path = os.pathsep.join((str(shadow(tmp_path, "discovery")), ROOT))
    done = run(*script(program, "--help"), cwd=tmp_path, path=path)
    assert (done.returncode, done.stdout) == (2, ""), "nobody else's code ran"
    assert done.stderr.startswith(f"{program} cannot start")
    assert f"expected in {ROOT}/discovery, but Python finds {tmp_path}/discovery/__init__.py" in done.stderr
    assert "docs/install.md" in done.stderr


def test_as_a_module_the_current_folder_hides_ours_and_that_is_an_error(tmp_path: Path) -> None:
    done = run("-m", "nodeagent", "version", cwd=shadow(tmp_path, "middleware"))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path}/middleware/__init__.py" in done.stderr


@pytest.mark.parametrize("program", ["nodeagent", "meshctl"])
def test_the_current_folder_does_not_matter_to_the_console_scripts(program: str, tmp_path: Path) -> None:
    shadow(tmp_path, "discovery", "middleware", "nodeagent")
    done = run(*script(program, "--help"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {program}")


def test_the_current_folder_does_not_matter_to_workers(tmp_path: Path) -> None:
    """The agent may be started in a folder where somebody works on a package called discovery."""
    (tmp_path / "cluster").mkdir()
    work = shadow(tmp_path / "work", "discovery", "nodeagent", "nodeagent/worker")
    (work / "nodeagent" / "worker" / "__main__.py").write_text("raise SystemExit(3)\n")
    agent = AgentInFolder(tmp_path / "cluster", work)
    try:
        until(agent.ready)
    finally:
        agent.process.terminate()
        assert agent.process.wait(20) == 0
    assert agent.events("worker_died") == []


def test_workers_of_a_tree_that_is_not_installed_find_it_in_the_current_folder() -> None:
    assert worker_command(ROOT) == [sys.executable, "-m", "nodeagent.worker"]
    assert worker_command(os.path.join(ROOT, "docs")) == [sys.executable, "-P", "-m", "nodeagent.worker"]


class AgentInFolder(Agent):
    """Started as the console script, in a folder of its own."""

    def __init__(self, cluster: Path, folder: Path) -> None:
        self._folder = folder
        super().__init__(cluster)

    def program(self) -> list[str]:
        return [
            *("env", f"--chdir={self._folder}", f"PYTHONPATH={ROOT}", sys.executable),
            *script("nodeagent"),
        ]
