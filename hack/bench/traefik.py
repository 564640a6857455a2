"""Traefik as a peer: `make traefik` builds it.

It is a Go program, so one core is `GOMAXPROCS=1` besides `taskset`. It trusts and appends to
`X-Forwarded-For`; the other `X-Forwarded-*` fields and `X-Real-Ip`, which it adds as well, cannot be turned
off.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from string import Template

from hack.bench.machine import program
from hack.bench.processes import ProcessGroup
from hack.kit.processes import Process

ROUTES = "traefik-routes.yaml"
_STATIC = """\
global: {checkNewVersion: false, sendAnonymousUsage: false}
log: {level: ERROR}
entryPoints:
  http:
    address: 127.0.0.1:$http_port
    forwardedHeaders: {insecure: true}
  tcp: {address: "127.0.0.1:$tcp_port"}
serversTransport: {maxIdleConnsPerHost: 256}
providers: {file: {filename: $directory/traefik-routes.yaml, watch: false}}
"""
_ROUTES = """\
http:
  routers:
    all: {rule: PathPrefix(`/`), service: backend, entryPoints: [http]}
  services:
    backend: {loadBalancer: {servers: [{url: "http://127.0.0.1:$backend"}]}}
tcp:
  routers:
    all: {rule: HostSNI(`*`), service: backend, entryPoints: [tcp]}
  services:
    backend: {loadBalancer: {servers: [{address: "127.0.0.1:$backend"}]}}
"""


def traefik_config(ports: Mapping[str, int], directory: Path) -> tuple[str, str]:
    """Return what Traefik reads at its start, and its routes; `ports` are http_port, tcp_port and backend."""
    return Template(_STATIC).substitute(ports, directory=directory), Template(_ROUTES).substitute(ports)


def start_traefik(group: ProcessGroup, core: int, ports: Mapping[str, int]) -> Process:
    """Start Traefik with these ports."""
    config, routes = group.directory / "traefik.yaml", group.directory / ROUTES
    for path, text in zip((config, routes), traefik_config(ports, group.directory), strict=True):
        path.write_text(text)
    command = [program("traefik") or "traefik", f"--configFile={config}"]
    return group.start("traefik", command, core, {**os.environ, "GOMAXPROCS": "1"})
