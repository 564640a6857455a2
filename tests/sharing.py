"""How tests are shared out among the processes of `pytest -n`: in what order, and what stays together.

The tests of a file stay in one process, which has their fixtures. A process that has nothing left to do ends,
so what takes longest begins first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

WHOLE_FOLDERS: Final = ("tests/node/",)
"""Their tests share something that takes long to make."""
FIRST: Final = (
    "tests/node/",
    "tests/packaging/test_compiled.py",
    "tests/e2e/",
    "tests/kube/",
    "tests/agent/test_init.py",
    "tests/dns_install/",
    "tests/agent/",
    "tests/soak/",
    "tests/demo/",
    "tests/interop/",
    "tests/lab/",
    "tests/packaging/",
    "tests/exchange/test_machine.py",
    "tests/dataplane/",
)
"""What takes minutes, or waits more than it computes, by the beginnings of its names."""


def unit_of(test: str) -> str:
    """Return the name of all tests that one process has to have together with this one."""
    folder = next((folder for folder in WHOLE_FOLDERS if test.startswith(folder)), None)
    return folder or test.partition("::")[0]


def place_of(test: str) -> int:
    """Return the place of a test in the order in which they begin; those of one place stay as they were."""
    return next((place for place, name in enumerate(FIRST) if test.startswith(name)), len(FIRST))


def unknown(names: Iterable[str]) -> list[str]:
    """Return the beginnings above that no test of these names has."""
    known = list(names)
    return [start for start in (*FIRST, *WHOLE_FOLDERS) if not any(name.startswith(start) for name in known)]
