"""Buffers that come and go do not go through the kernel each time."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

_READS = """
import resource
from nodeagent.worker.heap import keep_buffers
{keep}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(500):
    several = [b"x" * 200_000 for _ in range(4)]
    del several
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(keep: str) -> int:
    command = [sys.executable, "-c", _READS.format(keep=keep)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no such setting")
def test_buffers_of_reads_are_kept() -> None:
    pages_of_one_round = 4 * 200_000 // 4096
    assert _faults("") > 100 * pages_of_one_round
    assert _faults("keep_buffers()") < 10 * pages_of_one_round
