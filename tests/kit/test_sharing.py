"""What decides how tests are shared out among processes."""

from __future__ import annotations

from pathlib import Path

from tests.sharing import FIRST, place_of, unit_of, unknown

ROOT = Path(__file__).parents[2]


def test_a_file_stays_together_and_so_does_a_folder_with_one_node() -> None:
    assert unit_of("tests/kube/test_rbac.py::test_a[x::y]") == "tests/kube/test_rbac.py"
    assert unit_of("tests/node/test_checks.py::test_a") == unit_of("tests/node/test_first_cluster.py::test_b")


def test_what_takes_long_begins_first() -> None:
    names = [
        "tests/admin/test_a.py::b",
        "tests/agent/test_x.py::a",
        "tests/agent/test_init.py::b",
        "tests/node/t::a",
    ]
    assert sorted(names, key=place_of) == [names[3], names[2], names[1], names[0]]
    assert place_of("tests/admin/test_a.py::b") == len(FIRST)


def test_the_names_in_it_are_those_of_tests() -> None:
    tests = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    assert unknown(tests) == []
    assert unknown(["tests/node/test_a.py"])[0] == FIRST[1]
