"""Notices as Kubernetes Events on their Service, each once in the cluster, however many agents report it.

No agent is elected. An Event's name is a hash of its content, so all agents create the same object: the API
server takes the first and answers the others with 409, and then they are done. Needs `create` on
`events.events.k8s.io`, and nothing else: looking first would cost as much as trying.

The agents of a cluster spread over `SPREAD` seconds. Events that cannot be sent wait in a bounded queue and
are dropped after `MAX_AGE`; nothing else depends on them. The Events of one Service are limited, and so is
the part of the queue that one namespace may fill, so that those of others are sent in time.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import math
import random
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from discovery.kube.backoff import Backoff
from discovery.kube.connection import Connection
from discovery.kube.failure import ApiError
from discovery.notice import Notice
from discovery.throttle import Throttle, Throttles

log = structlog.get_logger()

CONTROLLER = "svc.mesh/agent"
SPREAD = 1.0
"""Seconds over which the agents of a cluster spread the same Event."""
RATE = 5.0
"""Events a second, on average."""
BURST = 20
OF_SERVICE = (20, 1 / 60)
"""Events of one Service that may come at once, and how many a second after that."""
OF_NAMESPACE = (200, 0.5)
QUEUE = 1000
DROPS_EVERY = 10.0
"""Seconds between two lines about what was dropped."""
MAX_AGE = 600.0
"""Seconds after which an Event that could not be sent is dropped."""
NOTE_BYTES = 1024
"""Kubernetes API reference, `Event.note`: at most 1kB."""
UNREPEATABLE = ("refused", "malformed")
"""Failures that say that this Event will never be taken."""


class _Waiting(msgspec.Struct, order=True):
    due: float
    number: int
    """Keeps the order of equals, and notices out of comparisons."""
    notice: Notice
    born: float


class EventWriter:
    """Creates Events for notices; an `Announcer`. One for a process.

    `connect` gives the connection once there are credentials; `random` numbers from [0, 1); `node` is who
    reports. Times are those of the running loop.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        node: str,
        backoff: Backoff,
        random: Callable[[], float] = random.random,
        spread: float = SPREAD,
    ) -> None:
        self._connect = connect
        self._node = node
        self._backoff = backoff
        self._random = random
        self._spread = spread
        self._queue: list[_Waiting] = []
        self._number = 0
        self._wake = asyncio.Event()
        self._tokens = float(BURST)
        self._filled = 0.0
        self._failing = False
        self._throttles = Throttles(Throttle(*OF_NAMESPACE), Throttle(*OF_SERVICE))
        self._dropped = 0
        self._drops_told = -math.inf

    def tell(self, notices: Iterable[Notice]) -> None:
        """Send these within `spread` seconds; if there are too many, the rest is dropped, and that is
        logged.
        """
        now = asyncio.get_running_loop().time()
        for notice in notices:
            if len(self._queue) >= QUEUE:
                self._drop(notice, f"{QUEUE} wait already", now)
            elif not self._throttles.admit(now, notice.service.namespace, notice.service):
                self._drop(notice, "there were too many for this Service or its namespace", now)
            else:
                self._put(notice, now + self._random() * self._spread, now)
        self._wake.set()

    def _drop(self, notice: Notice, reason: str, now: float) -> None:
        self._dropped += 1
        if now >= self._drops_told + DROPS_EVERY:
            log.warning("events_dropped", service=str(notice.service), reason=reason, count=self._dropped)
            self._dropped, self._drops_told = 0, now

    async def run(self) -> None:
        """Create Events until cancelled."""
        connection = await self._connect()
        try:
            while True:
                await self._next(connection)
        finally:
            await connection.close()

    async def _next(self, connection: Connection) -> None:
        """Wait until an Event is due, and try to send it."""
        clock = asyncio.get_running_loop().time
        while not self._queue or self._queue[0].due > clock():
            self._wake.clear()
            wait = self._queue[0].due - clock() if self._queue else None
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                break
        await self._take_token(clock)
        waiting = heapq.heappop(self._queue)
        if clock() - waiting.born > MAX_AGE:
            return
        try:
            await self._create(connection, waiting.notice)
            self._backoff.reset()
            self._failing = False
        except ApiError as error:
            await self._failed(connection, waiting, error, clock)

    async def _create(self, connection: Connection, notice: Notice) -> None:
        namespace = notice.service.namespace
        document = event_document(notice, self._node, datetime.now(UTC))
        created = await connection.create(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", document)
        if created:
            log.info("event_created", service=str(notice.service), about=notice.reason, note=notice.note)
        else:
            log.debug("event_known", service=str(notice.service), about=notice.reason)

    async def _failed(
        self, connection: Connection, waiting: _Waiting, error: ApiError, clock: Callable[[], float]
    ) -> None:
        failure = error.failure
        if failure.kind in UNREPEATABLE:
            log.warning("event_refused", service=str(waiting.notice.service), reason=failure.reason)
            return
        if not self._failing:
            log.warning("events_failed", reason=failure.reason, then="retried for a while")
        self._failing = True
        delay = failure.retry_after + self._backoff.failed()
        self._put(waiting.notice, clock() + delay, waiting.born)
        if failure.kind == "unauthorized":
            await connection.renew_credentials()
        if failure.kind != "forbidden":  # that may hold for one namespace only, such as one that is leaving
            await asyncio.sleep(delay)

    async def _take_token(self, clock: Callable[[], float]) -> None:
        now = clock()
        self._tokens = min(float(BURST), self._tokens + (now - self._filled) * RATE)
        self._filled = now
        self._tokens -= 1.0
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / RATE)

    def _put(self, notice: Notice, due: float, born: float) -> None:
        self._number += 1
        heapq.heappush(self._queue, _Waiting(due, self._number, notice, born))


def event_name(notice: Notice) -> str:
    """Return the name of the Event: the same for every agent that has the same to tell."""
    parts = (notice.uid, notice.reason, *notice.identity)
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "replace")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return f"{notice.service.name}.svcmesh-{digest.hexdigest()[:16]}"


def event_document(notice: Notice, node: str, now: datetime) -> dict[str, Any]:
    """Return the Event (events.k8s.io/v1) that tells a notice."""
    key = notice.service
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": key.namespace, "name": event_name(notice)},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": notice.type,
        "reason": notice.reason,
        "action": "ReadAnnotations",
        "note": _shorten(notice.note),
        "regarding": {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": key.namespace,
            "name": key.name,
            "uid": notice.uid,
        },
        "reportingController": CONTROLLER,
        "reportingInstance": node[:128] or "agent",
    }


def _shorten(note: str) -> str:
    encoded = note.encode("utf-8", "replace")
    if len(encoded) <= NOTE_BYTES:
        return encoded.decode()
    return encoded[: NOTE_BYTES - 3].decode("utf-8", "ignore") + "…"
