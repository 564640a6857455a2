"""Reads a Pod (v1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from discovery.manifest.fields import MAX_ADDRESSES, SUBDOMAIN, Fields
from discovery.manifest.workload import workload_of
from discovery.model import PodKey, PodObject


def read_pod(fields: Fields) -> PodObject | None:
    """Return the Pod, or None if it has no usable name."""
    metadata = fields.identify(SUBDOMAIN)
    if metadata is None:
        return None
    spec = fields.mapping(fields.document, "spec", "spec")
    return PodObject(
        key=PodKey(fields.namespace, fields.name),
        workload=workload_of(fields, metadata),
        addresses=_addresses(fields, spec),
        origin=fields.origin,
        lines=fields.lines(),
        service_account=_service_account(fields, spec),
    )


def _service_account(fields: Fields, spec: Mapping[str, Any]) -> str:
    """Read the name of the ServiceAccount; the older field `serviceAccount` says the same."""
    for name in ("serviceAccountName", "serviceAccount"):
        if account := fields.text(spec, name, f"spec.{name}"):
            if SUBDOMAIN.fullmatch(account):
                return account
            reason = "is not the name of an object"
            fields.report(f"spec.{name}", account, reason, "shop", "the ServiceAccount is not known")
    return ""


def _addresses(fields: Fields, spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the addresses that are this pod's alone.

    A pod on the host's network shares its node's address, and that of a finished one may already belong
    to another pod: neither says who a client is.
    """
    status = fields.mapping(fields.document, "status", "status")
    if spec.get("hostNetwork") is True or status.get("phase") in ("Succeeded", "Failed"):
        return ()
    items = fields.items(status, "podIPs", "status.podIPs")
    several = fields.mappings(fields.first(items, MAX_ADDRESSES, "status.podIPs", "ones"), "status.podIPs")
    found = [(f"{at}.ip", item.get("ip")) for at, item in several]
    if not found and status.get("podIP") not in (None, ""):
        found = [("status.podIP", status["podIP"])]
    return fields.addresses(found, example="10.1.2.3")
