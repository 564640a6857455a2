"""With a real CoreDNS and the mesh's real DNS: what we write is taken up, and what goes wrong is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nodeagent.meshctl.clusterdns import cluster as effects
from nodeagent.meshctl.clusterdns.corefile import insert_block, read_corefile
from nodeagent.meshctl.clusterdns.stub import Stub, stub_block
from nodeagent.meshctl.main import main
from tests.dns_install.coredns import LOCALHOST, CoreDns, MeshDns, adapt, free_port, program
from tests.dns_install.fake_cluster import FakeCluster
from tests.dns_install.samples import read

CLUSTER = "kubernetes.default.svc.cluster.local"
WHOAMI = "whoami.default.svc.mesh"


@pytest.fixture
def mesh() -> Iterator[MeshDns]:
    program()
    with MeshDns() as server:
        yield server


@pytest.fixture
def upstream() -> Iterator[MeshDns]:
    program()
    with MeshDns("example.com") as server:
        yield server


@pytest.mark.parametrize("name", ["kubeadm", "eks", "minikube", "nodelocal", "k3s", "aks"])
def test_what_we_write_is_served_and_the_rest_is_answered_as_before(
    mesh: MeshDns, upstream: MeshDns, tmp_path: Path, name: str
) -> None:
    server = CoreDns(tmp_path, free_port())
    text = adapt(read(name), server.port, upstream.port).replace("/etc/coredns/", "")
    block = stub_block(read_corefile(text), Stub(("svc.mesh",), f"{LOCALHOST}:{mesh.port}"))
    if "*.server" in text:
        server.write("Corefile", text)
        server.write("custom/svcmesh.server", block)
    else:
        server.write("Corefile", insert_block(text, block))
    with server:
        server.wait_until_up()
        assert server.ask(WHOAMI) == server.ask(WHOAMI, tcp=True) == "250.96.0.10"
        assert server.ask("missing.default.svc.mesh") == "NXDOMAIN"
        # A NodeLocal DNSCache asks the cluster's CoreDNS, in whose place our upstream stands here.
        assert server.ask(CLUSTER) == ("REFUSED" if name == "nodelocal" else "10.96.0.1")


class Cluster:
    """A cluster whose one pod is a real CoreDNS; `mount` does what its kubelet would."""

    def __init__(self, fake: FakeCluster, server: CoreDns, mesh: MeshDns, text: str) -> None:
        self.fake, self.server, self.mesh, self.text = fake, server, mesh, text
        fake.workload(
            "deployments", "coredns", {"/etc/coredns": "coredns", "/etc/coredns/custom": "coredns-custom"}
        )
        fake.put("coredns", {"Corefile": self.text})
        fake.forward_to = (LOCALHOST, server.port)
        fake.after_write = self.mount
        self.mount()

    def mount(self) -> None:
        self.server.write("Corefile", self.corefile)
        for path in self.server.folder.glob("custom/*.server"):
            path.unlink()
        for name, text in (self.fake.data("coredns-custom") or {}).items():
            self.server.write(f"custom/{name}", text)

    @property
    def corefile(self) -> str:
        return (self.fake.data("coredns") or {})["Corefile"]

    def meshctl(self, *arguments: str) -> Result:
        address = f"{LOCALHOST}:{self.mesh.port}"
        options = ("--yes", "--kubeconfig", self.fake.kubeconfig(), "--address", address)
        return CliRunner().invoke(main, ["dns", *arguments, *options])


@pytest.fixture
def cluster(
    request: pytest.FixtureRequest,
    mesh: MeshDns,
    upstream: MeshDns,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cluster]:
    corefile = read(getattr(request, "param", "kubeadm"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(effects, "PAUSE", 0.05)
    with FakeCluster(tmp_path) as fake:
        server = CoreDns(tmp_path, free_port())
        text = adapt(corefile, server.port, upstream.port).replace("/etc/coredns/", "")
        made = Cluster(fake, server, mesh, text)
        with server:
            server.wait_until_up()
            yield made


@pytest.mark.parametrize("cluster", ["kubeadm", "k3s", "aks"], indirect=True)
def test_install_waits_for_the_reload_and_remove_gives_everything_back(cluster: Cluster) -> None:
    assert cluster.server.ask(WHOAMI) == "REFUSED"
    result = cluster.meshctl("install", "--timeout", "60")
    assert result.exit_code == 0, result.output
    assert cluster.server.ask(WHOAMI) == "250.96.0.10"
    assert cluster.server.ask(CLUSTER) == "10.96.0.1"

    result = cluster.meshctl("remove", "--timeout", "60")
    assert result.exit_code == 0, result.output
    assert cluster.corefile == cluster.text
    assert cluster.server.ask(WHOAMI) == "REFUSED"
    assert cluster.server.ask(CLUSTER) == "10.96.0.1"


def test_an_edit_that_coredns_refuses_is_rolled_back(cluster: Cluster) -> None:
    def mount_broken() -> None:
        cluster.fake.after_write = cluster.mount
        cluster.server.write("Corefile", cluster.corefile.replace("forward .", "no_such_plugin ."))

    cluster.fake.after_write = mount_broken
    result = cluster.meshctl("install", "--timeout", "10")
    assert result.exit_code == 1
    assert "not in force in time" in result.output
    assert "everything is as it was before" in result.output
    assert cluster.corefile == cluster.text
    assert "no_such_plugin" in cluster.server.log
    assert cluster.server.ask(CLUSTER) == "10.96.0.1"


def test_a_coredns_that_loses_the_names_of_the_cluster_is_rolled_back(cluster: Cluster) -> None:
    def mount_without() -> None:
        cluster.fake.after_write = cluster.mount
        cluster.server.write("Corefile", cluster.corefile.replace("template IN A", "template IN AAAA"))

    cluster.fake.after_write = mount_without
    result = cluster.meshctl("install", "--timeout", "60")
    assert (result.exit_code, "got worse" in result.output) == (1, True), result.output
    assert cluster.corefile == cluster.text


def test_a_mesh_that_does_not_answer_is_rolled_back(cluster: Cluster) -> None:
    cluster.mesh.port = free_port()
    result = cluster.meshctl("install", "--timeout", "6")
    assert (result.exit_code, "not in force in time" in result.output) == (1, True), result.output
    assert "svc.mesh. SOA" in result.output
    assert cluster.corefile == cluster.text
