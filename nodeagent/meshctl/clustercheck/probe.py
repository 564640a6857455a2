"""Checks of the nodes themselves, from what `nodeagent node-check` found on each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from nodeagent.capture.node_facts import NodeFacts
from nodeagent.meshctl.clustercheck.result import Check, Outcome, Result, Unknown
from nodeagent.settings import DNS_PORT, WORKER_PORTS

SEE = "docs/meshctl.md#the-nodes-themselves"
NODE_POD = Check("node-pod", "a pod like the agent's runs on every node", SEE)
NODE_PRIVILEGE = Check(
    "node-privilege", "the container runtime grants NET_ADMIN", "docs/security.md#on-a-node"
)
NODE_NFTABLES = Check("node-nftables", "the kernel takes the agent's nftables table", SEE)
NODE_TABLE = Check("node-table", "no node has a table `ip svcmesh`", SEE)
NODE_ROUTES = Check("node-routes", "no node uses addresses of the mesh range", SEE)
NODE_PORTS = Check("node-ports", "the ports of the agent are free", SEE)
CHECKS = (NODE_POD, NODE_PRIVILEGE, NODE_NFTABLES, NODE_TABLE, NODE_ROUTES, NODE_PORTS)

UNASKED = Unknown("it takes a short-lived pod on each node: add --probe-nodes --image IMAGE")
Probes = Mapping[str, NodeFacts | Unknown]


def check_probes(probes: Probes | Unknown, admin_port: int) -> tuple[Result, ...]:
    """Judge what was found, by node; nodes that could not be looked at fail the first check only."""
    if isinstance(probes, Unknown):
        return tuple(check.not_checked(probes.reason) for check in CHECKS)
    lost = [f"{node}: {found.reason}" for node, found in sorted(probes.items()) if isinstance(found, Unknown)]
    seen = {node: found for node, found in sorted(probes.items()) if isinstance(found, NodeFacts)}
    ran = NODE_POD.of_problems(
        lost, f"{len(seen)} of {len(probes)}", "the agent would not run there either; mend this first"
    )
    if not probes:
        return tuple(check.not_checked("there is no node to look at") for check in CHECKS)
    if not seen:
        return (ran, *(check.not_checked("no node could be looked at") for check in CHECKS[1:]))
    every = f"{len(seen)} of {len(seen)} nodes"
    return (ran, *(_judge(rule, seen, every, admin_port) for rule in _RULES))


_Rule = tuple[Check, Callable[[NodeFacts, int], str], str, Outcome]


def _judge(rule: _Rule, seen: Mapping[str, NodeFacts], every: str, admin_port: int) -> Result:
    check, find, advice, outcome = rule
    problems = ((node, find(facts, admin_port)) for node, facts in seen.items())
    return check.of_problems((f"{node}: {said}" for node, said in problems if said), every, advice, outcome)


def _privilege(facts: NodeFacts, _: int) -> str:
    return "" if facts.net_admin else "the agent's user does not get NET_ADMIN"


def _nftables(facts: NodeFacts, _: int) -> str:
    # Without the privilege nothing is taken from us, which is said once.
    return f"{facts.ruleset} (Linux {facts.kernel})" if facts.ruleset and facts.net_admin else ""


def _table(facts: NodeFacts, _: int) -> str:
    if not facts.table:
        return ""
    return "an unknown program's" if facts.table == "unknown" else f"an agent's ({facts.table})"


def _routes(facts: NodeFacts, _: int) -> str:
    used = [f"address {one}" for one in facts.addresses] + [f"route {one}" for one in facts.routes]
    return ", ".join(used[:4]) + (" ..." if len(used) > 4 else "")


def _ports(facts: NodeFacts, admin_port: int) -> str:
    return ", ".join(f"{port}" for port in _taken(facts, admin_port))


def _taken(facts: NodeFacts, admin_port: int) -> Iterator[str]:
    """Yield the ports that an agent needs and others have.

    The admin page takes a port on all addresses, so any listener is in its way. Workers and DNS take theirs
    on addresses of the mesh range, so only listeners on all addresses are in their way; one of the workers'
    ports is enough. Port 53 is not taken: the kernel maps it before any listener sees the question.
    """
    if _listens(facts, "tcp", [admin_port], everywhere=False):
        yield f"tcp {admin_port} (the admin page)"
    workers = [port for port in WORKER_PORTS if _listens(facts, "tcp", [port], everywhere=True)]
    if len(workers) == len(WORKER_PORTS):
        yield f"tcp {WORKER_PORTS.start} to {WORKER_PORTS.stop - 1} (workers)"
    for transport in ("tcp", "udp"):
        if _listens(facts, transport, [DNS_PORT], everywhere=True):
            yield f"{transport} {DNS_PORT} (DNS)"


def _listens(facts: NodeFacts, transport: str, ports: Iterable[int], *, everywhere: bool) -> bool:
    wanted = set(ports)
    return any(
        one.transport == transport and one.port in wanted and (one.everywhere or not everywhere)
        for one in facts.listening
    )


_RULES: tuple[_Rule, ...] = (
    (
        NODE_PRIVILEGE,
        _privilege,
        "set agent.allowPrivilegeEscalation=true if this is cri-dockerd, else see what the runtime forbids",
        "failed",
    ),
    (
        NODE_NFTABLES,
        _nftables,
        "the agent would not start there; the kernel needs nf_tables with NAT",
        "failed",
    ),
    (
        NODE_TABLE,
        _table,
        "an agent replaces it; if nothing runs there any more, `nft delete table ip svcmesh` cleans up",
        "warning",
    ),
    (NODE_ROUTES, _routes, "they would be cut off; choose another mesh range (--mesh-range)", "failed"),
    (NODE_PORTS, _ports, "taken by another program; the agent would not start there", "failed"),
)
