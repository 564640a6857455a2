"""The agent with what the DaemonSet leaves it: not root, NET_ADMIN alone, no_new_privs, a read-only root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import nodeagent
from hack.kit.manifests import Port
from hack.lab.cluster import Cluster
from hack.lab.lab import Lab
from hack.lab.node import Agent, Node
from hack.manifests.confine import USER

pytestmark = pytest.mark.lab

ROOT = Path(nodeagent.__file__).parents[1]
NET_ADMIN = "0000000000001000"
NOTHING = "0000000000000000"
WEB = Port(port=80, target_port=8080, name="http")
STATUS = "print(open('/proc/self/status').read())"


def readable_python() -> Path:
    """Return an interpreter of our version that the confined user can read, with its library."""
    same = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (Path(sys.executable).resolve(), Path("/usr/local/bin", same), Path("/usr/bin", same)):
        command = [
            "setpriv",
            f"--reuid={USER}",
            f"--regid={USER}",
            "--clear-groups",
            str(path),
            "-c",
            "import json",
        ]
        if path.exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return path.resolve()
    pytest.skip(f"needs a {same} that every user may run (Debian: its own python3)")


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """Return a folder with python and nft as the image has them: copies with file capabilities."""
    missing = [name for name in ("setcap", "setpriv", "nft") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip("needs root, and the programs setcap, setpriv and nft (Debian: libcap2-bin util-linux)")
    # Not pytest's own folders: those are closed to other users.
    with tempfile.TemporaryDirectory(prefix="svcmesh-programs-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        install(folder)
        yield folder


def install(folder: Path) -> None:
    nft = shutil.which("nft")
    assert nft is not None
    for name, source in (("python", readable_python()), ("nft", Path(nft))):
        shutil.copy(source, folder / name)
        done = subprocess.run(["setcap", "cap_net_admin+ep", folder / name], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"the file system of {folder} has no file capabilities")


@pytest.mark.parametrize(
    ("options", "effective"),
    [
        ((), NET_ADMIN),
        (("--escalation",), NET_ADMIN),
        (("--escalation", "--ungranted"), NET_ADMIN),
        (("--ungranted",), NOTHING),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_what_a_file_capability_is_worth(programs: Path, options: tuple[str, ...], effective: str) -> None:
    """no_new_privs takes away only what the runtime had not granted before."""
    confine = [sys.executable, "-m", "hack.manifests.confine", *options, "--"]
    command = [*confine, str(programs / "python"), "-ISc", STATUS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    fields = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    assert (fields["CapEff"], fields["CapPrm"], fields["CapBnd"]) == (effective, effective, NET_ADMIN)
    assert (fields["CapInh"], fields["CapAmb"]) == (NOTHING, NOTHING)
    assert fields["NoNewPrivs"] == ("0" if "--escalation" in options else "1")
    assert fields["Uid"].split() == [str(USER)] * 4


def start_confined(node: Node, programs: Path, cluster: Path) -> Agent:
    """Start the agent as the DaemonSet does: environment, user, capabilities, and a read-only root."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    script = f"""set -e
mount --make-rprivate /
mkdir {programs}/run
mount -t tmpfs -o mode=0777 tmpfs {programs}/run
mount -o remount,ro,bind /
export SVCMESH_NODE_NAME={node.name} SVCMESH_CAPTURE=nftables SVCMESH_WORKERS=1
export SVCMESH_READY_FILE={programs}/run/ready SVCMESH_LOG_FORMAT=json SVCMESH_SOURCE=file:{cluster}
python={sys.executable}
PATH={programs}:$PATH PYTHONPATH={ROOT}:{packages} PYTHONDONTWRITEBYTECODE=1 \\
  exec $python -m hack.manifests.confine -- {programs}/python -m nodeagent run"""
    process = node.start(["unshare", "--mount", "sh", "-c", script], name="confined")
    return Agent(node, process, "127.0.0.1:15000")


@pytest.fixture
def confined(lab_possible: None, programs: Path) -> Iterator[tuple[Node, Agent]]:
    with Lab(nodes=1, pods=2) as lab:
        node = lab.node(1)
        lab.directory.chmod(0o755)
        node.pods[1].start_sample("whoami", WEB.target_port)
        cluster = Cluster(lab.directory / "cluster")
        cluster.serve("whoami", WEB, [node.pods[1].endpoint], cluster_ip="10.96.0.10")
        agent = start_confined(node, programs, cluster.directory)
        agent.wait_ready()
        yield node, agent


def test_the_confined_agent_serves_and_leaves_nothing(confined: tuple[Node, Agent], programs: Path) -> None:
    node, agent = confined
    answer = node.pods[0].run(["curl", "-s", "--max-time", "10", "http://whoami.default.svc.mesh/"])
    assert f'"name": "{node.pods[1].name}"' in answer.stdout, agent.log
    assert "process_open_fds" in agent.metrics()
    readable = node.run(["sh", "-c", "cat /proc/[0-9]*/status"]).stdout
    ours = [status for status in readable.split("Name:") if f"Uid:\t{USER}\t" in status]
    assert {line for status in ours for line in status.splitlines() if line.startswith("CapBnd")} == {
        f"CapBnd:\t{NET_ADMIN}"
    }
    effective = sorted(line for one in ours for line in one.splitlines() if line.startswith("CapEff"))
    assert effective == [f"CapEff:\t{NOTHING}", f"CapEff:\t{NET_ADMIN}"], "a worker, and the agent"
    assert agent.stop() == 0
    assert "error" not in agent.log
    assert node.run(["nft", "list", "tables"]).stdout == ""
    assert node.run(["ip", "route", "show", "table", "local", "proto", "240"]).stdout == ""
