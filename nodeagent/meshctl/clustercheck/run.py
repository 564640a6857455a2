"""The order of the checks, before an install and after it: facts are read and judged one after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence

import msgspec

from discovery.kube.commands.objects import ObjectClient
from nodeagent.meshctl.clustercheck import admission, agents, names, nodes, probe, ranges, reading, rights
from nodeagent.meshctl.clustercheck.nodes import NodeFact
from nodeagent.meshctl.clustercheck.probing import probe_nodes
from nodeagent.meshctl.clustercheck.reading import known
from nodeagent.meshctl.clustercheck.result import Check, Result, Unknown
from nodeagent.meshctl.clustercheck.target import Target

Tell = Callable[[str], None]


class Group(msgspec.Struct, frozen=True):
    """Checks that belong together, in their order."""

    title: str
    checks: tuple[Check, ...]


API = Group("kubernetes-api", (nodes.API_REACHABLE, nodes.API_VERSION))
BEFORE = (
    API,
    Group("nodes", (nodes.NODE_VERSIONS, nodes.NODE_PLATFORMS, nodes.NODES_READY)),
    Group(
        "rights",
        (rights.RIGHTS_CREATE, rights.RIGHTS_GRANT, rights.RIGHTS_HELM, rights.RIGHTS_DNS),
    ),
    Group("namespace", (admission.NOT_INSTALLED, admission.POD_SECURITY)),
    Group("addresses", (ranges.SERVICE_RANGE, ranges.POD_RANGE, ranges.NODE_RANGE)),
    Group("cluster-dns", (names.DNS_LAYOUT, names.DNS_ANSWERS, names.DNS_ZONE_FREE)),
    Group("node-kernel", probe.CHECKS),
)
AFTER = (
    API,
    Group(
        "agents",
        (
            agents.AGENTS_EVERYWHERE,
            agents.AGENTS_READY,
            agents.AGENTS_IN_TOUCH,
            agents.AGENTS_VERSION,
            agents.AGENTS_PLAN,
            agents.AGENTS_CAPTURE,
            agents.AGENTS_RESOLVE,
        ),
    ),
    Group("cluster-dns", (names.DNS_ANSWERS, names.DNS_FORWARDS)),
)


async def check_before(client: ObjectClient, target: Target, tell: Tell) -> AsyncGenerator[Result, None]:
    """Yield the results of `BEFORE`, in order; `tell` hears what is being looked at.

    Raises:
        Unreachable: the API server does not answer.
    """
    async for result in _api(client):
        yield result
    tell("nodes")
    found = await known(reading.read_nodes(client))
    for result in nodes.check_nodes(found):
        yield result
    tell("rights")
    space = await known(reading.read_space(client, target.namespace))
    present = isinstance(space, Unknown) or space.present
    wanted = rights.wanted(target.namespace, present=present)
    allowed = await known(reading.read_rights(client, wanted))
    for result in rights.check_rights(allowed, target.namespace, present=present):
        yield result
    tell("namespace")
    yield admission.check_not_installed(await known(reading.read_installed(client)))
    trial = await known(reading.try_pod(client, target.namespace)) if present else Unknown("it is not there")
    yield admission.check_admission(space, trial)
    tell("addresses")
    yield ranges.check_services(target.mesh_range, await known(reading.read_service_addresses(client)))
    pods = await known(reading.read_pod_addresses(client))
    yield ranges.check_pods(target.mesh_range, found, pods)
    yield ranges.check_node_addresses(target.mesh_range, found)
    tell("cluster-dns")
    for result in names.check_dns_before(
        await known(reading.read_dns_fact(client, target)), target.stub.zones
    ):
        yield result
    tell("node-kernel")
    probes = await _probes(client, target, found, not isinstance(space, Unknown) and space.present, tell)
    for result in probe.check_probes(probes, target.admin_port):
        yield result


async def check_after(client: ObjectClient, target: Target, tell: Tell) -> AsyncGenerator[Result, None]:
    """Yield the results of `AFTER`, in order; `tell` hears what is being looked at.

    Raises:
        Unreachable: the API server does not answer.
    """
    async for result in _api(client):
        yield result
    tell("agents")
    daemonsets = await known(reading.read_daemonset_states(client, target.namespace))
    found = await known(reading.find_mesh_name(client, target.zone))
    name = "" if isinstance(found, Unknown) else found
    states = await known(reading.read_agent_facts(client, target, name))
    for result in agents.check_agents(states, daemonsets, target.version, name or target.zone):
        yield result
    tell("cluster-dns")
    for result in names.check_dns_after(
        await known(reading.read_dns_fact(client, target)), target.stub.zones
    ):
        yield result


async def _api(client: ObjectClient) -> AsyncGenerator[Result, None]:
    version = await known(reading.read_version(client))
    yield nodes.API_REACHABLE.ok()
    yield nodes.check_api_version(version)


async def _probes(
    client: ObjectClient, target: Target, found: Sequence[NodeFact] | Unknown, present: bool, tell: Tell
) -> probe.Probes | Unknown:
    if not target.probe_nodes:
        return probe.UNASKED
    if isinstance(found, Unknown):
        return found
    wanted = [node.name for node in found if node.eligible and node.ready]
    return await known(probe_nodes(client, target, wanted, present, tell))


def not_reached(groups: Sequence[Group], done: Sequence[Result], reason: str) -> list[Result]:
    """Return a result for each check that has none."""
    seen = {result.check.id for result in done}
    return [check.not_checked(reason) for group in groups for check in group.checks if check.id not in seen]
