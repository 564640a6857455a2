"""Asking the pods of the cluster's DNS: over a forwarded port 53 (DNS over TCP), or by their metrics.

CoreDNS is asked for a name of the cluster and for the SOA of the mesh zones, which is there without any
Service. NodeLocal DNSCache listens on addresses that port forwarding does not lead to: there the metric
`coredns_plugin_enabled` says which zones it forwards.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Sequence

import dns.exception
import dns.message
import dns.rcode
import msgspec

from discovery.kube.commands.forwarding import Forwarded
from discovery.kube.commands.objects import ObjectClient
from discovery.kube.failure import ApiError
from nodeagent.meshctl.clusterdns.layout import CORE, NAMESPACE, ClusterDns, Place
from nodeagent.meshctl.clusterdns.stub import cluster_domain, main_server, root_port
from nodeagent.meshctl.clusterdns.verdict import Sight

MOST_PODS = 20
"""Pods of one workload that are asked; a NodeLocal DNSCache has as many as there are nodes."""
PATIENCE = 4.0
"""Seconds for one answer."""
SILENCE = f"no answer in {PATIENCE:.0f} s"

_ENABLED = re.compile(r'^coredns_plugin_enabled\{(?=[^}]*name="forward")[^}]*zone="([^"]*)"', re.MULTILINE)


class Respondent(msgspec.Struct, frozen=True):
    """A pod that is asked: on its port for DNS, or for its metrics where `metrics` is a port."""

    pod: str
    domain: str
    port: int
    metrics: int = 0


async def find_respondents(
    client: ObjectClient, dns: ClusterDns, places: Sequence[Place]
) -> list[Respondent]:
    """Return the running pods behind the places.

    Raises:
        ApiError: they cannot be listed.
    """
    found: list[Respondent] = []
    for place in places:
        workload = dns.workloads.get(place.workload)
        if workload is None or not workload.selector:
            continue
        selector = ",".join(f"{name}={value}" for name, value in sorted(workload.selector.items()))
        listed = await client.get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=selector)
        pods = [item for item in (listed or {}).get("items") or () if _running(item)][:MOST_PODS]
        metrics = 0 if place.workload == CORE else metrics_port(place)
        if place.workload == CORE or metrics:
            domain, port = cluster_domain(place.corefile), root_port(place.corefile)
            found += [Respondent(pod["metadata"]["name"], domain, port, metrics) for pod in pods]
    return found


async def look(
    client: ObjectClient, respondents: Sequence[Respondent], zones: Sequence[str], *, gone: bool = False
) -> tuple[Sight, ...]:
    """Ask all of them at once whether the zones are served, or whether they are `gone`.

    Raises:
        ApiError: we may not (401, 403); any other failure is a bad answer.
    """
    return tuple(await asyncio.gather(*(_look_at(client, one, zones, gone) for one in respondents)))


def metrics_port(place: Place) -> int:
    """Return the port of the plugin `prometheus`, 0 if there is none."""
    for directive in place.corefile.directives(main_server(place.corefile)):
        if directive.name == "prometheus":
            address = directive.args[0] if directive.args else "localhost:9153"
            port = address.rpartition(":")[2]
            return int(port) if port.isdecimal() else 0
    return 0


async def _look_at(client: ObjectClient, one: Respondent, zones: Sequence[str], gone: bool) -> Sight:
    wrong: dict[str, str] = {}
    try:
        if one.metrics:
            path = f"/api/v1/namespaces/{NAMESPACE}/pods/{one.pod}:{one.metrics}/proxy/metrics"
            forwarded_zones = enabled_zones(await client.text(path))
            cluster = ""
            wrong = {zone: "" if zone in forwarded_zones else f"{zone} is not loaded" for zone in zones}
        else:
            async with client.forward(NAMESPACE, one.pod, one.port) as forwarded:
                cluster = await _ask_in_time(forwarded, f"kubernetes.default.svc.{one.domain}.", "A")
                # A question that was not answered in time leaves nothing to ask on this connection.
                for zone in zones if not cluster else ():
                    wrong[zone] = await _ask_in_time(forwarded, f"{zone}.", "SOA")
                    if wrong[zone].endswith(SILENCE):
                        break
    except ApiError as error:
        if error.failure.kind in ("forbidden", "unauthorized"):
            raise
        return Sight(one.pod, error.failure.reason)
    if gone:
        wrong = {zone: "" if said else f"{zone} is still answered" for zone, said in wrong.items()}
    return Sight(one.pod, cluster, "; ".join(filter(None, wrong.values())))


async def _ask_in_time(forwarded: Forwarded, name: str, kind: str) -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            return await ask(forwarded, name, kind)
    except TimeoutError:
        return f"{name} {kind}: {SILENCE}"


async def ask(forwarded: Forwarded, name: str, kind: str) -> str:
    """Return an empty text for a good answer, else what is wrong.

    A cluster without IPv4 has no A records, so no more than NOERROR is asked for but with SOA.

    Raises:
        ApiError: the connection failed.
    """
    question = dns.message.make_query(name, kind)
    wire = question.to_wire()
    await forwarded.send(struct.pack("!H", len(wire)) + wire)
    (length,) = struct.unpack("!H", await forwarded.read_exactly(2))
    try:
        answer = dns.message.from_wire(await forwarded.read_exactly(length))
    except dns.exception.DNSException as error:
        return f"{name} {kind}: no DNS message: {error}"
    if answer.rcode() != dns.rcode.NOERROR:
        return f"{name} {kind}: {dns.rcode.to_text(answer.rcode())}"
    return "" if answer.answer or kind != "SOA" else f"{name} {kind}: no record"


def enabled_zones(metrics: str) -> set[str]:
    """Return the zones that have the plugin `forward`, from the metrics of a CoreDNS."""
    return {zone.removesuffix(".") for zone in _ENABLED.findall(metrics)}


def _running(pod: dict[str, object]) -> bool:
    status, metadata = pod.get("status"), pod.get("metadata")
    phase = status.get("phase") if isinstance(status, dict) else ""
    return phase == "Running" and isinstance(metadata, dict) and "deletionTimestamp" not in metadata
