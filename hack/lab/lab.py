"""The lab: nodes and pods as network namespaces, on one machine, gone when it is closed."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from hack.lab.folder import LabFolder
from hack.lab.node import Node, Pod
from hack.lab.sandbox import Sandbox
from hack.lab.topology import plan_nodes, render_script

RESOLV_CONF = """\
nameserver 240.0.0.53
search default.svc.mesh svc.mesh
options ndots:5 timeout:2 attempts:2
"""
"""As kubelet writes it: names with fewer than five dots go through the search list first."""


class Lab:
    """`with Lab(nodes=2, pods=3) as lab: lab.node(1).pods[0].run(["curl", ...])`.

    As root, or as anybody where the kernel allows user namespaces. Everything that was started in it ends
    when it is closed, and also when this process is killed.
    """

    def __init__(self, nodes: int = 2, pods: int = 3) -> None:
        self._specs = plan_nodes(nodes, pods)
        self._sandbox = Sandbox()
        self._folder: LabFolder | None = None
        self.directory = Path()
        """Logs and configuration; removed at the end."""
        self.nodes: tuple[Node, ...] = ()

    def node(self, number: int) -> Node:
        """Return a node; the first one is 1."""
        return self.nodes[number - 1]

    @property
    def pods(self) -> tuple[Pod, ...]:
        """All pods, node by node."""
        return tuple(pod for node in self.nodes for pod in node.pods)

    def open(self) -> None:
        """Build it.

        Raises:
            SandboxError: the kernel refused; nothing is left behind.
        """
        self._folder = LabFolder()
        self.directory = self._folder.path
        try:
            resolver = self.directory / "resolv.conf"
            resolver.write_text(RESOLV_CONF)
            self._sandbox.open()
            self._sandbox.run_script(render_script(self._specs))
            self.nodes = tuple(Node(self._sandbox, self.directory, spec, resolver) for spec in self._specs)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every process of the lab and remove all of it. Idempotent."""
        self._sandbox.close()
        for namespace in (*self.nodes, *self.pods):
            namespace.close()
        self.nodes = ()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def __enter__(self) -> Lab:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
