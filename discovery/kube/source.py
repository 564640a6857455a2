"""The source `kube`: a Kubernetes API server, watched.

    source = KubeSource(node_name="node-1")
    async for batch in source.watch(): ...

Four reflectors (Services, EndpointSlices, Namespaces, the node's Pods) each keep one watch open. Needs `list`
and `watch` on `services`, `pods` and `endpointslices.discovery.k8s.io` in all namespaces and, unless it is to
do without what Namespaces say, on `namespaces`; and for its announcer
`create` on `events.events.k8s.io`; nothing else.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from functools import partial

from discovery.compat import Compat
from discovery.kube.backoff import Backoff
from discovery.kube.connection import Connection, check_access
from discovery.kube.contact import Contact
from discovery.kube.credentials import Credentials, CredentialsUnavailable, loader_for
from discovery.kube.events import EventWriter
from discovery.kube.failure import ApiError
from discovery.kube.inventory import Inventory
from discovery.kube.library import load_library
from discovery.kube.mailbox import Mailbox
from discovery.kube.reflection import ListPage, Reflection
from discovery.kube.reflector import Reflector
from discovery.kube.resource import Resource, watched_resources
from discovery.kube.timing import Timing
from discovery.manifest import read_object
from discovery.source import Event, SourceError, Synced

PAGE_SIZE = 100
"""Objects in one answer. One may have 256 KiB of annotations, and an answer is taken apart as a whole, in
memory and while DNS waits."""
PLUGIN_PATIENCE = 1.0
"""Seconds that a check waits for a plugin that brings credentials."""
SELECTOR_PATIENCE = 2.0
"""Seconds for the server to say whether a label selector is one."""
DEFAULT_TIMING = Timing()


class KubeSource:
    """Services, EndpointSlices, Namespaces and a node's Pods from a Kubernetes API server.

    Without `node_name` no Pods are watched. `kubeconfig` (paths as in $KUBECONFIG) and `context` name the
    cluster; empty, they are found as controllers find them, the pod's own ServiceAccount included.
    `label_selector` narrows down the Services and their slices. `compat` is as in `read_object`. `random`
    gives numbers from [0, 1).
    """

    def __init__(
        self,
        *,
        node_name: str = "",
        kubeconfig: str = "",
        context: str = "",
        label_selector: str = "",
        compat: Compat | None = None,
        timing: Timing = DEFAULT_TIMING,
        page_size: int = PAGE_SIZE,
        random: Callable[[], float] = random.random,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._resources = watched_resources(node_name, label_selector)
        self._read_object = partial(read_object, compat=compat)
        self._shared: Credentials | None = None
        self._node_name = node_name
        self._kubeconfig = kubeconfig
        self._context = context
        self._timing = timing
        self._page_size = page_size
        self._random = random
        self._environment = environment
        self._checking: asyncio.Future[Credentials] | None = None

    async def check(self) -> None:
        """See `discovery.source.Source`. A plugin for credentials that is slow continues in the
        background.
        """
        clock = asyncio.get_running_loop().time
        self._checking = asyncio.ensure_future(self._credentials(clock))
        done, _ = await asyncio.wait({self._checking}, timeout=PLUGIN_PATIENCE)
        if done:
            self._checking.result()

    async def watch(self) -> AsyncIterator[tuple[Event, ...]]:
        """Yield batches of events until the iterator is closed; see `discovery.source.Source`.

        Raises:
            SourceError: there is no usable configuration, or the server says that the label selector is not
            valid. A server that does not answer is not an error.
        """
        clock = asyncio.get_running_loop().time
        credentials = await (self._checking or self._credentials(clock))
        await self._check_selector(credentials)
        meeting = _Meeting(tuple(resource.kind for resource in self._resources), self._timing, clock)
        tasks = [
            asyncio.create_task(
                self._reflector(resource, credentials, meeting).run(), name=f"reflect {resource.kind}"
            )
            for resource in self._resources
        ]
        for task in tasks:
            task.add_done_callback(lambda _: meeting.mailbox.wake())
        try:
            while True:
                batch = await meeting.take()
                if batch:
                    yield batch
                for task in tasks:
                    if task.done():
                        task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def announcer(self) -> EventWriter:
        """Return what tells notices as Events, with the credentials of this source."""
        backoff = Backoff(self._timing.backoff_first, self._timing.backoff_limit, self._random)
        return EventWriter(self._connect, self._node_name, backoff, self._random)

    async def _connect(self) -> Connection:
        clock = asyncio.get_running_loop().time
        return Connection(self._shared_credentials(clock), self._timing)

    def _shared_credentials(self, clock: Callable[[], float]) -> Credentials:
        if self._shared is None:
            library = load_library()
            make_loader = loader_for(library, self._kubeconfig, self._context, self._environment)
            self._shared = Credentials(library, make_loader, self._timing.credentials_age, clock)
        return self._shared

    async def _credentials(self, clock: Callable[[], float]) -> Credentials:
        credentials = self._shared_credentials(clock)
        # A plugin that fails now may succeed later: the reflectors try again, and say so.
        with suppress(CredentialsUnavailable):
            check_access(await credentials.current())
        return credentials

    async def _check_selector(self, credentials: Credentials) -> None:
        """Ask the server, if it answers soon, whether the selector is valid, so that a mistake shows at
        once.
        """
        services = self._resources[0]
        if not services.label_selector:
            return
        connection = Connection(credentials, self._timing)
        try:
            async with asyncio.timeout(SELECTOR_PATIENCE):
                await connection.list_page(services, ListPage(limit=1))
        except ApiError as error:
            if error.failure.status == 400:
                raise SourceError(
                    f"--service-selector {services.label_selector!r} is refused by the API server "
                    f"({error.failure.reason}): use a label selector such as svc.mesh/watch=true or "
                    "'team in (shop, pay)'"
                ) from None
        except TimeoutError:
            pass  # the reflectors find out what is wrong with the server
        finally:
            await connection.close()

    def _reflector(self, resource: Resource, credentials: Credentials, meeting: _Meeting) -> Reflector:
        backoff = Backoff(self._timing.backoff_first, self._timing.backoff_limit, self._random)
        return Reflector(
            resource,
            Connection(credentials, self._timing),
            Reflection(backoff, self._timing, self._page_size),
            Inventory(resource, self._read_object),
            meeting,
            self._timing,
            self._random,
        )


class _Meeting:
    """Where the reflectors' reports become one stream: events into the mailbox, contact into words."""

    def __init__(self, names: tuple[str, ...], timing: Timing, clock: Callable[[], float]) -> None:
        self.mailbox = Mailbox()
        self._clock = clock
        self._contact = Contact(names, timing.stale_after, clock())

    async def take(self) -> tuple[Event, ...]:
        batch = await self.mailbox.take(self._contact.due_in(self._clock()))
        stale = self._contact.expire(self._clock())
        return batch if stale is None else (*batch, stale)

    async def tell(self, events: list[Event]) -> None:
        await self.mailbox.put(events)

    def list_begun(self, name: str) -> None:
        self._contact.list_begun(name)

    def listed(self, name: str) -> None:
        self._post(self._contact.listed(name))

    def touched(self, name: str) -> None:
        self._post(self._contact.touched(name))

    def lost(self, name: str, reason: str) -> None:
        self._contact.lost(name, reason, self._clock())
        # The wait for the next batch has to end in time to say so.
        self.mailbox.wake()

    def _post(self, said: Synced | None) -> None:
        if said is not None:
            self.mailbox.post([said])
