"""Connections that hang without an end: the source notices, and connects again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from discovery.kube.source import KubeSource
from discovery.kube.timing import Timing
from hack.kube.control_plane import ControlPlane
from tests.discovery.kube.listener import Listener
from tests.kube.gate import Gate
from tests.kube.objects import namespace, service

pytestmark = pytest.mark.kube

HASTY = msgspec.structs.replace(Timing(), watch_shortest=2.0, watch_longest=2.0, watch_grace=1.0, answer=3.0)
"""Watches that the server ends after two seconds, and that count as hanging after three; so does a request
for the next watch, which goes out on a connection that hangs if it comes between two of them."""


@pytest.fixture
def gate(shared_cluster: ControlPlane) -> Iterator[Gate]:
    shared_cluster.admin.apply(namespace("hanging"))
    with Gate(shared_cluster.port) as gate:
        yield gate


def source(cluster: ControlPlane, gate: Gate, timing: Timing) -> KubeSource:
    user = json.loads(Path(cluster.kubeconfig).read_text())["users"][0]["user"]
    return KubeSource(kubeconfig=cluster.write_kubeconfig("hanging", user, gate.port), timing=timing)


@pytest.fixture
async def hasty(shared_cluster: ControlPlane, gate: Gate) -> AsyncIterator[Listener]:
    listener = Listener(source(shared_cluster, gate, HASTY))
    await listener.until(lambda: listener.synced == 1)
    yield listener
    # The end of TLS on what hangs would be waited for longer than the test's loop lives.
    gate.cut()
    await listener.stop()


async def test_a_watch_that_hangs_is_noticed(
    hasty: Listener, gate: Gate, shared_cluster: ControlPlane
) -> None:
    with capture_logs() as logs:
        assert gate.lose() > 0
        shared_cluster.admin.apply(service("after-the-hang", "hanging"))
        await hasty.until(lambda: "Service after-the-hang" in hasty.names)
    assert "timeout" in {line["kind"] for line in logs if line["event"] == "source_error"}
    # The watch went on from where it was: nothing had to be listed.
    assert "source_listed" not in {line["event"] for line in logs}
