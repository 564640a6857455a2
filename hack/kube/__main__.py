"""`python -m hack.kube assets` gets the programs, `python -m hack.kube shell` starts a control plane.

`node-assets` gets what a node needs beside them, `node` starts a cluster of one node.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from hack.kit.processes import ProcessFailed
from hack.kube.assets import AssetsMissing, prepare_assets, prepare_node_assets
from hack.kube.control_plane import ControlPlane
from hack.kube.one_node import IMAGE, ROOT, OneNode


def open_shell() -> int:
    """Start a control plane and give the terminal to a shell with its KUBECONFIG."""
    started = time.monotonic()
    with ControlPlane() as cluster:
        print(f"Ready after {time.monotonic() - started:.1f} s; its data and logs: {cluster.folder}")
        print(f"export KUBECONFIG={cluster.kubeconfig}", flush=True)
        print("You are in a shell that has it: try `kubectl get services -A`. `exit` ends the cluster.")
        return _give_terminal([os.environ.get("SHELL", "/bin/sh")], {"KUBECONFIG": cluster.kubeconfig})


def open_node() -> int:
    """Start a cluster of one node with the agent's image and give the terminal to a shell on the node."""
    if not IMAGE.exists():
        raise AssetsMissing(f"there is no {IMAGE}: make image")
    started = time.monotonic()
    with OneNode([IMAGE]) as cluster:
        print(f"Ready after {time.monotonic() - started:.1f} s; its data and logs: {cluster.folder}")
        print("You are in a shell on the node. `kubectl` is there, the mesh is not yet:")
        print("kubectl apply -k manifests/base; kubectl -n svcmesh logs ds/svcmesh-agent", flush=True)
        return _give_terminal(cluster.command("sh", "-c", f"cd {ROOT} && exec sh"), {})


def _give_terminal(shell: list[str], environment: Mapping[str, str]) -> int:
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.run(shell, env={**os.environ, **environment}, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, interrupt)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m hack.kube", description=__doc__)
    parser.add_argument("what", choices=("assets", "node-assets", "shell", "node"))
    try:
        what = parser.parse_args().what
        if what == "shell":
            return open_shell()
        if what == "node":
            return open_node()
        if what == "node-assets":
            node = prepare_node_assets()
            print(f"Ready: {node.kubelet}, {node.kubectl}, containerd, runc, {node.cni}")
            return 0
        assets = prepare_assets()
        print(f"Ready: {assets.apiserver}, {assets.controller_manager}, {assets.etcd}")
    except (AssetsMissing, ProcessFailed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
