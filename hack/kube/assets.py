"""The programs of a control plane: where they are, and how `make kube-assets` gets them.

The convention is envtest's: KUBEBUILDER_ASSETS names a folder with `etcd` and `kube-apiserver`, and here also
`kube-controller-manager` where controllers are wanted. Without it a cache outside the tree is used. What is
missing there is built from `go.mod` beside this file, which pins `k8s.io/kubernetes`; etcd is Debian's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from hack.debian import can_install, install

MODULE = Path(__file__).parent
BUILT = ("kube-apiserver", "kube-controller-manager")
OF_A_NODE = ("kubelet", "kube-proxy", "kube-scheduler", "kubectl")
PACKAGES = {"containerd": "containerd", "ctr": "containerd", "runc": "runc"}
"""Debian's package of each program that a node needs beside those."""
CNI = Path("/usr/lib/cni")
CNI_PACKAGE = "containernetworking-plugins"
HOW = "make kube-assets (needs Go 1.24 or newer and etcd), or set KUBEBUILDER_ASSETS to a folder with them"


class AssetsMissing(Exception):
    """A program that is needed is not there; the message says which and how to get it."""


class Assets(msgspec.Struct, frozen=True):
    """Paths of the programs; `controller_manager` is empty where there is none (envtest ships none)."""

    etcd: str
    apiserver: str
    controller_manager: str = ""


class NodeAssets(msgspec.Struct, frozen=True):
    """Paths of what a node needs; `cni` is the folder of the CNI plugins."""

    kubelet: str
    proxy: str
    scheduler: str
    kubectl: str
    containerd: str
    ctr: str
    cni: str


def kubernetes_version() -> str:
    """Return the version of Kubernetes that go.mod pins, such as `v1.34.4`."""
    found = re.search(r"^require k8s\.io/kubernetes (v\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert found, "go.mod pins k8s.io/kubernetes"
    return found[1]


def assets_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return $KUBEBUILDER_ASSETS, or the cache of the pinned version."""
    if named := environment.get("KUBEBUILDER_ASSETS"):
        return Path(named)
    cache = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "svcmesh" / "kube" / kubernetes_version()


def find_assets(environment: Mapping[str, str] = os.environ) -> Assets:
    """Return the programs that are there.

    Raises:
        AssetsMissing: etcd or kube-apiserver is not.
    """
    folder = assets_folder(environment)
    found = {name: _program(folder, name) for name in ("etcd", *BUILT)}
    missing = [name for name in ("etcd", "kube-apiserver") if not found[name]]
    if missing:
        raise AssetsMissing(f"no {' and no '.join(missing)} in {folder}: {HOW}")
    return Assets(found["etcd"], found["kube-apiserver"], found["kube-controller-manager"])


def find_node_assets(environment: Mapping[str, str] = os.environ) -> NodeAssets:
    """Return the programs of a node.

    Raises:
        AssetsMissing: one is not there, or containers cannot be run here.
    """
    folder = assets_folder(environment)
    if os.geteuid():
        raise AssetsMissing("a node runs containers: that needs root")
    missing = [name for name in OF_A_NODE if not _program(folder, name)]
    missing += [name for name in PACKAGES if shutil.which(name) is None]
    missing += [str(CNI)] if not (CNI / "bridge").exists() else []
    if missing:
        raise AssetsMissing(f"no {', no '.join(missing)}: make node-assets (as root on Debian, with Go)")
    kubelet, proxy, scheduler, kubectl = (_program(folder, name) for name in OF_A_NODE)
    return NodeAssets(kubelet, proxy, scheduler, kubectl, "containerd", "ctr", str(CNI))


def prepare_node_assets() -> NodeAssets:
    """Build or install what a node needs beside a control plane.

    Raises:
        AssetsMissing: it cannot be had on this machine.
    """
    folder = assets_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if missing := [name for name in OF_A_NODE if not _program(folder, name)]:
        _build(folder, missing)
    packages = {package for name, package in PACKAGES.items() if shutil.which(name) is None}
    packages |= {CNI_PACKAGE} if not (CNI / "bridge").exists() else set()
    if packages and can_install():
        _say(f"Installing Debian's {', '.join(sorted(packages))}; no service is started")
        install(packages)
    return find_node_assets()


def prepare_assets() -> Assets:
    """Build or install what is missing, telling what is done on standard output.

    Raises:
        AssetsMissing: it cannot be had on this machine.
    """
    folder = assets_folder()
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in BUILT if not _program(folder, name)]
    if missing:
        _build(folder, missing)
    if not _program(folder, "etcd"):
        _link_etcd(folder)
    return find_assets()


def _program(folder: Path, name: str) -> str:
    path = folder / name
    return str(path) if path.is_file() and os.access(path, os.X_OK) else ""


def _build(folder: Path, names: list[str]) -> None:
    if shutil.which("go") is None:
        raise AssetsMissing(f"Go is not installed, so {' and '.join(names)} cannot be built: {HOW}")
    version = kubernetes_version()
    _say(f"Building {' and '.join(names)} {version} into {folder}.")
    _say("The first time this takes many minutes (about 15 on two cores); later Go's build cache answers.")
    stamp = " ".join(f"-X k8s.io/{part}/version.gitVersion={version}" for part in ("component-base",))
    stamp += f" -X k8s.io/client-go/pkg/version.gitVersion={version}"
    for name in names:
        started = time.monotonic()
        # Beside its place and then moved there: a build that was interrupted leaves no half a program.
        with tempfile.TemporaryDirectory(dir=folder) as draft:
            command = ["go", "build", "-trimpath", "-mod=readonly", "-ldflags", f"-s -w {stamp}"]
            command += ["-o", f"{draft}/{name}", f"k8s.io/kubernetes/cmd/{name}"]
            if subprocess.run(command, cwd=MODULE, check=False).returncode:
                raise AssetsMissing(f"go build of {name} failed, see above")
            Path(draft, name).replace(folder / name)
        _say(f"  {name}: {time.monotonic() - started:.0f} s")


def _link_etcd(folder: Path) -> None:
    if shutil.which("etcd") is None and can_install():
        _say("Installing Debian's etcd-server")
        install(["etcd-server"])
    program = shutil.which("etcd")
    if program is None:
        raise AssetsMissing("etcd is not installed: apt-get install etcd-server (as root), then once more")
    (folder / "etcd").unlink(missing_ok=True)
    (folder / "etcd").symlink_to(program)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
