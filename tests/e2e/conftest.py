"""A two-node lab with agents on both nodes, and the Services that the tests talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hack.lab.cluster import Cluster, Port, Target
from hack.lab.lab import Lab
from hack.lab.node import Agent, Pod

WEB = Port(port=80, target=8080, name="http")
ECHO = Port(port=7000, target=7000, name="tcp-echo")
WHOAMI_ADDRESS = "250.96.0.10"


class Mesh:
    """The lab under test. `client` is a pod on node 1 that serves nothing."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.cluster = Cluster(lab.directory / "cluster")
        self.client = lab.node(1).pods[0]
        self.servers = (*lab.node(1).pods[1:], *lab.node(2).pods)
        self.agents: tuple[Agent, ...] = ()

    def start(self) -> None:
        for pod in self.servers:
            pod.start_sample("whoami", WEB.target)
        self.servers[-1].start_sample("echo", ECHO.target, "--banner")
        self.serve("whoami", "10.96.0.10", *self.servers)
        self.cluster.service("plain", [WEB], cluster_ip="10.96.0.12", annotations={})
        self.cluster.endpoints("plain", [WEB], [target(pod) for pod in self.servers])
        self.cluster.service("echo", [ECHO], cluster_ip="10.96.0.11")
        self.cluster.endpoints("echo", [ECHO], [target(self.servers[-1])])
        self.cluster.service("headless", [WEB], cluster_ip="None")
        self.cluster.endpoints("headless", [WEB], [target(self.servers[0])])
        self.cluster.pods(node.spec for node in self.lab.nodes)
        self.agents = tuple(node.start_agent(self.cluster.directory) for node in self.lab.nodes)

    def serve(
        self, name: str, cluster_ip: str, *pods: Pod, annotations: dict[str, str] | None = None
    ) -> None:
        # In this order, so that whoever finds the name finds endpoints, too.
        self.cluster.endpoints(name, [WEB], [target(pod) for pod in pods])
        self.cluster.service(name, [WEB], cluster_ip=cluster_ip, annotations=annotations)


def target(pod: Pod) -> Target:
    return Target(address=pod.address, pod=pod.name, node=pod.name.partition("p")[0])


@pytest.fixture(scope="module")
def mesh(lab_possible: None) -> Iterator[Mesh]:
    with Lab(nodes=2, pods=3) as lab:
        mesh = Mesh(lab)
        mesh.start()
        yield mesh
