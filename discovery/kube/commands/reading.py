"""One reading of a cluster, for commands that people run: all Services and EndpointSlices, then the end.

With an ordinary kubeconfig; needs `list` on `services` and `endpointslices.discovery.k8s.io`, and for another
mesh on what it has installed. Unlike the source it does not try again: what fails is reported to the person
who waits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from discovery.compat import Compat
from discovery.kube.commands.listing import list_items
from discovery.kube.commands.smi import read_smi
from discovery.kube.connection import Connection, check_access
from discovery.kube.credentials import Credentials, CredentialsUnavailable, loader_for
from discovery.kube.inventory import Inventory
from discovery.kube.library import load_library
from discovery.kube.resource import Resource, watched_resources
from discovery.kube.timing import Timing
from discovery.manifest import read_object
from discovery.source import Event, SourceError, Synced

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
            async for items in list_items(connection, resource):
                events += [event for item in items for event in inventory.put(item)]
        if compat is not None:
            events += await read_smi(connection, namespace, compat)
    return (*events, Synced())


def _resources(namespace: str) -> Iterator[Resource]:
    """Yield Services and slices: without a node there are no Pods among the resources."""
    for resource in watched_resources("", ""):
        path, _, plural = resource.path.rpartition("/")
        inside = f"{path}/namespaces/{namespace}/{plural}" if namespace else resource.path
        yield msgspec.structs.replace(resource, path=inside)
