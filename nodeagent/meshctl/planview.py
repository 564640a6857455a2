"""What `meshctl routes` and `meshctl endpoints` show of one Service in a plan as `/plan` has it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from nodeagent.explain.text import aligned

Document = Mapping[str, Any]


class NotInPlan(Exception):
    """The plan has no such Service; the message says what there is."""


def service_in(plan: Document, name: str) -> Document:
    """Return a Service, `namespace/name`, of a plan.

    Raises:
        NotInPlan: there is none, or it is not meshed.
    """
    service: Document | None = plan["services"].get(name)
    if service is None:
        raise NotInPlan(
            f'{name} is not in the mesh: there is no such Service, or it has no svc.mesh/enabled: "true"'
        )
    if not service["address"]:
        why = "; ".join(f"{one['field']}: {one['reason']}" for one in service["problems"])
        raise NotInPlan(f"{name} is not meshed: {why}")
    return service


def routes_document(name: str, service: Document) -> dict[str, Any]:
    """Return the listeners of a Service with their rules and layers, and the settings with their origins."""
    origins = service.get("from", {})
    return {
        "service": name,
        "address": service["address"],
        "listeners": service["listeners"],
        "settings": [
            {"annotation": one, "value": value, "from": origins.get(one, f"Service {name}")}
            for one, value in service["annotations"].items()
        ],
        "problems": service["problems"],
    }


def routes_lines(document: Document) -> Iterator[str]:
    """Yield the same for people."""
    yield f"{document['service']} at {document['address']}"
    rows = [("PORT", "PROTOCOL", "RULE", "MATCH", "BACKENDS", "LAYERS")]
    for listener in document["listeners"]:
        port = f"{listener['port']}" + (f" ({listener['name']})" if listener["name"] else "")
        for rule in listener["rules"]:
            layers = [one["name"] for one in (*listener["layers"], *rule["layers"])]
            match = " ".join(f"{name}={_text(value)}" for name, value in rule.get("match", {}).items())
            backends = ", ".join(f"{one['backend']} ({one['weight']})" for one in rule["backends"])
            rows.append(
                (port, listener["protocol"], rule["name"], match or "-", backends, ", ".join(layers) or "-")
            )
    yield from aligned(rows)
    yield ""
    settings = [(one["annotation"], one["value"], one["from"]) for one in document["settings"]]
    yield from aligned([("SETTING", "VALUE", "FROM"), *settings])
    for problem in document["problems"]:
        yield f"{problem['severity']}: {problem['field']}: {problem['reason']}"


def endpoints_document(name: str, service: Document) -> dict[str, Any]:
    """Return the backends of a Service with their endpoints and what is known of these."""
    return {"service": name, "address": service["address"], "backends": service["backends"]}


def endpoints_lines(document: Document) -> Iterator[str]:
    """Yield the same for people."""
    rows = [("BACKEND", "BALANCE", "ENDPOINT", "POD", "STATE")]
    for backend in document["backends"]:
        rows += [
            (backend["backend"], backend["balance"], one["address"], one.get("pod", "-"), state_of(one))
            for one in backend["endpoints"] or ({"address": "(none)"},)
        ]
    yield from aligned(rows)


def state_of(endpoint: Document) -> str:
    """Return whether an endpoint is used, and why not."""
    said = [f"{word}: {endpoint[word]}" for word in ("unhealthy", "ejected") if endpoint.get(word)]
    if endpoint["address"] == "(none)":
        return "requests get a 503"
    return "; ".join(said) or "in use"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
