"""Objects of the Service Mesh Interface, which Traefik Mesh heeds and this mesh does not: what would be lost.

They limit who may use a Service (TrafficTarget) and share what it is asked (TrafficSplit); the others say
what traffic looks like and mean nothing alone. All versions of the three groups are read alike: in v1alpha1
only the place of a TrafficTarget's fields and the form of weights differ (servicemeshinterface/smi-spec).
Until we can do what an object says, it becomes a problem, so that nobody takes a cluster that lets everybody
in for one that does not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Final

import msgspec

from discovery.annotations import ENABLED
from discovery.manifest.fields import LABEL, SUBDOMAIN, Fields, show
from discovery.model import ANNOTATION_PREFIX

SPLIT: Final = f"{ANNOTATION_PREFIX}split"
HEAVIEST: Final = 1_000_000
"""The greatest weight in `svc.mesh/split`; a test holds it and the next against the middleware."""
MOST_BACKENDS: Final = 32

ACCESS: Final = "access.smi-spec.io"
SPECS: Final = "specs.smi-spec.io"
TRAFFIC_TARGET: Final = "TrafficTarget"

_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([mk]?)")
_SCALE: Final = {"": Fraction(1), "m": Fraction(1, 1000), "k": Fraction(1000)}
_SHOWN = 3


class SmiKind(msgspec.Struct, frozen=True):
    """A kind of object and where the API server has it."""

    group: str
    kind: str
    plural: str


SMI_KINDS: Final = (
    SmiKind(ACCESS, TRAFFIC_TARGET, "traffictargets"),
    SmiKind("split.smi-spec.io", "TrafficSplit", "trafficsplits"),
    SmiKind(SPECS, "HTTPRouteGroup", "httproutegroups"),
    SmiKind(SPECS, "TCPRoute", "tcproutes"),
    SmiKind(SPECS, "UDPRoute", "udproutes"),
)


def is_smi(kind: str, version: str) -> bool:
    """Return whether an object with this `kind` and `apiVersion` is one of them."""
    group = version.partition("/")[0]
    return any(kind == one.kind and group == one.group for one in SMI_KINDS)


def report_smi(fields: Fields) -> None:
    """Report what is lost with the object."""
    if fields.identify(SUBDOMAIN) is None:
        return
    if fields.kind == TRAFFIC_TARGET:
        _report_target(fields)
    elif fields.kind == "TrafficSplit":
        _report_split(fields)
    else:
        reason = "says what traffic looks like, and means nothing without a TrafficTarget or a TrafficSplit"
        fields.report("metadata.name", fields.name, reason, "", "it is not read", severity="info")


def _report_target(fields: Fields) -> None:
    # In v1alpha1 there is no `spec`.
    spec = fields.document if "spec" not in fields.document else _mapping(fields.document, "spec")
    field = "spec.sources" if "spec" in fields.document else "sources"
    sources = [_account(one, fields.namespace) for one in _mappings(spec, "sources")]
    named = ", ".join(sources[:_SHOWN]) + (f" and {len(sources) - _SHOWN} more" if sources[_SHOWN:] else "")
    destination = _mapping(spec, "destination")
    whom = _account(destination, fields.namespace) if destination else "(no destination)"
    fields.report(
        field,
        named or "nobody",
        f"lets only these ServiceAccounts reach the pods of {whom}, and the mesh has no access control yet",
        "NetworkPolicies that let in the same, or the Services left out of the mesh; if Traefik Mesh ran"
        " without ACL mode, the object had no effect there either",
        "access that was limited to these sources is open to every client that can reach the node",
    )


def _account(reference: Mapping[str, Any], namespace: str) -> str:
    return show(f"{reference.get('namespace') or namespace}/{reference.get('name')}")


def _report_split(fields: Fields) -> None:
    spec = _mapping(fields.document, "spec")
    service = spec.get("service")
    backends = [(show(one.get("service")), one.get("weight")) for one in _mappings(spec, "backends")]
    value = " ".join(f"{name}={show(weight)}" for name, weight in backends[:_SHOWN])
    fields.report(
        "spec.backends",
        value + (f" and {len(backends) - _SHOWN} more" if backends[_SHOWN:] else ""),
        f"shares what Service {fields.namespace}/{show(service)} is asked, and the mesh does not read it yet",
        _instead(service, spec, backends),
        "the split of traffic is not made: the Service answers all of it itself",
    )


def _instead(service: Any, spec: Mapping[str, Any], backends: list[tuple[str, Any]]) -> str:
    """Return what to write in place of a split, as exactly as our annotation can say it."""
    on = f"on Service {show(service)}"
    if spec.get("matches"):
        return f"no annotation: {SPLIT} {on} would split all requests, not only those that match"
    weights = _weights(backends)
    if weights is None or not isinstance(service, str) or not LABEL.fullmatch(service):
        return f"{SPLIT}: SERVICE=WEIGHT ... {on}, such as v1=90 v2=10"
    said = " ".join(f"{name}={weight}" for name, weight in weights.items())
    return f'{SPLIT}: {said} {on}, and {ENABLED}: "true" on it and on each of these'


def _weights(backends: list[tuple[str, Any]]) -> dict[str, int] | None:
    """Return whole weights in the same proportion that our annotation takes, None if there are none."""
    shares: dict[str, Fraction] = {}
    for name, weight in backends:
        share = _share(weight)
        if share is None or not LABEL.fullmatch(name):
            return None
        shares[name] = shares.get(name, Fraction(0)) + share
    if not any(shares.values()) or len(shares) > MOST_BACKENDS:
        return None
    whole = math.lcm(*(share.denominator for share in shares.values()))
    weights = {name: int(share * whole) for name, share in shares.items()}
    if max(weights.values()) > HEAVIEST:
        common = math.gcd(*weights.values())
        weights = {name: weight // common for name, weight in weights.items()}
    return weights if max(weights.values()) <= HEAVIEST else None


def _share(weight: Any) -> Fraction | None:
    """Read a weight: a whole number, or in v1alpha1 a quantity of Kubernetes such as 500m."""
    if isinstance(weight, bool) or not isinstance(weight, int | float | str):
        return None
    found = _QUANTITY.fullmatch(str(weight))
    return Fraction(found[1]) * _SCALE[found[2]] if found else None


def _mapping(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a mapping; another mesh judges the form of its objects."""
    value = parent.get(name)
    return value if isinstance(value, Mapping) else {}


def _mappings(parent: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    value = parent.get(name)
    yield from (one for one in value if isinstance(one, Mapping)) if isinstance(value, list) else ()
