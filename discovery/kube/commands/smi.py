"""Objects of the Service Mesh Interface in a cluster, each as a problem (see `discovery.manifest.smi`).

They are custom resources, and may not be there at all. Which versions the server has is asked first: a list
of what is not installed is answered like one that the person may not see.
"""

from __future__ import annotations

from typing import Final

import msgspec

from discovery.compat import Compat
from discovery.kube.commands.listing import list_pages
from discovery.kube.connection import FAILURE_BODY, Connection
from discovery.kube.failure import ApiError, Failure, read_failure
from discovery.kube.resource import Resource
from discovery.manifest import SMI_KINDS, SmiKind, read_object
from discovery.model import Problem, ServiceKey
from discovery.source import Event, Malformed, SourceError

UNSEEN: Final = "*"
"""The name in a problem of objects that could not be looked at."""


class _Version(msgspec.Struct, rename="camel"):
    group_version: str


class _Group(msgspec.Struct, rename="camel"):
    versions: list[_Version] = []
    preferred_version: _Version | None = None


_group_decoder = msgspec.json.Decoder(_Group)


async def read_smi(connection: Connection, namespace: str, compat: Compat) -> tuple[Event, ...]:
    """Return what is to be said of the cluster's SMI objects, or of those of one namespace.

    What the person may not see is a problem too: nobody knows what is lost.

    Raises:
        SourceError: the API server could not be asked; the message says why.
    """
    events: list[Event] = []
    versions: dict[str, tuple[str, ...]] = {}
    for kind in SMI_KINDS:
        try:
            if kind.group not in versions:
                versions[kind.group] = await _versions_of(connection, kind.group)
            events += await _list(connection, kind, versions[kind.group], namespace, compat)
        except ApiError as error:
            if error.failure.kind != "forbidden":
                raise SourceError(f"cannot list {kind.kind}s: {error.failure.reason}") from error
            events.append(_unseen(kind, namespace, error.failure))
    return tuple(events)


async def _versions_of(connection: Connection, group: str) -> tuple[str, ...]:
    """Return the versions of a group that the server has, the one it prefers first; empty if it has none."""
    status, body, content_type = await connection.exchange(
        "GET", f"/apis/{group}", {}, None, "application/json"
    )
    if status == 404:
        return ()
    if status >= 300:
        raise ApiError(read_failure(status, body[:FAILURE_BODY], content_type=content_type))
    try:
        found = _group_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ApiError(Failure("malformed", f"not an APIGroup: {error}")) from error
    preferred = [found.preferred_version] if found.preferred_version else []
    return tuple(dict.fromkeys(version.group_version for version in [*preferred, *found.versions]))


async def _list(
    connection: Connection, kind: SmiKind, versions: tuple[str, ...], namespace: str, compat: Compat
) -> list[Event]:
    """List a kind in the first version that has it; each version shows all objects."""
    inside = f"/namespaces/{namespace}" if namespace else ""
    for version in versions:
        resource = Resource(kind.kind, version, f"/apis/{version}{inside}/{kind.plural}", ServiceKey)
        events: list[Event] = []
        try:
            async for items in list_pages(connection, resource):
                for item in items:
                    _, problems = read_object({**item, "kind": kind.kind, "apiVersion": version}, "", compat)
                    events += (Malformed(_origin(problem), (problem,)) for problem in problems)
        except ApiError as error:
            if error.failure.status == 404:
                continue
            raise
        return events
    return []


def _unseen(kind: SmiKind, namespace: str, failure: Failure) -> Malformed:
    problem = Problem(
        namespace=namespace,
        name=UNSEEN,
        field="",
        value="",
        reason=f"could not be looked at: {failure.reason}",
        expected=f"a kubeconfig that may `list` {kind.plural}.{kind.group}",
        effect=f"whether there are {kind.kind}s that the mesh would not heed is not known",
        kind=kind.kind,
    )
    return Malformed(_origin(problem), (problem,))


def _origin(problem: Problem) -> str:
    return f"{problem.kind} {problem.namespace}/{problem.name} {problem.field}"
