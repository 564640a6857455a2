"""The CPUs and the memory a process may use: affinity and the limits of its control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodeagent.cli.control_group import ControlGroup
from nodeagent.cli.cpu import available_cpus, cpu_quota
from nodeagent.cli.memory import LEAST, MIB, worker_memory


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    (tmp_path / "fs/pods/one").mkdir(parents=True)
    (tmp_path / "membership").write_text("1:cpuset:/old\n0::/pods/one\n")
    return tmp_path


def quota_of(groups: Path) -> float | None:
    return cpu_quota(own_group(groups))


def own_group(groups: Path) -> ControlGroup:
    return ControlGroup(groups / "membership", groups / "fs")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("150000 100000\n", 1.5), ("max 100000\n", None), ("50000 100000", 0.5), ("nonsense", None), ("", None),
     ("100000 0", None)],
)  # fmt: skip
def test_the_quota_of_its_own_group(groups: Path, text: str, expected: float | None) -> None:
    (groups / "fs/pods/one/cpu.max").write_text(text)
    assert quota_of(groups) == expected


def test_the_tightest_quota_counts(groups: Path) -> None:
    (groups / "fs/pods/one/cpu.max").write_text("400000 100000\n")
    (groups / "fs/pods/cpu.max").write_text("200000 100000\n")
    assert quota_of(groups) == 2.0


def test_without_control_groups(tmp_path: Path) -> None:
    nowhere = ControlGroup(tmp_path / "none", tmp_path / "none")
    assert cpu_quota(nowhere) is None
    assert available_cpus(nowhere) == len(os.sched_getaffinity(0))
    assert worker_memory(2, nowhere, 8000 * MIB) == 1400 * MIB


def test_a_group_outside_our_namespace_is_our_root(groups: Path) -> None:
    (groups / "membership").write_text("0::/../../other\n")
    (groups / "fs/cpu.max").write_text("300000 100000\n")
    assert quota_of(groups) == 3.0


@pytest.mark.parametrize(("text", "expected"), [("20000 100000\n", 1), ("190000 100000\n", 1)])
def test_rounded_down_and_at_least_one(groups: Path, text: str, expected: int) -> None:
    (groups / "fs/pods/one/cpu.max").write_text(text)
    assert available_cpus(own_group(groups)) == expected


@pytest.mark.parametrize(
    ("limit", "workers", "expected"),
    [
        (f"{1024 * MIB}\n", 2, int(1024 * MIB * 0.7 / 2)),
        ("max\n", 2, 1400 * MIB),
        ("nonsense", 1, 2800 * MIB),
        (f"{256 * MIB}", 4, LEAST),
    ],
)
def test_a_workers_share_of_the_memory(groups: Path, limit: str, workers: int, expected: int) -> None:
    (groups / "fs/pods/one/memory.max").write_text(limit)
    assert worker_memory(workers, own_group(groups), physical=8000 * MIB) == expected


def test_the_tightest_limit_of_memory_counts(groups: Path) -> None:
    (groups / "fs/pods/one/memory.max").write_text(f"{1000 * MIB}\n")
    (groups / "fs/pods/memory.max").write_text(f"{500 * MIB}\n")
    assert worker_memory(1, own_group(groups), physical=8000 * MIB) == 350 * MIB
