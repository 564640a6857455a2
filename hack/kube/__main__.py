"""`python -m hack.kube assets` gets the programs, `python -m hack.kube shell` starts a control plane.

`node-assets` gets what a node needs beside them.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

from hack.kube.assets import AssetsMissing, prepare_assets, prepare_node_assets
from hack.kube.component import ComponentFailed
from hack.kube.control_plane import ControlPlane


def open_shell() -> int:
    """Start a control plane and give the terminal to a shell with its KUBECONFIG."""
    started = time.monotonic()
    with ControlPlane() as cluster:
        print(f"Ready after {time.monotonic() - started:.1f} s; its data and logs: {cluster.folder}")
        print(f"export KUBECONFIG={cluster.kubeconfig}", flush=True)
        print("You are in a shell that has it: try `kubectl get services -A`. `exit` ends the cluster.")
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig}
            shell = [os.environ.get("SHELL", "/bin/sh")]
            return subprocess.run(shell, env=environment, check=False).returncode
        finally:
            signal.signal(signal.SIGINT, interrupt)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m hack.kube", description=__doc__)
    parser.add_argument("what", choices=("assets", "node-assets", "shell"))
    try:
        what = parser.parse_args().what
        if what == "shell":
            return open_shell()
        if what == "node-assets":
            node = prepare_node_assets()
            print(f"Ready: {node.kubelet}, {node.kubectl}, containerd, runc, {node.cni}")
            return 0
        assets = prepare_assets()
        print(f"Ready: {assets.apiserver}, {assets.controller_manager}, {assets.etcd}")
    except (AssetsMissing, ComponentFailed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
