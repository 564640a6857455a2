"""What the demo tells a person: what runs, its names, and lines to paste, which `make smoke` runs as well."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from hack.demo.shop import NAMESPACE, RATE, SLOWER
from hack.demo.stage import Stage, Stall
from nodeagent.cli.flags import LOCALHOST

PACKAGES = {"dig": "dnsutils", "curl": "curl", "nc": "netcat-openbsd"}
"""Debian's packages for the programs that the lines use."""


class Line(msgspec.Struct, frozen=True):
    """A line to paste into another terminal, and what its output holds if all is well."""

    about: str
    command: str
    expected: tuple[str, ...]
    status: int = 0

    @property
    def missing(self) -> tuple[str, ...]:
        """The programs it needs that are not installed."""
        return tuple(tool for tool in PACKAGES if f"{tool} " in self.command and shutil.which(tool) is None)


def lines_to_paste(stage: Stage, plan: dict[str, Any]) -> list[Line]:
    """Return the lines, for the addresses and ports that the plan has."""
    dig = f"dig +short -p {stage.dns_port} @{LOCALHOST}"
    codes = "curl -s -o /dev/null -w '%{http_code} '"
    chat_address, _, chat_port = _mesh(plan, "chat").partition(":")
    web = stage.stalls["web"]
    return [
        Line("ask the mesh DNS", f"{dig} {web.offer.mesh_name}", (_mesh(plan, "web").partition(":")[0],)),
        Line("one request", f"curl -s {_url(stage, plan, 'web')}", ('"name": "web-',)),
        Line(
            "six on one connection: every endpoint in turn",
            f"""curl -s {_url(stage, plan, "web", "?try=[1-6]")} | grep -o '"name": "[^"]*"'""",
            tuple(f'"{server.name}"' for server in web.servers),
        ),
        Line(
            "the rate limit: of nine at once five pass, the rest get 429",
            f"{codes} {_url(stage, plan, 'orders', '?try=[1-9]')}; echo",
            ("429",),
        ),
        Line(
            "the circuit breaker: after three errors or more the mesh answers 503 by itself, for ten seconds",
            f"{codes} {_url(stage, plan, 'catalog', '?status=500&delay=0.02&try=[1-20]')}; echo",
            ("503",),
        ),
        Line("TCP", f"printf 'hello\\n' | nc -w 1 {chat_address} {chat_port}", ("220 chat-", "hello")),
        Line(
            "a port that is not in the mesh: refused at once",
            f"curl -sS http://{chat_address}:9/",
            ("Failed to connect",),
            status=7,
        ),
        Line(
            "a Service without annotations: there is no such name",
            f"dig -p {stage.dns_port} @{LOCALHOST} {stage.stalls['office'].offer.mesh_name} | grep status",
            ("NXDOMAIN",),
        ),
        Line(
            "what this node does now", f"curl -s http://{LOCALHOST}:{stage.admin_port}/plan", ('"shop/web"',)
        ),
        Line(
            "what it has counted",
            f"curl -s http://{LOCALHOST}:{stage.admin_port}/metrics | grep ^svcmesh_requests_total",
            ('service="web"',),
        ),
        Line(
            "what failed or was refused, and why",
            f"{_program('meshctl')} failures --limit 3 --agent http://{LOCALHOST}:{stage.admin_port}",
            ("127.0.0.1 → shop/",),
        ),
        Line(
            "what the mesh would do with a request, and because of which annotation",
            f"{_program('meshctl')} explain --agent http://{LOCALHOST}:{stage.admin_port}"
            f" http://{web.offer.mesh_name}:{_mesh(plan, 'web').rpartition(':')[2]}/",
            ("svc.mesh/retry-attempts",),
        ),
        Line("are the annotations right?", f"{_program('meshctl')} check {stage.cluster}", ()),
    ]


def describe(stage: Stage, plan: dict[str, Any]) -> str:
    """Return all that is printed once the demo is ready."""
    return "\n".join(
        [
            "",
            f"The shop is open: {len(stage.children) - 1} sample servers and the agent run.",
            f"Kubernetes YAML: {stage.cluster}/",
            f"DNS:             {LOCALHOST}:{stage.dns_port}",
            f"Live page:       http://{LOCALHOST}:{stage.admin_port}/ui/",
            f"Admin address:   http://{LOCALHOST}:{stage.admin_port}/",
            *(f"Note: {note}." for note in stage.notes),
            "",
            *_table(stage, plan),
            "",
            *_paste(lines_to_paste(stage, plan)),
            "Change something and watch the log below:",
            *(f"  {line}" for line in _suggestions(stage)),
            "",
            "Ctrl-C ends the demo and removes all of it. From here on: the agent's log.",
            "",
        ]
    )


def _table(stage: Stage, plan: dict[str, Any]) -> list[str]:
    rows = [("MESH NAME", "ADDRESS:PORT", "WHAT IT SHOWS", "ENDPOINTS")]
    rows += [_row(stall, plan) for stall in stage.stalls.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = []
    for *cells, endpoints in rows:
        padded = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        table.append(f"  {padded}  {endpoints}")
    shifted = [
        f"  (port {listener['port']} of {name} is at {listener['mesh'].rpartition(':')[2]}:"
        " low ports need root)"
        for name, service in plan["services"].items()
        for listener in service["listeners"]
        if not listener["mesh"].endswith(f":{listener['port']}")
    ]
    return table + shifted


def _row(stall: Stall, plan: dict[str, Any]) -> tuple[str, str, str, str]:
    offer = stall.offer
    hosts = ", ".join(server.address for server in stall.servers)
    where = f"{hosts} port {stall.target_port}"
    if not offer.meshed:
        return f"({NAMESPACE}/{offer.name})", "-", offer.about, where
    return offer.mesh_name, _mesh(plan, offer.name), offer.about, where


def _paste(lines: Iterable[Line]) -> list[str]:
    text = ["Paste into another terminal, in this folder:"]
    for line in lines:
        hint = "".join(f" (install {tool}; Debian: {PACKAGES[tool]})" for tool in line.missing)
        text += [f"  # {line.about}{hint}", f"  {line.command}"]
    return [*text, ""]


def _suggestions(stage: Stage) -> list[str]:
    victim = stage.stalls["web"].servers[1]
    return [
        f"in {stage.cluster}/orders.yaml change {RATE} to {SLOWER}, and send the nine again: one passes;",
        f"in {stage.cluster}/web.yaml remove the line svc.mesh/enabled: the name is gone; put it back;",
        f'in {stage.cluster}/web.yaml write svc.mesh/retry-attempts: "many": it is reported, 2 stays;',
        f"kill {victim.child.pid}  # that is {victim.name}: no request fails, the others are tried",
    ]


def _mesh(plan: dict[str, Any], name: str) -> str:
    """Return the mesh address and port of a Service."""
    return str(plan["services"][f"{NAMESPACE}/{name}"]["listeners"][0]["mesh"])


def _url(stage: Stage, plan: dict[str, Any], name: str, rest: str = "") -> str:
    """Return curl's arguments for a Service by mesh name: this machine's resolver does not know the zone."""
    host = stage.stalls[name].offer.mesh_name
    address, _, port = _mesh(plan, name).partition(":")
    return f"--resolve {host}:{port}:{address} 'http://{host}:{port}/{rest}'"


def _program(name: str) -> str:
    """Return how a program of this environment is called from the current folder."""
    program = Path(sys.executable).parent / name
    if program.is_relative_to(Path.cwd()):
        return str(program.relative_to(Path.cwd()))
    return str(program)
