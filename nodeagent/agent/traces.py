"""Sends the spans of traced requests to a collector, within bounds, and never in anybody's way.

Requests wait in a queue of `MOST_WAITING`; those that find it full are dropped and counted. One POST is under
way at a time, with at most `LOT` requests. A collector that is away, or says that it is busy, is asked again
after a pause that doubles; what it refuses is lost. The log says once that spans are not taken, and once that
they are again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sized
from importlib.metadata import version
from typing import Final, Protocol

import aiohttp
import structlog

from discovery.model import ServiceKey
from middleware.contract import TracedRequest
from nodeagent.admin.traces import TraceState
from nodeagent.agent import zipkin
from nodeagent.agent.preflight import StartError
from nodeagent.agent.spans import Span, Value, spans_of
from nodeagent.control.messages import SourcePod, Traces
from nodeagent.settings import Settings, TraceCollector
from nodeagent.stats.exemplars import Exemplars

log = structlog.get_logger()

MOST_WAITING: Final = 5000
"""Requests, a few kilobytes each."""
LOT: Final = 100
"""Requests in one POST: making its body takes a few milliseconds of the agent's loop."""
PATIENCE: Final = 10.0
"""Seconds that a POST may take."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
LAST_WORDS: Final = 2.0
"""Seconds for what is left when the agent ends."""
REASONS: Final = ("worker", "queue_full", "refused", "broken")
"""Why requests are dropped: a worker had recorded more than it may keep, or the agent had, or the collector
did not want them, or a bug."""
BUSY: Final = frozenset({429, 502, 503, 504})
"""Statuses after which the same is to be sent again (OTLP, "Retryable Response Codes")."""

Resource = Mapping[str, Value]


class Encode(Protocol):
    """Makes the body of a POST."""

    def __call__(self, spans: list[Span], resource: Resource) -> bytes:
        """Return the body."""
        ...


def encoder(collector: TraceCollector) -> tuple[Encode, str]:
    """Return what makes bodies for this collector, and their content type.

    Raises:
        StartError: a package is missing.
    """
    if collector.form == "zipkin":
        return zipkin.encode, zipkin.CONTENT_TYPE
    try:
        from nodeagent.agent import otlp
    except ImportError as error:
        raise StartError(
            "--traces otlp+http needs the package opentelemetry-proto; install svcmesh with its extra traces,"
            f" as in: pip install 'svcmesh[agent,traces]' ({error})"
        ) from error
    return otlp.encode, otlp.CONTENT_TYPE


class TraceExporter:
    """The queue, and the one POST that is under way. `find_pod` tells the pod of an address of this node."""

    def __init__(
        self,
        collector: TraceCollector,
        resource: Resource,
        zone: str,
        find_pod: Callable[[str], SourcePod | None],
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._encode, content_type = encoder(collector)
        self._url = collector.url
        self._fields = {"Content-Type": content_type}
        self._resource = resource
        self._zone = zone
        self._find_pod = find_pod
        self._most = most_waiting
        self._queue: deque[tuple[TracedRequest, SourcePod | None]] = deque()
        self._filled = asyncio.Event()
        self._sent = 0
        self._dropped = Counter(dict.fromkeys(REASONS, 0))
        self._failing = False

    @property
    def state(self) -> TraceState:
        """Numbers for the metrics."""
        return TraceState(len(self._queue), self._sent, dict(self._dropped))

    def take(self, traces: Traces) -> int:
        """Take what a worker has recorded; return how many requests there was room for, from the first on.

        The client's pod is looked up now: later it may be gone.
        """
        self._dropped["worker"] += traces.dropped
        room = max(0, self._most - len(self._queue))
        self._dropped["queue_full"] += max(0, len(traces.requests) - room)
        self._queue.extend((one, self._find_pod(one.source)) for one in traces.requests[:room])
        if self._queue:
            self._filled.set()
        return room

    async def run(self) -> None:
        """Send what comes, until cancelled; then try once to send what is left."""
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._fields) as session:
            try:
                while True:
                    await self._filled.wait()
                    await self._send_all(session)
                    self._filled.clear()
            except asyncio.CancelledError:
                await self._send_rest(session)
                raise

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        pause = FIRST_PAUSE
        while self._queue:
            if await self._send(session):
                pause = FIRST_PAUSE
                continue
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    async def _send_rest(self, session: aiohttp.ClientSession) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS):
                while self._queue and await self._send(session):
                    pass
        except TimeoutError:
            pass

    async def _send(self, session: aiohttp.ClientSession) -> bool:
        """Send one lot; return False if the collector is to be asked again later."""
        lot = [self._queue[index] for index in range(min(LOT, len(self._queue)))]
        clock = time.time() - time.monotonic()
        try:
            spans = [span for request, pod in lot for span in spans_of(request, self._zone, pod, clock)]
            body = self._encode(spans, self._resource)
        except Exception as error:  # a bug; it must not end the agent
            self._drop(lot, "broken")
            log.exception("traces_broken", reason=str(error))
            return True
        try:
            async with session.post(self._url, data=body) as response:
                status = response.status
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._failed(str(error) or type(error).__name__)
            return False
        if status in BUSY:
            self._failed(f"it answered {status}")
            return False
        if status >= 300:
            self._drop(lot, "refused")
            self._failed(f"it answered {status}")
            return True
        self._forget(lot)
        self._sent += len(spans)
        if self._failing:
            self._failing = False
            log.info("traces_sent_again", collector=self._url, dropped=self._dropped.total())
        return True

    def _forget(self, lot: Sized) -> None:
        for _ in range(len(lot)):
            self._queue.popleft()

    def _drop(self, lot: Sized, reason: str) -> None:
        self._forget(lot)
        self._dropped[reason] += len(lot)

    def _failed(self, reason: str) -> None:
        if not self._failing:
            self._failing = True
            log.warning("traces_not_sent", collector=self._url, reason=reason)


def keep_exemplars(exemplars: Exemplars, traces: Traces, most: int, clock: float) -> None:
    """Let the first `most` requests be exemplars of their series: those whose traces go to the collector.

    `clock` is added to times of the monotonic clock to have Unix time.
    """
    for request, source in zip(traces.requests[:most], traces.sources, strict=False):
        namespace, _, name = request.service.partition("/")
        key = (ServiceKey(namespace, name), request.port)
        exemplars.take(key, source, request.trace_id, request.end - request.start, clock + request.end)


def make_exporter(settings: Settings, find_pod: Callable[[str], SourcePod | None]) -> TraceExporter | None:
    """Return what sends spans to the collector of the settings; None: they name none.

    Raises:
        StartError: what is needed for it is not installed.
    """
    if settings.traces is None:
        return None
    resource = {
        "service.name": "svcmesh",
        "service.version": version("svcmesh"),
        "service.instance.id": settings.node_name,
        "k8s.node.name": settings.node_name,
    }
    return TraceExporter(settings.traces, resource, settings.zone, find_pod)
