"""What `meshctl routes` and `meshctl endpoints` show of one Service in a plan as `/plan` has it. Pure.

The plan is the same on all nodes. Circuit breakers, health and ejections are each node's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from nodeagent.meshctl.breakers import Breaker
from nodeagent.meshctl.table import Table

Document = Mapping[str, Any]
_OUT: Final = ("unhealthy", "ejected")
"""Fields of an endpoint that say why it is not used."""
MOST_NAMED: Final = 3
"""Nodes that a line names at most."""


class NodeSaid(msgspec.Struct, frozen=True):
    """What one agent says of the Service on its node, or why it does not."""

    node: str
    agent: str
    reason: str = ""
    breakers: Sequence[Breaker] = ()
    endpoints: Sequence[Document] = ()
    """Those that are not used, with the reasons: `backend`, `address`, `unhealthy`, `ejected`."""


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


def has_breaker(service: Document) -> bool:
    """Whether a port of the Service has a circuit breaker."""
    return any(
        layer["name"] == "circuit-breaker"
        for listener in service["listeners"]
        for rule in listener["rules"]
        for layer in rule["layers"]
    )


def unused_in(service: Document) -> list[Document]:
    """Return the endpoints that are not used, each with its backend and why."""
    return [
        {"backend": backend["backend"], **{word: one[word] for word in ("address", *_OUT) if word in one}}
        for backend in service["backends"]
        for one in backend["endpoints"]
        if any(word in one for word in _OUT)
    ]


def routes_document(name: str, service: Document, nodes: Sequence[NodeSaid] = ()) -> dict[str, Any]:
    """Return the listeners of a Service with their rules and layers, the settings with their origins, and the
    circuit breakers of each node.
    """
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
        "nodes": [_said(one, "breakers") for one in nodes],
    }


def routes_lines(document: Document) -> Iterator[str | Table]:
    """Yield the same for people."""
    yield f"{document['service']} at {document['address']}"
    rows = []
    for listener in document["listeners"]:
        port = f"{listener['port']}" + (f" ({listener['name']})" if listener["name"] else "")
        for rule in listener["rules"]:
            layers = [one["name"] for one in (*listener["layers"], *rule["layers"])]
            match = " ".join(f"{name}={_text(value)}" for name, value in rule.get("match", {}).items())
            backends = ", ".join(f"{one['backend']} ({one['weight']})" for one in rule["backends"])
            rows.append(
                (port, listener["protocol"], rule["name"], match or "-", backends, ", ".join(layers) or "-")
            )
    yield Table(("PORT", "PROTOCOL", "RULE", "MATCH", "BACKENDS", "LAYERS"), rows)
    yield from _breaker_lines(document["nodes"])
    yield ""
    settings = [(one["annotation"], one["value"], one["from"]) for one in document["settings"]]
    yield Table(("SETTING", "VALUE", "FROM"), settings)
    for problem in document["problems"]:
        yield f"{problem['severity']}: {problem['field']}: {problem['reason']}"


def _breaker_lines(nodes: Sequence[Document]) -> Iterator[str | Table]:
    found: dict[tuple[int, str], list[str]] = {}
    for one in nodes:
        for breaker in one["breakers"]:
            found.setdefault((breaker["port"], breaker["state"]), []).append(_name(one))
    if found:
        yield ""
        rows = [(str(port), state, named(where)) for (port, state), where in sorted(found.items())]
        yield Table(("PORT", "BREAKER", "NODES"), rows)


def named(nodes: Sequence[str]) -> str:
    """Return the names of nodes, or their number if they are too many for a line."""
    return ", ".join(nodes) if len(nodes) <= MOST_NAMED else f"{len(nodes)} nodes"


def _name(said: Document) -> str:
    """Return the node, or the address of an agent that was asked there."""
    name: str = said["node"] or said["agent"]
    return name


def _said(one: NodeSaid, what: str) -> dict[str, Any]:
    """Return what a node says of this, as values that JSON can hold."""
    return {
        "node": one.node,
        "agent": one.agent,
        "reason": one.reason,
        what: msgspec.to_builtins(getattr(one, what)),
    }


def endpoints_document(name: str, service: Document, nodes: Sequence[NodeSaid] = ()) -> dict[str, Any]:
    """Return the backends of a Service with their endpoints, and what each node knows of these."""
    return {
        "service": name,
        "address": service["address"],
        "backends": service["backends"],
        "nodes": [_said(one, "endpoints") for one in nodes],
    }


def endpoints_lines(document: Document) -> Iterator[str | Table]:
    """Yield the same for people."""
    rows = []
    nodes = [one for one in document["nodes"] if not one["reason"]]
    for backend in document["backends"]:
        for one in backend["endpoints"] or ({"address": "(none)"},):
            state = state_of(one) if len(nodes) < 2 else _states(backend["backend"], one, nodes)
            rows.append((backend["backend"], backend["balance"], one["address"], one.get("pod", "-"), state))
    yield Table(("BACKEND", "BALANCE", "ENDPOINT", "POD", "STATE"), rows)
    if nodes:
        yield f"health and ejections of {named([*map(_name, nodes)])}"


def _states(backend: str, endpoint: Document, nodes: Iterable[Document]) -> str:
    """Return the states that an endpoint has on several nodes, and on which where they differ."""
    if endpoint["address"] == "(none)":
        return state_of(endpoint)
    place = (backend, endpoint["address"])
    found: dict[str, list[str]] = {}
    for node in nodes:
        known = next((one for one in node["endpoints"] if (one["backend"], one["address"]) == place), None)
        state = state_of(known if known is not None else {"address": endpoint["address"]})
        found.setdefault(state, []).append(_name(node))
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{state} ({named(where)})" for state, where in sorted(found.items()))


def state_of(endpoint: Document) -> str:
    """Return whether an endpoint is used, and why not."""
    said = [f"{word}: {endpoint[word]}" for word in _OUT if endpoint.get(word)]
    if endpoint["address"] == "(none)":
        return "requests get a 503"
    return "; ".join(said) or "in use"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
