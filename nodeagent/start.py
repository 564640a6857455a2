"""Where the programs `nodeagent` and `meshctl` start: first they make sure that they run their own packages.

An installation has three top-level packages, and `discovery` and `middleware` are names that others may use
too: a folder of that name in the current folder or in PYTHONPATH hides ours, and another distribution that is
installed into the same environment overwrites it. Either way the programs would fail later, with an error
from which nobody sees why.

Until that is known, nothing else of ours is imported and nothing but the standard library.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from nodeagent.init import Kept

OTHERS = ("discovery", "middleware")
"""The packages that belong beside `nodeagent`."""
MARK = '__distribution__ = "svcmesh"'
"""The line in each package's `__init__.py` that says whose it is."""
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder with this installation's packages."""


def nodeagent(kept: Kept | None = None) -> NoReturn:
    """Run the agent's command line; `kept` is given where process 1 keeps the agent running."""
    require_own_packages("nodeagent")
    from nodeagent import load_structlog

    load_structlog()
    from nodeagent.cli.main import main

    main(prog_name="nodeagent", obj=kept)
    raise SystemExit(0)


def meshctl() -> NoReturn:
    """Run the command line for people."""
    require_own_packages("meshctl")
    from nodeagent.meshctl.main import main

    main(prog_name="meshctl")
    raise SystemExit(0)


def require_own_packages(program: str) -> None:
    """End this process with status 2 if a package that would be imported is not this installation's."""
    clashes = list(find_clashes())
    if clashes:
        sys.stderr.write(
            f"{program} cannot start, because packages of svc.mesh are hidden or missing:\n"
            + "".join(f"  {clash}\n" for clash in clashes)
            + "Start it from another folder and without PYTHONPATH. If that does not help, install svcmesh\n"
            'into a virtual environment of its own: see docs/install.md, "A clash of package names".\n'
        )
        raise SystemExit(2)


def find_clashes(
    root: str = ROOT, find: Callable[[str], ModuleSpec | None] = importlib.util.find_spec
) -> Iterator[str]:
    """Yield a line for each package that is not the one below `root`; `find` says where imports find it."""
    for name in OTHERS:
        expected = os.path.join(root, name)
        spec = find(name)
        origin = spec.origin if spec is not None else None
        if spec is None:
            yield f"{name}: expected in {expected}, and there is no such package"
        elif origin is None or not _same(origin, os.path.join(expected, "__init__.py")):
            found = origin or ", ".join(spec.submodule_search_locations or ())
            yield f"{name}: expected in {expected}, but Python finds {found}"
        elif MARK not in _read(origin):
            yield f"{name}: {expected} is there, but another distribution has overwritten it"


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
