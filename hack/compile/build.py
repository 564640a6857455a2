"""Compiles the modules of a tree, by mypyc and the C compiler.

Runs setuptools in the tree, so it is a process of its own: `python -m hack.compile`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mypyc.build import mypycify
from setuptools import setup

from hack.compile.modules import modules
from hack.compile.quiet import quiet_unless_it_fails

PACKAGES: Final = ("nodeagent", "discovery", "middleware")
GROUP: Final = "svc_mesh"
"""The library that the compiled modules share is `svc_mesh__mypyc`."""


def stage(source: Path, tree: Path) -> None:
    """Make a tree of the sources for compiled modules to stand beside them; an earlier one is replaced."""
    for name in (*PACKAGES, "tests"):
        shutil.rmtree(tree / name, ignore_errors=True)
        shutil.copytree(source / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for old in tree.glob("*.so"):
        old.unlink()
    shutil.copy(source / "pyproject.toml", tree)
    for path in source.iterdir():
        link = tree / path.name
        if path.name not in (".git", ".mypy_cache", "build", "dist") and not link.exists():
            link.symlink_to(path)


def compile_in_place(tree: Path) -> None:
    """Put the compiled modules beside their sources, those of the tests' doubles too."""
    _setup(
        tree, ["build_ext", "--inplace", f"--parallel={os.cpu_count() or 1}"], sys.executable, doubles=True
    )


def build_wheel(tree: Path, folder: Path, python: str) -> None:
    """Build the wheel with compiled modules into a folder; needs the packages and pyproject.toml alone.

    `python` is that of an environment with what the agent depends on: the types come from there.
    """
    parallel = ["build_ext", f"--parallel={os.cpu_count() or 1}"]
    commands = [*parallel, "bdist_wheel", "--dist-dir", str(folder.absolute())]
    _setup(tree, commands, python, doubles=False)


def _setup(tree: Path, commands: Sequence[str], python: str, *, doubles: bool) -> None:
    os.chdir(tree)
    os.environ.setdefault("LDSHARED", without_folders(sysconfig.get_config_var("LDSHARED") or "cc -shared"))
    files = list(modules(tree, doubles))
    with quiet_unless_it_fails():
        extensions = mypycify(
            [
                *("--config-file", "pyproject.toml", "--explicit-package-bases"),
                *("--follow-imports", "silent", "--python-executable", python),
                *files,
            ],
            opt_level="2",
            debug_level="0",
            multi_file=True,
            group_name=GROUP,
        )
        setup(ext_modules=extensions, script_args=list(commands))


def without_folders(linker: str) -> str:
    """Return a command that links modules, without the folders of libraries of the machine that builds.

    Python's own command may have Python's folder as a run path. It would be in every module, and wrong, or
    even somebody else's, where the module is installed. The modules link the C library only.
    """
    return shlex.join(word for word in shlex.split(linker) if not word.startswith(("-L", "-Wl,-rpath")))
