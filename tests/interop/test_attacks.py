"""Known attacks on a whole agent: others are served meanwhile, by the same worker, which does not grow."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.http2.attacks import ATTACKS
from tests.interop.mesh import InteropMesh
from tests.interop.raw import RawClient
from tests.interop.recorder import Recorder
from tests.interop.victims import Victims

MIB = 1024 * 1024
MOST = 32 * MIB
"""Bytes by which a worker may be larger after all of them: allocators keep some of what they had."""


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has of its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def test_others_are_served(mesh: InteropMesh) -> None:
    recorder = Recorder()
    (worker,) = mesh.agent.workers()
    with recorder.running() as port:
        address = mesh.serve(port, "http")
        with contextlib.closing(Victims(address)) as victims:
            victims.check("before")
            before = resident(worker)
            for number, attack in enumerate(ATTACKS):
                with RawClient(address) as client:
                    for piece in attack.write():
                        if not client.send(piece):
                            break
                    victims.check(f"during-{number}")
                victims.check(f"behind-{number}")
    assert mesh.agent.workers() == [worker]
    assert resident(worker) - before < MOST
    assert recorder.unclear == []
