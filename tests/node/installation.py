"""svc.mesh on a real node, as its operator sees it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from hack.kit.waiting import until
from hack.kube.one_node import ROOT, OneNode
from tests.node.workloads import PYTHON

CHART = ROOT / "manifests" / "charts" / "svcmesh"
HOME = ("--namespace", "svcmesh")
MESHCTL = Path(sys.executable).parent / "meshctl"
ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
URL = "http://whoami.default.svc.mesh/"


class Installation:
    """The release, and what can be asked of it."""

    def __init__(self, node: OneNode, helm: Path) -> None:
        self.node = node
        self._helm = helm

    def install(self, **values: str) -> None:
        """Install the release or change its values, and wait until the new agent has taken over."""
        chosen = [word for name, value in values.items() for word in ("--set", f"agent.{name}={value}")]
        self._call("upgrade", "--install", "svcmesh", CHART, *HOME, "--create-namespace", *chosen)
        self.node.kubectl("-n", "svcmesh", "rollout", "status", "daemonset/svcmesh-agent", "--timeout=90s")

    def uninstall(self) -> None:
        """Take the release away and wait until nothing of it is left in the cluster."""
        self._call("uninstall", "svcmesh", *HOME, "--wait", "--timeout", "80s")
        self.node.kubectl("delete", "namespace", "svcmesh")

    def uninstall_if_there(self) -> None:
        """Take the release away if there is one."""
        if self.node.run(self._helm, "status", "svcmesh", *HOME).returncode == 0:
            self.uninstall()

    def meshctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run meshctl with the administrator's kubeconfig."""
        return self.node.run(MESHCTL, *words)

    def agent_pod(self) -> dict[str, Any]:
        """Return the agent's pod; waits until there is but one, as when an upgrade is over."""
        until(lambda: len(self._agent_pods()) == 1, 60.0, every=0.2)
        return self._agent_pods()[0]

    def _agent_pods(self) -> list[dict[str, Any]]:
        listed = json.loads(self.node.kubectl("-n", "svcmesh", "get", "pods", "-o", "json"))["items"]
        assert isinstance(listed, list)
        return listed

    def in_agent(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the agent's container."""
        words = ("kubectl", "-n", "svcmesh", "exec", "daemonset/svcmesh-agent", "--", "sh", "-c", script)
        return self.node.run(*words)

    def log_events(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of this event in the agent's log."""
        lines = self.node.kubectl("-n", "svcmesh", "logs", "daemonset/svcmesh-agent").splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == name]

    def ask(self, pod: str = "client") -> dict[str, Any]:
        """Let a pod ask whoami by its mesh name; return the answer.

        Raises:
            AssertionError: there was none; the message is Python's.
        """
        done = self.node.run("kubectl", "exec", pod, "--", PYTHON, "-c", ASK, URL)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    def answers(self, pod: str = "client") -> bool:
        """Whether a pod gets an answer."""
        return self.node.run("kubectl", "exec", pod, "--", PYTHON, "-c", ASK, URL).returncode == 0

    def events(self, service: str) -> str:
        """Return what `kubectl describe` shows of a Service."""
        return self.node.kubectl("describe", "service", service)

    def _call(self, *words: str | Path) -> None:
        done = self.node.run(self._helm, *words)
        assert done.returncode == 0, done.stderr


class Load:
    """Requests from a pod over eight connections until `stop`; each ends after `renew` requests, if not 0."""

    def __init__(self, node: OneNode, renew: int) -> None:
        self._node = node
        script = f"echo $$ > /tmp/load.pid; exec {PYTHON} /scripts/load.py {URL} 8 90 {renew}"
        command = node.command("kubectl", "exec", "client", "--", "sh", "-c", script)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "started\n"

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        # nsenter and what it started on the node.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate(timeout=60)

    def stop(self) -> dict[str, Any]:
        """End it and return what it counted."""
        self._node.kubectl("exec", "client", "--", "sh", "-c", "kill $(cat /tmp/load.pid)")
        assert self._process.stdout is not None
        counted = json.loads(self._process.stdout.read())
        assert isinstance(counted, dict)
        return counted


def until_answered(installation: Installation, pod: str = "client", seconds: float = 30.0) -> None:
    """Wait until a pod gets an answer by the mesh name."""
    until(lambda: installation.answers(pod), seconds, every=0.2)
