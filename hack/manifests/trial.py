"""Run the image as the DaemonSet asks, on a lab node under crun, and send it a request.

`python -m hack.manifests.trial ROOT` as root, where ROOT is the image's root file system:
`buildah mount $(buildah from svcmesh-agent:VERSION)`. Prints a row for each way in which runtimes may start
it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hack.kit.manifests import Port
from hack.kit.processes import ProcessFailed
from hack.lab.cluster import Cluster
from hack.lab.lab import Lab
from hack.lab.node import Agent, Node

DAEMONSET = Path(__file__).resolve().parents[2] / "manifests" / "base" / "daemonset.yaml"
SECCOMP = Path("/usr/share/containers/seccomp.json")
"""The default profile of Debian's container tools."""
PATH = "/opt/svcmesh/privileged:/opt/svcmesh/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WEB = Port(port=80, target_port=8080, name="http")
# crun refuses machines that have both versions of control groups, unless it sees the second alone.
ONE_HIERARCHY = 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'


class Start(NamedTuple):
    """How a runtime starts the container."""

    granted: bool
    """NET_ADMIN is in the permitted set of the user, not in the bounding set alone."""
    escalation: bool
    """allowPrivilegeEscalation."""
    seccomp: bool = False


STARTS = (
    Start(granted=True, escalation=False, seccomp=True),
    Start(granted=True, escalation=False),
    Start(granted=True, escalation=True),
    Start(granted=False, escalation=False),
    Start(granted=False, escalation=True),
)


def runtime_config(
    pod: Mapping[str, Any], root: str, cluster: Path, node: str, start: Start
) -> dict[str, Any]:
    """Return the `config.json` (OCI runtime specification 1.0) of the pod's one container."""
    (container,) = pod["containers"]
    added = [f"CAP_{name}" for name in container["securityContext"]["capabilities"]["add"]]
    held = added if start.granted else []
    environment = {one["name"]: one.get("value", node) for one in container["env"]}
    environment |= {"PATH": PATH, "SVCMESH_SOURCE": "file:/cluster", "PYTHONDONTWRITEBYTECODE": "1"}
    user = pod["securityContext"]
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    }
    if start.seccomp:
        linux["seccomp"] = _seccomp(json.loads(SECCOMP.read_text()), added)
    return {
        "ociVersion": "1.0.2",
        "hostname": node,
        "root": {"path": root, "readonly": container["securityContext"]["readOnlyRootFilesystem"]},
        "process": {
            "cwd": "/",
            "user": {"uid": user["runAsUser"], "gid": user["runAsGroup"]},
            "args": ["/opt/svcmesh/bin/agent-python", "-m", "nodeagent", *container["args"]],
            "env": [f"{name}={value}" for name, value in environment.items()],
            "noNewPrivileges": not start.escalation,
            "capabilities": {
                "bounding": added,
                "permitted": held,
                "effective": held,
                "inheritable": [],
                "ambient": [],
            },
        },
        "mounts": [
            {
                "destination": "/proc",
                "type": "proc",
                "source": "proc",
                "options": ["nosuid", "noexec", "nodev"],
            },
            _tmpfs("/dev", "mode=755"),
            _tmpfs("/dev/shm", "mode=1777"),
            *(_tmpfs(mount["mountPath"], "mode=0777") for mount in container["volumeMounts"]),
            {"destination": "/cluster", "type": "bind", "source": str(cluster), "options": ["rbind", "ro"]},
        ],
        "linux": linux,
    }


def _tmpfs(path: str, mode: str) -> dict[str, Any]:
    return {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", mode]}


def _seccomp(profile: Mapping[str, Any], capabilities: list[str]) -> dict[str, Any]:
    """Resolve what the profile leaves to the runtime: rules that depend on capability and architecture."""
    rules = []
    for rule in profile["syscalls"]:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        if not set(wanted.get("caps", ())) <= set(capabilities):
            continue
        if set(unwanted.get("caps", ())) & set(capabilities) or "amd64" in unwanted.get("arches", ()):
            continue
        if "amd64" in wanted.get("arches", ["amd64"]):
            kept = {key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)}
            rules.append(kept)
    return {
        "defaultAction": profile["defaultAction"],
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
    }


def attempt(root: str, start: Start) -> str:
    """Start the container on a lab node, send a request through it, stop it; return what came of it."""
    pod = yaml.safe_load(DAEMONSET.read_text())["spec"]["template"]["spec"]
    with Lab(nodes=1, pods=2) as lab:
        node = lab.node(1)
        client, server = node.pods
        server.start_sample("whoami", WEB.target_port)
        cluster = Cluster(lab.directory / "cluster")
        cluster.serve("whoami", WEB, [server.endpoint], cluster_ip="10.96.0.10")
        lab.directory.chmod(0o755)
        bundle = lab.directory / "bundle"
        bundle.mkdir()
        config = runtime_config(pod, root, cluster.directory, node.name, start)
        (bundle / "config.json").write_text(json.dumps(config))
        crun = ["crun", "--root", str(lab.directory / "crun"), "--cgroup-manager=disabled"]
        hidden = ["sh", "-c", ONE_HIERARCHY, "sh", *crun]
        process = node.start([*hidden, "run", "--bundle", str(bundle), "agent"], name="container")
        agent = Agent(node, process, "127.0.0.1:15000")
        try:
            agent.wait_ready()
        except ProcessFailed:
            return f"does not serve: {agent.log.strip().splitlines()[-1]}"
        answer = client.run(
            ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "whoami.default.svc.mesh"]
        )
        probe = pod["containers"][0]["readinessProbe"]["exec"]["command"]
        ready = node.run([*hidden, "exec", "agent", *probe]).returncode == 0
        node.run([*hidden, "kill", "agent", "TERM"])
        status = process.wait(60)
        left = _left(node) or "nothing"
        return f"HTTP {answer.stdout}, ready file {ready}, exit status {status}, left: {left}"


def _left(node: Node) -> str:
    tables = node.run(["nft", "list", "tables"]).stdout
    return tables + node.run(["ip", "route", "show", "table", "local", "proto", "240"]).stdout


def main(root: str) -> None:
    """Try every way and print a row for each."""
    for start in STARTS:
        given = " ".join(f"{name}={value}" for name, value in start._asdict().items())
        print(f"{given}: {attempt(root, start)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
