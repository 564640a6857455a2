"""The plan of a lab's network, and the YAML it is described with; pure."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hack.kit.manifests import Endpoint, Port
from hack.lab.cluster import Cluster
from hack.lab.topology import plan_nodes, render_script


def test_addresses() -> None:
    first, second = plan_nodes(2, 3)
    assert (first.name, first.address, first.gateway) == ("n1", "172.30.0.1", "10.244.1.1")
    assert [(pod.name, pod.address) for pod in second.pods] == [
        ("n2p1", "10.244.2.11"),
        ("n2p2", "10.244.2.12"),
        ("n2p3", "10.244.2.13"),
    ]


def test_nodes_know_each_others_pods() -> None:
    script = render_script(plan_nodes(2, 1))
    assert "ip -n n1 route add 10.244.2.0/24 via 172.30.0.2\n" in script
    assert "ip -n n2 route add 10.244.1.0/24 via 172.30.0.1\n" in script
    assert "ip -n n1 route add 10.244.1.0/24" not in script


@pytest.mark.parametrize(("nodes", "pods"), [(0, 1), (251, 1), (1, 241), (1, -1)])
def test_sizes_that_have_no_room(nodes: int, pods: int) -> None:
    with pytest.raises(ValueError, match="a lab has 1 to 250 nodes"):
        plan_nodes(nodes, pods)


def test_cluster_files(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    ports = [Port(port=80, target_port=8080, name="http")]
    cluster.service("web", ports, cluster_ip="10.96.0.10")
    cluster.endpoints("web", ports, [Endpoint("10.244.1.11", pod="n1p1", ready=False)])
    cluster.pods(plan_nodes(1, 1))
    service = yaml.safe_load((tmp_path / "default.web.service.yaml").read_text())
    assert service["metadata"]["annotations"] == {"svc.mesh/enabled": "true"}
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": 8080}]
    endpoints = yaml.safe_load((tmp_path / "default.web.endpoints.yaml").read_text())
    assert endpoints["metadata"]["labels"] == {"kubernetes.io/service-name": "web"}
    assert endpoints["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert endpoints["endpoints"][0]["conditions"] == {"ready": False, "serving": True, "terminating": False}
    pod = yaml.safe_load((tmp_path / "default.n1p1.pod.yaml").read_text())
    assert pod["status"]["podIP"] == "10.244.1.11"
    cluster.remove("web")
    assert [path.name for path in tmp_path.iterdir()] == ["default.n1p1.pod.yaml"]
