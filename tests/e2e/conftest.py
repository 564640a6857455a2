"""A two-node lab with agents on both nodes, and the Services that the tests talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hack.kit.manifests import Port
from hack.lab.cluster import Cluster
from hack.lab.lab import Lab
from hack.lab.node import Agent, Pod

WEB = Port(port=80, target_port=8080, name="http")
ECHO = Port(port=7000, target_port=7000, name="tcp-echo")
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
            pod.start_sample("whoami", WEB.target_port)
        self.servers[-1].start_sample("echo", ECHO.target_port, "--banner")
        self.serve("whoami", "10.96.0.10", *self.servers)
        self.serve("plain", "10.96.0.12", *self.servers, annotations={})
        self.cluster.serve("echo", ECHO, [self.servers[-1].endpoint], cluster_ip="10.96.0.11")
        self.serve("headless", "None", self.servers[0])
        self.cluster.pods(node.spec for node in self.lab.nodes)
        self.agents = tuple(node.start_agent(self.cluster.directory) for node in self.lab.nodes)

    def serve(
        self, name: str, cluster_ip: str, *pods: Pod, annotations: dict[str, str] | None = None
    ) -> None:
        endpoints = [pod.endpoint for pod in pods]
        self.cluster.serve(name, WEB, endpoints, cluster_ip=cluster_ip, annotations=annotations)


@pytest.fixture(scope="module")
def mesh(lab_possible: None) -> Iterator[Mesh]:
    with Lab(nodes=2, pods=3) as lab:
        mesh = Mesh(lab)
        mesh.start()
        yield mesh
