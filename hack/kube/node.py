"""A node for a `ControlPlane`: containerd, kubelet, kube-proxy and a scheduler, as processes of this machine.

For the namespaces of `hack.kube.one_node` only: it uses the network namespace as that of a node, and mounts
file systems. Pods are on a bridge (the CNI plugins of Debian's containernetworking-plugins). There is no
registry, so images come from archives.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from hack.kube.assets import NodeAssets
from hack.kube.client import Client, Refused
from hack.kube.component import Component
from hack.kube.control_plane import ControlPlane

NAME = "node-1"
ADDRESS = "10.254.7.1"
"""The node's. The API server takes no loopback address for one."""
POD_RANGE = "10.200.0.0/24"
CLUSTER_DNS = "10.96.0.10"
PAUSE = "localhost/pause:1"
CONTROLLERS = (
    "daemonset-controller",
    "deployment-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
)
"""What a node and its pods need besides the controllers of `ControlPlane`."""
APISERVER_FLAGS = (
    f"--advertise-address={ADDRESS}",
    "--bind-address=0.0.0.0",
    "--endpoint-reconciler-type=lease",
    "--kubelet-preferred-address-types=InternalIP",
)
NETWORK = f"""
ip link add node0 type veth peer name node0-peer
ip link set node0-peer up
ip address add {ADDRESS}/24 dev node0
ip link set node0 up
ip route add default dev node0
echo 1 > /proc/sys/net/ipv4/ip_forward
mount --make-rshared /run
mount -t tmpfs none /var/log
"""


class Paths(msgspec.Struct, frozen=True):
    """Where the node keeps what is its own: `folder` for data, `cgroup` below which its pods are."""

    folder: Path
    cgroup: str

    @property
    def socket(self) -> Path:
        """Containerd's."""
        return self.folder / "containerd.sock"


class Node:
    """The programs of a node; `start` returns when it is ready for pods."""

    def __init__(self, assets: NodeAssets, plane: ControlPlane, paths: Paths) -> None:
        self._assets = assets
        self._paths = paths
        self._client: Client = plane.admin
        folder = paths.folder
        self.containerd = Component(
            "containerd",
            [assets.containerd, "--config", self._write("containerd.toml", _containerd(assets, paths))],
            folder / "containerd.log",
            lambda: self._ctr("version").returncode == 0,
        )
        self._others = [
            Component(
                "kube-scheduler",
                [
                    assets.scheduler,
                    f"--kubeconfig={plane.kubeconfig}",
                    "--leader-elect=false",
                    "--secure-port=0",
                ],
                folder / "scheduler.log",
                lambda: True,
            ),
            Component(
                "kube-proxy",
                [assets.proxy, f"--config={self._write_json('proxy.json', _proxy(plane.kubeconfig))}"],
                folder / "proxy.log",
                lambda: True,
            ),
            Component(
                "kubelet",
                [
                    *(assets.kubelet, f"--config={self._write_json('kubelet.json', _kubelet(paths))}"),
                    *(f"--kubeconfig={plane.kubeconfig}", f"--root-dir={folder / 'kubelet'}"),
                    *(f"--hostname-override={NAME}", f"--node-ip={ADDRESS}", f"--cert-dir={folder / 'pki'}"),
                ],
                folder / "kubelet.log",
                self._ready,
            ),
        ]

    def start(self, archives: Sequence[Path]) -> None:
        """Start the programs and import images.

        Raises:
            ProcessFailed: one ended or did not become ready.
            subprocess.CalledProcessError: an archive is not a valid image.
        """
        plugins = [
            {
                "type": "bridge",
                "bridge": "pods0",
                "isGateway": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": str(self._paths.folder / "addresses"),
                },
            }
        ]
        network = {"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}
        self._write_json("cni/pods.conflist", network)
        self.containerd.start()
        for archive in archives:
            self._ctr("images", "import", str(archive)).check_returncode()
        for component in self._others:
            component.start()

    def stop(self) -> None:
        """End the programs. Containers are not children of any of them: they end with their PID namespace."""
        for component in (*reversed(self._others), self.containerd):
            component.stop()

    def _ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._assets.ctr, "--address", str(self._paths.socket), "--namespace", "k8s.io", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    def _ready(self) -> bool:
        try:
            node = self._client.get(f"/api/v1/nodes/{NAME}")
        except (Refused, OSError):
            return False
        conditions = {one["type"]: one["status"] for one in node["status"].get("conditions", ())}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")

    def _write(self, name: str, text: str) -> str:
        path = self._paths.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def _write_json(self, name: str, document: dict[str, Any]) -> str:
        return self._write(name, json.dumps(document))


def _containerd(assets: NodeAssets, paths: Paths) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""
version = 2
root = "{paths.folder}/containerd"
state = "{paths.folder}/containerd-state"
[grpc]
address = "{paths.socket}"
[{cri}]
sandbox_image = "{PAUSE}"
disable_apparmor = true
restrict_oom_score_adj = true
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
SystemdCgroup = false
[{cri}.cni]
bin_dir = "{assets.cni}"
conf_dir = "{paths.folder}/cni"
"""


def _proxy(kubeconfig: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": kubeconfig},
        "hostnameOverride": NAME,
        "clusterCIDR": POD_RANGE,
        "conntrack": {"maxPerCore": 0},
    }


def _kubelet(paths: Paths) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # The API server comes without a certificate of its own, and nobody else gets into the namespace.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": paths.cgroup,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{paths.socket}",
        "clusterDNS": [CLUSTER_DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "podLogsDir": str(paths.folder / "pod-logs"),
        "nodeStatusUpdateFrequency": "2s",
        # How soon a changed ConfigMap is in the pods that mount it.
        "syncFrequency": "3s",
        # The machine's disk is not the node's own to be worried about.
        "evictionHard": dict.fromkeys(("nodefs.available", "imagefs.available", "nodefs.inodesFree"), "0%"),
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }
