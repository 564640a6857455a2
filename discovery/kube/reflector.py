"""Performs what a `Reflection` decides, for one resource: the loop, the clock and the parsing around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from discovery.kube.connection import Answer, Connection
from discovery.kube.failure import UNREADABLE, ApiError, Failure, read_failure
from discovery.kube.inventory import Inventory
from discovery.kube.lines import LineBuffer, LineTooLong
from discovery.kube.reflection import Check, ListPage, Reflection, Request, Step, Watch
from discovery.kube.resource import Resource
from discovery.kube.timing import Timing
from discovery.source import Event

log = structlog.get_logger()

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes; etcd stores no object larger than 1.5 MiB unless it is told to."""

AT_ONCE = 50
"""Objects of a list that are read in a few milliseconds; then others have a turn."""


class Audience(Protocol):
    """Receives the reports of a reflector; `name` is the kind of its resource."""

    async def tell(self, events: list[Event]) -> None:
        """Take events; returns when there is room for more."""
        ...

    def list_begun(self, name: str) -> None:
        """A list begins."""
        ...

    def listed(self, name: str) -> None:
        """The list is complete and has been reported."""
        ...

    def touched(self, name: str) -> None:
        """The server answered: a page of a list, or a watch that was accepted."""
        ...

    def lost(self, name: str, reason: str) -> None:
        """An attempt failed."""
        ...


class _WatchEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


_event_decoder = msgspec.json.Decoder(_WatchEvent)
_object_decoder = msgspec.json.Decoder(dict[str, Any])


class Reflector:
    """Keeps an inventory equal to a collection at the API server and reports what changes."""

    def __init__(
        self,
        resource: Resource,
        connection: Connection,
        reflection: Reflection,
        inventory: Inventory,
        audience: Audience,
        timing: Timing,
        random: Callable[[], float],
    ) -> None:
        self._resource = resource
        # A page of one object is found at once; one that matches a selector may take looking at all of them.
        self._unselected = msgspec.structs.replace(resource, label_selector="", field_selector="")
        self._connection = connection
        self._reflection = reflection
        self._inventory = inventory
        self._audience = audience
        self._timing = timing
        self._random = random
        self._clock = asyncio.get_running_loop().time
        self._bookmarked = False
        self._without = False
        """It is known, and has been said, that the mesh goes on without this resource."""

    async def run(self) -> None:
        """List and watch until cancelled."""
        try:
            step = self._reflection.start()
            while True:
                step = await self._perform(step.request)
                if step.failure is not None:
                    await self._pause(step, step.failure)
        finally:
            await self._connection.close()

    async def _pause(self, step: Step, failure: Failure) -> None:
        if failure.kind == "forbidden" and self._resource.optional:
            self._go_without(failure)
            await asyncio.sleep(self._timing.forbidden_optional)
            return
        kind = self._resource.kind
        log.warning(
            "source_error",
            source="kube",
            resource=kind,
            kind=failure.kind,
            reason=failure.reason,
            retry_in_ms=round(step.delay * 1000),
            then="list" if isinstance(step.request, ListPage) else "watch",
        )
        # An expired version is the server's answer, and no sign of lost contact.
        if failure.kind != "expired":
            self._audience.lost(kind, failure.reason)
        if step.renew_credentials:
            await self._connection.renew_credentials()
        if failure.kind == "timeout":
            # Idle connections may hang for the same reason; the next request must not wait for one of them.
            await self._connection.close()
        await asyncio.sleep(step.delay)

    def _go_without(self, failure: Failure) -> None:
        """Count an optional resource that may not be read as listed: what was known of it stays."""
        kind = self._resource.kind
        if not self._without:
            self._without = True
            log.warning(
                "source_does_without",
                source="kube",
                resource=kind,
                reason=failure.reason,
                effect=self._resource.optional,
            )
        self._audience.listed(kind)

    async def _perform(self, request: Request) -> Step:
        if isinstance(request, ListPage):
            return await self._list(request)
        if isinstance(request, Check):
            return await self._check()
        return await self._watch(request)

    async def _check(self) -> Step:
        try:
            page = await self._connection.list_page(self._unselected, ListPage(limit=1))
        except ApiError as error:
            return self._reflection.failed(error.failure)
        return self._reflection.version_checked(page.version)

    async def _list(self, request: ListPage) -> Step:
        kind = self._resource.kind
        if not request.continue_token:
            self._inventory.begin_list()
            self._audience.list_begun(kind)
        try:
            page = await self._connection.list_page(self._resource, request)
            events: list[Event] = []
            for number, item in enumerate(page.items):
                events += self._inventory.put(_read_item(item))
                if number % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)
        except ApiError as error:
            return self._reflection.failed(error.failure)
        self._audience.touched(kind)
        await self._audience.tell(events)
        step = self._reflection.page_received(page.version, page.continue_token)
        if isinstance(step.request, Watch):
            await self._audience.tell(self._inventory.end_list())
            log.info(
                "source_listed",
                source="kube",
                resource=kind,
                objects=len(self._inventory),
                version=page.version,
            )
            self._without = False
            self._audience.listed(kind)
        return step

    async def _watch(self, request: Watch) -> Step:
        timing = self._timing
        seconds = timing.watch_shortest + self._random() * (timing.watch_longest - timing.watch_shortest)
        began = self._clock()
        try:
            async with self._connection.watch(self._resource, request, seconds) as answer:
                self._audience.touched(self._resource.kind)
                step = await self._read_watch(answer, began, began + seconds + timing.watch_grace)
        except ApiError as error:
            return self._reflection.failed(error.failure, self._clock() - began)
        return step or self._reflection.watch_ended(self._clock() - began)

    async def _read_watch(self, answer: Answer, began: float, end: float) -> Step | None:
        """Read a watch to its end; return what has to be done if that is not simply to watch on."""
        lines = LineBuffer(LINE_LIMIT)
        while True:
            patience = max(0.0, end - self._clock())
            if self._bookmarked:
                patience = min(patience, self._timing.max_silence)
            chunk = await answer.read(patience)
            if not chunk and lines.partial:
                raise ApiError(Failure("cut", "the connection ended in the middle of an event"))
            if not chunk:
                return None
            try:
                whole = lines.feed(chunk)
            except LineTooLong as error:
                raise ApiError(Failure("malformed", str(error))) from error
            step = await self._apply_lines(whole, began)
            if step is not None:
                return step

    async def _apply_lines(self, lines: list[bytes], began: float) -> Step | None:
        """Apply the lines in order and report the changes, also when one of the lines ends the watch."""
        events: list[Event] = []
        try:
            for line in lines:
                step = self._apply(line, events, began)
                if step is not None:
                    return step
            return None
        finally:
            await self._audience.tell(events)

    def _apply(self, line: bytes, events: list[Event], began: float) -> Step | None:
        try:
            event = _event_decoder.decode(line)
        except UNREADABLE as error:
            raise ApiError(Failure("malformed", f"not an event: {error}: {line[:80]!r}")) from error
        if event.type == "ERROR":
            return self._reflection.error_event(read_failure(0, bytes(event.object)), self._clock() - began)
        document = _read_item(event.object)
        step = self._reflection.event_received(_version(document))
        if step is not None:
            return step
        if event.type in ("ADDED", "MODIFIED"):
            events += self._inventory.put(document)
        elif event.type == "DELETED":
            events += self._inventory.remove(document)
        elif event.type == "BOOKMARK":
            self._bookmarked = True
        return None


def _read_item(item: msgspec.Raw) -> dict[str, Any]:
    try:
        return _object_decoder.decode(item)
    except UNREADABLE as error:
        raise ApiError(Failure("malformed", f"not an object: {error}: {bytes(item[:80])!r}")) from error


def _version(document: dict[str, Any]) -> str:
    metadata = document.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else ""
