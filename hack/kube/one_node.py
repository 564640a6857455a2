"""A real cluster of one node, for trying an installation: `with OneNode(images) as cluster: ...`.

A control plane, and a node with kubelet, containerd, runc and kube-proxy, in namespaces of their own: nothing
of it is seen outside, and nothing is left but what is in this machine's kernel modules. Needs root, because
containers do, and `make node-assets`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hack.kit.processes import ProcessFailed
from hack.kube.archive import write_image
from hack.kube.assets import MODULE, NodeAssets, find_node_assets
from hack.kube.control_plane import CONTROLLERS, ControlPlane
from hack.kube.node import APISERVER_FLAGS, NETWORK, PAUSE, Node, Paths
from hack.kube.node import CONTROLLERS as NODE_CONTROLLERS
from hack.lab.sandbox import Sandbox

ROOT = MODULE.parents[1]
IMAGE = ROOT / "build" / "svcmesh-agent.tar"
"""Where `make image` puts the agent's."""
READY = "ready "
CGROUPS = Path("/sys/fs/cgroup")
STOP_TIME = 30.0


class OneNode:
    """The cluster, seen from outside; `archives` are images that the node shall have.

    Raises:
        AssetsMissing: on construction, where programs are not there or this is not root.
    """

    def __init__(self, archives: Sequence[Path]) -> None:
        self._assets = find_node_assets()
        self._archives = [archive.resolve() for archive in archives]
        self._sandbox = Sandbox()
        self._inside: subprocess.Popen[str] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="svcmesh-node-"))
        self.kubeconfig = ""

    def __enter__(self) -> OneNode:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        pause = self.folder / "pause"
        subprocess.run(["cc", "-static", "-Os", "-o", pause, MODULE / "pause.c"], check=True)
        write_image(self.folder / "pause.tar", PAUSE, {"/pause": pause}, ["/pause"])
        for hierarchy in _hierarchies():
            (hierarchy / self.folder.name).mkdir()
        self._sandbox.open()
        self._sandbox.run_script(f"ip link set lo up\n{NETWORK}")
        archives = [self.folder / "pause.tar", *self._archives]
        inside = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", __name__]
        inside += [str(self.folder), *map(str, archives)]
        self._inside = subprocess.Popen(
            self._sandbox.command(inside), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._inside.stdout is not None
        line = self._inside.stdout.readline()
        if not line.startswith(READY):
            raise ProcessFailed(f"the node does not start: {line or 'see above'}")
        self.kubeconfig = line.removeprefix(READY).strip()

    def close(self) -> None:
        """End everything and remove what it left."""
        if self._inside is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._inside.communicate(timeout=STOP_TIME)
        self._sandbox.close()
        if self._inside is not None:
            self._inside.wait()
        for hierarchy in _hierarchies():
            for folder, _, _ in os.walk(hierarchy / self.folder.name, topdown=False):
                os.rmdir(folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *words: str | Path) -> list[str]:
        """Return what to run here so that `words` run on the node, with the administrator's KUBECONFIG."""
        path = f"{Path(self._assets.kubectl).parent}:{os.environ['PATH']}"
        environment = [f"KUBECONFIG={self.kubeconfig}", f"PATH={path}"]
        return self._sandbox.command(["env", *environment, *map(str, words)])

    def run(self, *words: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program on the node, `text` on its standard input, and return what came of it."""
        return subprocess.run(
            self.command(*words), input=text, capture_output=True, text=True, timeout=90, check=False
        )

    def kubectl(self, *words: str, text: str = "") -> str:
        """Run kubectl and return what it prints.

        Raises:
            ProcessFailed: it failed; the message is its own.
        """
        done = self.run("kubectl", *words, text=text)
        if done.returncode:
            raise ProcessFailed(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout


def _hierarchies() -> Iterator[Path]:
    """Yield where control groups are made: one folder, or one for each controller of the first version."""
    if (CGROUPS / "cgroup.controllers").exists():
        yield CGROUPS
        return
    seen = set()
    for folder in sorted(CGROUPS.iterdir()):
        found = folder.stat().st_dev
        if (folder / "cgroup.procs").exists() and found not in seen:
            seen.add(found)
            yield folder


def main() -> None:
    """Run inside: start all, say so, and end when standard input does."""
    folder, *archives = map(Path, sys.argv[1:])
    assets: NodeAssets = find_node_assets()
    controllers = (*CONTROLLERS, *NODE_CONTROLLERS)
    with ControlPlane(controllers=controllers, apiserver_flags=APISERVER_FLAGS) as plane:
        node = Node(assets, plane, Paths(folder, f"/{folder.name}"))
        try:
            node.start(archives)
            print(f"{READY}{plane.kubeconfig}", flush=True)
            sys.stdin.read()
        finally:
            node.stop()


if __name__ == "__main__":
    main()
