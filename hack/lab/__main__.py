"""`python -m hack.lab shell`: a lab with agents and sample Services, and a shell in one of its pods."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from hack.kit.manifests import Port
from hack.kit.processes import ProcessFailed
from hack.lab.cluster import Cluster
from hack.lab.lab import Lab
from hack.lab.sandbox import SandboxError

WEB = Port(port=80, target_port=8080, name="http")
ADMIN_PORT = 15000
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
        print(f"Starting {len(lab.nodes)} x {pods} pods and an agent on each node ...", flush=True)
        populate(lab, cluster)
        for node in lab.nodes:
            node.start_agent(cluster.directory, admin=f"0.0.0.0:{ADMIN_PORT}")
        entrance = write_entrance(lab)
        print(describe(lab, cluster, entrance), flush=True)
        shell = lab.pods[0].command(shell_command())
        # Not SIG_IGN, which the shell's programs would inherit: Ctrl-C is for them.
        interrupt = signal.signal(signal.SIGINT, lambda _number, _frame: None)
        try:
            return subprocess.run(shell, env=shell_environment(lab, os.environ), check=False).returncode
        finally:
            signal.signal(signal.SIGINT, interrupt)
            print("Removing the lab ...", flush=True)


def describe(lab: Lab, cluster: Cluster, entrance: Path) -> str:
    """Return what exists and what to try, as text for a person."""
    here, there = lab.pods[0], lab.pods[-1]
    plain = cluster.directory / "default.plain.service.yaml"
    rows = [
        f"  {node.name:5} {node.address:12}  a node with an agent; its admin page is on port {ADMIN_PORT}"
        for node in lab.nodes
    ]
    rows += [f"  {pod.name:5} {pod.address:12}  a pod; whoami on port {WEB.target_port}" for pod in lab.pods]
    return "\n".join(
        (
            "",
            *rows,
            f"  echo is on {there.name}, port {ECHO.target_port}",
            "",
            f"Services (YAML; the agents see a change at once): {cluster.directory}",
            f"Logs: {lab.directory}",
            "",
            f"You are in the pod {here.name}. Try:",
            *_table(
                ("curl http://whoami.default.svc.mesh/", "all pods answer in turn"),
                ("curl http://whoami.default.svc.mesh:81/", "no such port in the mesh: refused at once"),
                ("curl -m 1 telnet://echo.default.svc.mesh:7000", "a TCP service that speaks first"),
                (f"curl http://{there.address}:{WEB.target_port}/", "past the mesh"),
            ),
            "",
            "The Service plain is not in the mesh. Opt it in, and call it by its mesh name:",
            f"  sed -i 's|annotations: {{}}|annotations: {{svc.mesh/enabled: \"true\"}}|' {plain}",
            "  curl http://plain.default.svc.mesh/",
            "",
            "The agent of this node ($AGENT is its address):",
            *_table(
                ('curl "$AGENT/readyz?verbose"', "how it is"),
                ("curl -s $AGENT/metrics | grep ^svcmesh_requests_total", "what it has counted"),
            ),
            "",
            "From another terminal of this machine, as the same user:",
            *_table(
                (f"{entrance} {lab.nodes[0].name} curl http://127.0.0.1:{ADMIN_PORT}/plan", "what it does"),
                (f"{entrance} {there.name} sh", "a shell in another pod"),
            ),
            "",
            "Leave the shell (exit, or Ctrl-D) to remove all of it.",
            "",
        )
    )


def _table(*rows: tuple[str, str]) -> Iterator[str]:
    width = max(len(command) for command, _ in rows)
    return (f"  {command:{width}}  # {meaning}" for command, meaning in rows)


def write_entrance(lab: Lab) -> Path:
    """Write a script that runs a command on a node or in a pod, and return its path."""
    path = lab.directory / "enter"
    cases = "".join(
        f'{place.name}) exec {shlex.join(place.command([]))} "$@" ;;\n' for place in (*lab.nodes, *lab.pods)
    )
    names = " ".join(place.name for place in (*lab.nodes, *lab.pods))
    path.write_text(
        "#!/bin/sh\n"
        "name=$1\n"
        "[ $# -gt 1 ] && shift || name=\n"
        f"case $name in\n{cases}"
        f'*) echo "usage: $0 NAME COMMAND ...; NAME is one of: {names}" >&2; exit 2 ;;\n'
        "esac\n"
    )
    path.chmod(0o755)
    return path


def shell_command() -> list[str]:
    """Return an interactive shell that reads no start-up file: the prompt is ours."""
    bash = shutil.which("bash")
    return [bash, "--noprofile", "--norc", "-i"] if bash else ["/bin/sh", "-i"]


def shell_environment(lab: Lab, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the shell in the first pod gets: a prompt of its own, and where its agent is."""
    unwanted = ("PROMPT_COMMAND", "ENV", "BASH_ENV")
    return {
        **{name: value for name, value in environment.items() if name not in unwanted},
        "PS1": f"svcmesh-lab:{lab.pods[0].name}$ ",
        "AGENT": f"http://{lab.nodes[0].address}:{ADMIN_PORT}",
        "HISTFILE": str(lab.directory / "history"),
    }


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
