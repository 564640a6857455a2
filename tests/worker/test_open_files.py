"""How many clients fit into a worker's descriptors."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nodeagent.worker.open_files import OWN, most_clients


@pytest.mark.parametrize(
    ("files", "clients"), [(1024, (1024 - OWN) // 2), (1_048_576, 65_536), (OWN, 1), (10, 1)]
)
def test_each_client_needs_two(files: int, clients: int) -> None:
    assert most_clients(files, 65_536) == clients


@pytest.mark.parametrize(("soft", "hard"), [(256, 512), (512, 512)])
def test_a_worker_asks_for_all_it_may_have(soft: int, hard: int) -> None:
    script = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from nodeagent.worker.open_files import raise_limit\n"
        "print(raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [str(hard), str(hard)]
