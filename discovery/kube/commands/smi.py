"""Objects of the Service Mesh Interface in a cluster, each as a problem (see `discovery.manifest.smi`).

They are custom resources, and may not be there at all. Which kinds the server has, in which versions, is
asked first: the answer to a list of a kind that is not installed looks like that for one that the person may
not see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from discovery.compat import Compat
from discovery.kube.commands.listing import list_pages
from discovery.kube.connection import FAILURE_BODY, Connection
from discovery.kube.failure import UNREADABLE, ApiError, Failure, read_failure
from discovery.kube.resource import Resource
from discovery.manifest import SMI_KINDS, SmiKind, read_object
from discovery.model import Problem, ServiceKey
from discovery.source import Event, Malformed, SourceError

T = TypeVar("T")

UNSEEN: Final = "*"
"""The name in a problem of objects that could not be looked at."""


class _Version(msgspec.Struct, rename="camel"):
    group_version: str


class _Group(msgspec.Struct, rename="camel"):
    versions: list[_Version] = []
    preferred_version: _Version | None = None


class _NamedResource(msgspec.Struct):
    name: str


class _Resources(msgspec.Struct):
    resources: list[_NamedResource] = []


_group_decoder = msgspec.json.Decoder(_Group)
_resources_decoder = msgspec.json.Decoder(_Resources)


async def read_smi(connection: Connection, namespace: str, compat: Compat) -> tuple[Event, ...]:
    """Return what is to be said of the cluster's SMI objects, or of those of one namespace.

    What the person may not see is a problem too: nobody knows what is lost.

    Raises:
        SourceError: the API server could not be asked; the message says why.
    """
    events: list[Event] = []
    served: dict[str, Mapping[str, str]] = {}
    for kind in SMI_KINDS:
        try:
            if kind.group not in served:
                served[kind.group] = await _served(connection, kind.group)
            version = served[kind.group].get(kind.plural)
            if version is not None:
                events += await _list(connection, kind, version, namespace, compat)
        except ApiError as error:
            if error.failure.status == 404:
                continue  # it was taken away a moment ago
            if error.failure.kind != "forbidden":
                raise SourceError(f"cannot list {kind.kind}s: {error.failure.reason}") from error
            events.append(_unseen(kind, namespace, error.failure))
    return tuple(events)


async def _served(connection: Connection, group: str) -> Mapping[str, str]:
    """Return for each resource of a group the `apiVersion` to list it in: the preferred one that has it.

    Every version that has a resource shows all of its objects.
    """
    found = await _get(connection, f"/apis/{group}", _group_decoder)
    if found is None:
        return {}
    preferred = [found.preferred_version] if found.preferred_version else []
    served: dict[str, str] = {}
    for version in dict.fromkeys(one.group_version for one in [*preferred, *found.versions]):
        listed = await _get(connection, f"/apis/{version}", _resources_decoder)
        for resource in listed.resources if listed is not None else ():
            served.setdefault(resource.name, version)
    return served


async def _get(connection: Connection, path: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    """Return what the server says at `path`, None if there is nothing."""
    status, body, content_type = await connection.exchange("GET", path, {}, None, "application/json")
    if status == 404:
        return None
    if status >= 300:
        raise ApiError(read_failure(status, body[:FAILURE_BODY], content_type=content_type))
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        raise ApiError(Failure("malformed", f"{path}: {error}")) from error


async def _list(
    connection: Connection, kind: SmiKind, version: str, namespace: str, compat: Compat
) -> list[Event]:
    inside = f"/namespaces/{namespace}" if namespace else ""
    resource = Resource(kind.kind, version, f"/apis/{version}{inside}/{kind.plural}", ServiceKey)
    events: list[Event] = []
    async for items in list_pages(connection, resource):
        for item in items:
            _, problems = read_object({**item, "kind": kind.kind, "apiVersion": version}, "", compat)
            events += (Malformed(_origin(problem), (problem,)) for problem in problems)
    return events


def _unseen(kind: SmiKind, namespace: str, failure: Failure) -> Malformed:
    problem = Problem(
        namespace=namespace,
        name=UNSEEN,
        field="",
        value="",
        reason=f"could not be looked at: {failure.reason}",
        expected=f"a kubeconfig that may `list` {kind.plural}.{kind.group}",
        effect=f"it is not known whether there are {kind.kind}s, which the mesh would ignore",
        kind=kind.kind,
    )
    return Malformed(_origin(problem), (problem,))


def _origin(problem: Problem) -> str:
    return f"{problem.kind} {problem.namespace}/{problem.name} {problem.field}"
