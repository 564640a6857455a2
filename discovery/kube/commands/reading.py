"""One reading of a cluster, for commands that people run: all Services, EndpointSlices and Namespaces, then
the end.

With an ordinary kubeconfig; needs `list` on `services` and `endpointslices.discovery.k8s.io`, and for another
mesh on what it has installed. What Namespaces say is left out where they may not be listed. Unlike the source
it does not try again: what fails is reported to the person who waits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from discovery.compat import Compat
from discovery.kube.commands.listing import list_pages
from discovery.kube.commands.smi import UNSEEN, read_smi
from discovery.kube.connection import Connection, check_access
from discovery.kube.credentials import Credentials, CredentialsUnavailable, loader_for
from discovery.kube.failure import ApiError, Failure
from discovery.kube.inventory import Inventory
from discovery.kube.library import load_library
from discovery.kube.resource import Resource, watched_resources
from discovery.kube.timing import Timing
from discovery.manifest import read_object
from discovery.model import Problem
from discovery.source import Event, Malformed, SourceError, Synced

PATIENCE = Timing(connect=5.0, answer=15.0)
"""Of a person."""


class Cluster(msgspec.Struct, frozen=True):
    """Which cluster is meant, and as whom; empty is what kubectl would take."""

    kubeconfig: str = ""
    """Paths as in $KUBECONFIG."""
    context: str = ""
    timing: Timing = PATIENCE


@asynccontextmanager
async def connect(
    cluster: Cluster, limit: int = 2, environment: Mapping[str, str] = os.environ
) -> AsyncIterator[Connection]:
    """Open a connection for a command; it is closed at the end. `limit` requests are under way at once.

    Raises:
        SourceError: there is no usable configuration.
    """
    library = load_library()
    make_loader = loader_for(library, cluster.kubeconfig, cluster.context, environment)
    clock = asyncio.get_running_loop().time
    credentials = Credentials(library, make_loader, cluster.timing.credentials_age, clock)
    try:
        check_access(await credentials.current())
    except CredentialsUnavailable as error:
        raise SourceError(f"no credentials for the API server: {error}") from error
    connection = Connection(credentials, cluster.timing, limit, agent="meshctl")
    try:
        yield connection
    finally:
        await connection.close()


async def read_cluster(
    cluster: Cluster, *, namespace: str = "", compat: Compat | None = None
) -> tuple[Event, ...]:
    """Return the events of one complete reading of the cluster, or of one namespace of it.

    `compat` is as in `discovery.manifest.read_object`; with it objects of the other mesh are looked for, too.

    Raises:
        SourceError: the cluster cannot be read; the message says why.
    """
    events: list[Event] = []
    async with connect(cluster) as connection:
        for resource in _resources(namespace):
            inventory = Inventory(resource, partial(read_object, compat=compat))
            try:
                async for items in list_pages(connection, resource):
                    events += [event for item in items for event in inventory.put(item)]
            except ApiError as error:
                if not (resource.optional and error.failure.kind == "forbidden"):
                    raise SourceError(f"cannot list {resource.kind}s: {error.failure.reason}") from error
                events.append(_without(resource, namespace, error.failure))
        if compat is not None:
            events += await read_smi(connection, namespace, compat)
    return (*events, Synced())


def _resources(namespace: str) -> Iterator[Resource]:
    """Yield Services, slices and Namespaces: without a node there are no Pods among the resources."""
    for resource in watched_resources("", ""):
        if not resource.namespaced:
            chosen = f"metadata.name={namespace}" if namespace else ""
            yield msgspec.structs.replace(resource, field_selector=chosen)
            continue
        path, _, plural = resource.path.rpartition("/")
        inside = f"{path}/namespaces/{namespace}/{plural}" if namespace else resource.path
        yield msgspec.structs.replace(resource, path=inside)


def _without(resource: Resource, namespace: str, failure: Failure) -> Malformed:
    """Return that what an agent would read of this resource is not known to the person who asks."""
    problem = Problem(
        namespace=namespace or UNSEEN,
        name=namespace or UNSEEN,
        field="metadata",
        value="",
        reason=f"cannot be read: {failure.reason}",
        expected=f"the right to list {resource.kind.lower()}s",
        effect=f"{resource.optional} here; an agent that may read them goes by them",
        kind=resource.kind,
        severity="info",
    )
    return Malformed(resource.kind, (problem,))
