"""`python -m hack.lab shell`: a lab with agents and sample Services, and a shell in one of its pods."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from hack.kit.manifests import Port
from hack.kit.processes import ProcessFailed
from hack.lab.cluster import Cluster
from hack.lab.lab import Lab
from hack.lab.node import Pod
from hack.lab.sandbox import SandboxError

WEB = Port(port=80, target_port=8080, name="http")
ECHO = Port(port=7000, target_port=7000, name="tcp-echo")


def populate(lab: Lab, cluster: Cluster) -> None:
    """Start whoami on every pod and echo on the last one, and write their Services.

    `whoami` and `echo` are in the mesh; `plain` has the same endpoints as whoami and is not.
    """
    for pod in lab.pods:
        pod.start_sample("whoami", WEB.target_port)
    last = lab.pods[-1]
    last.start_sample("echo", ECHO.target_port, "--banner")
    endpoints = [pod.endpoint for pod in lab.pods]
    for name, address, wanted in (("whoami", "10.96.0.10", None), ("plain", "10.96.0.12", {})):
        cluster.serve(name, WEB, endpoints, cluster_ip=address, annotations=wanted)
    cluster.serve("echo", ECHO, [last.endpoint], cluster_ip="10.96.0.11")
    cluster.pods(node.spec for node in lab.nodes)


def open_shell(nodes: int, pods: int) -> int:
    """Build the lab, say what there is, and give the terminal to a shell in the first pod."""
    with Lab(nodes, pods) as lab:
        cluster = Cluster(lab.directory / "cluster")
        print(f"Starting {len(lab.pods)} pods on {len(lab.nodes)} nodes ...", flush=True)
        populate(lab, cluster)
        for node in lab.nodes:
            node.start_agent(cluster.directory)
        pod = lab.pods[0]
        print(describe(lab, cluster), flush=True)
        shell = pod.command([os.environ.get("SHELL", "/bin/sh")])
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return subprocess.run(shell, env=_shell_environment(pod), check=False).returncode
        finally:
            signal.signal(signal.SIGINT, interrupt)
            print("Removing the lab ...", flush=True)


def describe(lab: Lab, cluster: Cluster) -> str:
    """Return what exists and what to try, as text for a person."""
    rows = [
        f"  {node.name}  {node.address:12}  an agent; its admin page: 127.0.0.1:15000 there"
        for node in lab.nodes
    ]
    rows += [f"  {pod.name:5} {pod.address:12}  whoami on port {WEB.target_port}" for pod in lab.pods]
    return "\n".join(
        (
            "",
            *rows,
            f"  echo is on {lab.pods[-1].name}, port {ECHO.target_port}",
            "",
            f"Services (YAML, changes count at once): {cluster.directory}",
            f"Logs: {lab.directory}",
            "",
            f"You are in pod {lab.pods[0].name}. Try:",
            "  curl http://whoami.default.svc.mesh/        # answered by every pod in turn",
            "  nc whoami.default.svc.mesh 81               # not in the mesh: refused at once",
            "  nc echo.default.svc.mesh 7000               # a TCP service that speaks first",
            f"  curl http://{lab.pods[-1].address}:{WEB.target_port}/             # past the mesh",
            f"  nano {cluster.directory}/default.plain.service.yaml   # add svc.mesh/enabled: 'true'",
            "",
            "Leave the shell to remove all of it.",
            "",
        )
    )


def _shell_environment(pod: Pod) -> dict[str, str]:
    return {**os.environ, "PS1": f"{pod.name}$ "}


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(143)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of the lab."""
    parser = argparse.ArgumentParser(prog="python -m hack.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shell = commands.add_parser("shell", help="build a lab and open a shell in its first pod")
    shell.add_argument("--nodes", type=int, default=2)
    shell.add_argument("--pods", type=int, default=3, help="on each node")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return open_shell(given.nodes, given.pods)
    except (SandboxError, ProcessFailed, ValueError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
