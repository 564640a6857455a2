"""Checks of the cluster's DNS, before an install and after it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nodeagent.meshctl.clustercheck.result import Check, Result, Unknown
from nodeagent.meshctl.clusterdns.verdict import Sight

SEE = "docs/cluster-dns.md"
DNS_LAYOUT = Check("dns-layout", "`meshctl dns install` can change the cluster's DNS", SEE)
DNS_ANSWERS = Check("dns-answers", "the cluster's DNS answers for the cluster's names", SEE)
DNS_ZONE_FREE = Check("dns-zone-free", "nobody else answers for the mesh zone", SEE)
DNS_FORWARDS = Check("dns-forwards", "the cluster's DNS forwards the mesh zone", SEE)


class DnsFact(msgspec.Struct, frozen=True):
    """What was found of the cluster's DNS."""

    places: tuple[str, ...] = ()
    """Where the stub belongs: `ConfigMap kube-system/coredns`."""
    obstacle: str = ""
    """Why it cannot be changed by a program; then `places` is empty."""
    installed: bool = False
    """Whether the stub is there."""
    sights: tuple[Sight, ...] | Unknown = ()
    """What its pods answer: for the cluster's names, and for the mesh zones."""


def check_dns_before(found: DnsFact | Unknown, zones: Sequence[str]) -> tuple[Result, ...]:
    """Judge the cluster's DNS before an install."""
    return (
        DNS_LAYOUT.judge(found, _layout),
        DNS_ANSWERS.judge(found, lambda dns: DNS_ANSWERS.judge(dns.sights, _answers)),
        DNS_ZONE_FREE.judge(found, lambda dns: _zone_free(dns, zones)),
    )


def check_dns_after(found: DnsFact | Unknown, zones: Sequence[str]) -> tuple[Result, ...]:
    """Judge the cluster's DNS once the mesh is there."""
    return (
        DNS_ANSWERS.judge(found, lambda dns: DNS_ANSWERS.judge(dns.sights, _answers)),
        DNS_FORWARDS.judge(found, lambda dns: _forwards(dns, zones)),
    )


def _layout(dns: DnsFact) -> Result:
    if dns.obstacle:
        return DNS_LAYOUT.warning(f"{dns.obstacle}; have it forward the mesh zone by hand")
    return DNS_LAYOUT.ok(", ".join(dns.places))


def _answers(sights: Sequence[Sight]) -> Result:
    if not sights:
        return DNS_ANSWERS.not_checked("no running pod of CoreDNS was found to ask")
    return DNS_ANSWERS.of_problems(
        (f"pod {sight.pod}: {sight.cluster}" for sight in sights if sight.cluster),
        f"pods asked: {len(sights)}",
        "mend the cluster's DNS first",
    )


def _zone_free(dns: DnsFact, zones: Sequence[str]) -> Result:
    named_zones = ", ".join(zones)
    if dns.installed:
        return DNS_ZONE_FREE.warning(f"the cluster's DNS forwards {named_zones} to the mesh's DNS already")
    if isinstance(dns.sights, Unknown):
        return DNS_ZONE_FREE.not_checked(dns.sights.reason)
    asked = [sight for sight in dns.sights if not sight.cluster]
    if not asked:
        return DNS_ZONE_FREE.not_checked("no pod of CoreDNS that answers was found to ask")
    return DNS_ZONE_FREE.of_problems(
        (f"pod {sight.pod}" for sight in asked if not sight.mesh),
        named_zones,
        f"answers for {named_zones} already; choose another zone (Helm: --set agent.zone=...; here: --zone)",
    )


def _forwards(dns: DnsFact, zones: Sequence[str]) -> Result:
    named_zones = ", ".join(zones)
    if isinstance(dns.sights, Unknown):
        if dns.installed:
            return DNS_FORWARDS.ok(f"the Corefile forwards {named_zones}; its pods could not be asked")
        return DNS_FORWARDS.not_checked(dns.sights.reason)
    wrong = [
        f"pod {sight.pod}: {sight.cluster or sight.mesh}"
        for sight in dns.sights
        if sight.cluster or sight.mesh
    ]
    if dns.installed or dns.obstacle:
        if not dns.sights:
            return DNS_FORWARDS.not_checked("no running pod of CoreDNS was found to ask")
        return DNS_FORWARDS.of_problems(wrong, named_zones, "see `meshctl dns status`")
    if dns.sights and not wrong:
        return DNS_FORWARDS.ok(named_zones)
    return DNS_FORWARDS.warning(
        f"it does not forward {named_zones}: only pods that ask the mesh's DNS themselves find mesh names; "
        "run `meshctl dns install`"
    )
