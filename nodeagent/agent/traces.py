"""Sends the spans of traced requests to a collector, within bounds, and never in anybody's way.

Requests wait in a queue of `MOST_WAITING`; those that find it full are dropped and counted. One lot is under
way at a time, with at most `LOT` requests and `MOST_BYTES`, unless one request alone has more. A collector
that is away, or says that it is busy, is asked again after a pause that doubles, or that it asks for itself;
what it refuses is lost. The log says once that spans are not taken, and once that they are again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from importlib.metadata import version
from itertools import islice
from typing import Final, Protocol
from urllib.parse import urlsplit

import msgspec
import structlog

from discovery.model import ServiceKey
from middleware.contract import TracedRequest
from nodeagent.admin.traces import TraceState
from nodeagent.agent import zipkin
from nodeagent.agent.collector_fields import Fields, FieldsFault, read_fields, without_secrets
from nodeagent.agent.delivery import Pauses, Sender, Verdict, shown
from nodeagent.agent.http_sender import HttpSender
from nodeagent.agent.preflight import StartError
from nodeagent.agent.spans import Span, Value, spans_of
from nodeagent.control.messages import SourcePod, Traces
from nodeagent.settings import Settings, TraceCollector
from nodeagent.stats.exemplars import Exemplars

log = structlog.get_logger()

MOST_WAITING: Final = 5000
"""Requests, a few kilobytes each."""
LOT: Final = 100
"""Requests in a lot: making its body takes a few milliseconds of the agent's loop."""
MOST_BYTES: Final = 2 * 1024 * 1024
"""In a lot: the OpenTelemetry Collector refuses messages over gRPC of more than 4 MiB by default."""
PATIENCE: Final = 10.0
"""Seconds that a lot may take."""
LAST_WORDS: Final = 2.0
"""Seconds for what is left when the agent ends."""
REASONS: Final = ("worker", "queue_full", "refused", "broken")
"""Why requests are dropped: a worker had recorded more than it may keep, or the agent had, or the collector
did not want them, or a bug."""

Resource = Mapping[str, Value]


class Encode(Protocol):
    """Makes a lot's body."""

    def __call__(self, spans: list[Span], resource: Resource) -> bytes:
        """Return the body."""
        ...


def delivery(collector: TraceCollector) -> tuple[Encode, Sender]:
    """Return what makes bodies for this collector, and what sends them.

    Raises:
        StartError: a package is missing.
    """
    user_agent = f"svcmesh/{version('svcmesh')}"
    if collector.form == "zipkin":
        return zipkin.encode, HttpSender(
            collector.url,
            zipkin.CONTENT_TYPE,
            user_agent,
            lambda _: Verdict("taken"),
            lambda _: "",
            gzip=False,  # Zipkin's API does not say that servers understand it
        )
    try:
        from nodeagent.agent import otlp, otlp_answers
    except ImportError as error:
        raise StartError(
            "--traces otlp needs the package opentelemetry-proto; install svcmesh with its extra traces,"
            f" as in: pip install 'svcmesh[agent,traces]' ({error})"
        ) from error
    if collector.form == "otlp-grpc":
        from nodeagent.agent.grpc_sender import GrpcSender

        return otlp.encode, GrpcSender(collector.url, user_agent, PATIENCE)
    return otlp.encode, HttpSender(
        collector.url,
        otlp.CONTENT_TYPE,
        user_agent,
        otlp_answers.taken,
        otlp_answers.error_message,
        gzip=True,
    )


class TraceExporter:
    """The queue, and the one lot that is under way. `find_pod` tells the pod of an address of this node."""

    def __init__(
        self,
        collector: TraceCollector,
        resource: Resource,
        zone: str,
        find_pod: Callable[[str], SourcePod | None],
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._encode, self._sender = delivery(collector)
        self._url = collector.url
        self._fields_file = collector.fields_file
        self._of_grpc = collector.form == "otlp-grpc"
        self._resource = resource
        self._zone = zone
        self._find_pod = find_pod
        self._most = most_waiting
        self._queue: deque[tuple[TracedRequest, SourcePod | None]] = deque()
        self._filled = asyncio.Event()
        self._pauses = Pauses(random.random)
        self._sent = 0
        self._rejected = 0
        self._dropped = Counter(dict.fromkeys(REASONS, 0))
        self._failing = False
        self._warned = False
        """Whether the log has said that the collector takes only some spans of a lot."""

    @property
    def state(self) -> TraceState:
        """Numbers for the metrics."""
        return TraceState(len(self._queue), self._sent, self._rejected, dict(self._dropped))

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
        try:
            while True:
                await self._filled.wait()
                while self._queue:
                    pause = await self._send()
                    if pause:
                        await asyncio.sleep(pause)
                self._filled.clear()
        except asyncio.CancelledError:
            await self._send_rest()
            raise
        finally:
            await self._sender.close()

    async def _send_rest(self) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS):
                while self._queue and not await self._send():
                    pass
        except TimeoutError:
            pass

    async def _send(self) -> float:
        """Send one lot; return the seconds after which the collector is to be asked again, 0: at once."""
        requests = min(LOT, len(self._queue))
        try:
            requests, spans, body = self._lot(requests)
        except Exception as error:  # a bug; it must not end the agent
            self._drop(requests, "broken")
            log.exception("traces_broken", reason=str(error))
            return 0.0
        verdict = await self._ask(body)
        if verdict.fate == "taken":
            self._forget(requests)
            self._taken(spans, verdict)
            return 0.0
        if not self._failing:
            self._failing = True
            log.warning("traces_not_sent", collector=self._url, reason=verdict.words)
        if verdict.fate == "later":
            return self._pauses.next(verdict.pause)
        self._drop(requests, "refused")
        return 0.0

    async def _ask(self, body: bytes) -> Verdict:
        """Send a lot; return what became of it, in words that can be shown."""
        fields: Fields = ()
        try:
            if self._fields_file:
                fields = read_fields(self._fields_file, self._of_grpc)
            async with asyncio.timeout(PATIENCE):
                verdict = await self._sender.send(body, fields)
        except FieldsFault as fault:
            verdict = Verdict("later", f"header fields: {fault}")
        except TimeoutError:
            verdict = Verdict("later", f"it has not answered within {PATIENCE:g} seconds")
        except OSError as error:
            verdict = Verdict("later", str(error) or type(error).__name__)
        return msgspec.structs.replace(verdict, words=shown(without_secrets(verdict.words, fields)))

    def _lot(self, requests: int) -> tuple[int, int, bytes]:
        """Return how many of the first requests make a lot that is not too large, its spans, and its body."""
        clock = time.time() - time.monotonic()
        while True:
            lot = islice(self._queue, requests)
            spans = [span for request, pod in lot for span in spans_of(request, self._zone, pod, clock)]
            body = self._encode(spans, self._resource)
            if len(body) <= MOST_BYTES or requests == 1:
                return requests, len(spans), body
            requests //= 2

    def _taken(self, spans: int, verdict: Verdict) -> None:
        self._pauses.taken()
        self._sent += max(0, spans - verdict.rejected)
        self._rejected += verdict.rejected
        if verdict.words and not self._warned:
            self._warned = True
            log.warning(
                "traces_taken_in_part", collector=self._url, rejected=verdict.rejected, reason=verdict.words
            )
        if self._failing:
            self._failing = False
            log.info("traces_sent_again", collector=self._url, dropped=self._dropped.total())

    def _forget(self, requests: int) -> None:
        for _ in range(requests):
            self._queue.popleft()

    def _drop(self, requests: int, reason: str) -> None:
        self._forget(requests)
        self._dropped[reason] += requests


def keep_exemplars(exemplars: Exemplars, traces: Traces, most: int, clock: float) -> None:
    """Let the first `most` requests be exemplars of their series: those whose traces go to the collector.

    `clock` is added to times of the monotonic clock to have Unix time.
    """
    for request, source in zip(traces.requests[:most], traces.sources, strict=False):
        namespace, _, name = request.service.partition("/")
        key = (ServiceKey(namespace, name), request.port)
        exemplars.take(key, source, request.trace_id, request.end - request.start, clock + request.end)


def _can_be_read_on_the_way(url: str) -> bool:
    """Return whether what is sent there crosses a network without TLS."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return parts.scheme == "http" and not here


def make_exporter(settings: Settings, find_pod: Callable[[str], SourcePod | None]) -> TraceExporter | None:
    """Return what sends spans to the collector of the settings; None: they name none.

    Raises:
        StartError: what is needed for it is not installed.
    """
    if settings.traces is None:
        return None
    if settings.traces.fields_file and _can_be_read_on_the_way(settings.traces.url):
        log.warning("traces_headers_not_encrypted", collector=settings.traces.url)
    resource = {
        "service.name": "svcmesh",
        "service.version": version("svcmesh"),
        "service.instance.id": settings.node_name,
        "k8s.node.name": settings.node_name,
    }
    return TraceExporter(settings.traces, resource, settings.zone, find_pod)
