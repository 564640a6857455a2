"""What layers are tested with: the contract's values without a data plane, stepped by hand without a loop.

Shipped, so that a middleware outside this repository can be tested in the same way:

    handler, scripted = handler_of(build(Options(...), FakeContext()), 503, 200)
    assert run(handler(FakeRequest())).status == 200
    assert len(scripted.requests) == 2
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, cast

import msgspec

from middleware.contract import (
    MOST_COUNTERS,
    WINDOW_SECONDS,
    Ended,
    ExchangeError,
    Handler,
    Layer,
    Metric,
    ReplyHeaders,
    Request,
    Response,
    TokenStore,
    TraceSink,
)
from middleware.grpc import GrpcStatus
from middleware.journey import Journey, StageKind


class FakeDeadline:
    """A limit that a layer has set. It passes when an endpoint of `Scripted` keeps `Silence`."""

    def __init__(self, seconds: float, error: Callable[[], ExchangeError]) -> None:
        self.seconds = seconds
        self.error = error
        self.cancelled = False

    def cancel(self) -> None:
        """Note that the layer took it back."""
        self.cancelled = True


class FakeRace:
    """A second try that a layer has asked for; a test calls `permit` to have it begin."""

    def __init__(self, seconds: float, permit: Callable[[], bool]) -> None:
        self.seconds = seconds
        self.permit = permit
        self.cancelled = False

    def cancel(self) -> None:
        """Note that the layer took it back."""
        self.cancelled = True


class FakeRequest:
    """A request that goes nowhere. `fields` are its header fields."""

    def __init__(
        self,
        method: str = "GET",
        *,
        source: str = "10.1.0.7",
        replayable: bool = True,
        target: str = "/",
        fields: Mapping[str, str] | None = None,
        completed: float | None = 1000.0,
        grpc: bool = False,
        head_only: bool = True,
        workload: str = "",
    ) -> None:
        self.method = method
        self.target = target
        self.backend = ""
        self.headers = ReplyHeaders((fields or {}).items())
        self.source = source
        self.workload = workload
        self.replayable = replayable
        self.completed = completed
        self.grpc = grpc
        self.head_only = head_only
        self.errands: list[tuple[FakeRequest, Handler]] = []
        """What was to be done apart: with which request, and what."""
        self.deadlines: list[FakeDeadline] = []
        self.calls_at_end: list[Callable[[Ended], None]] = []
        self.asides: list[tuple[str, Callable[[int], None]]] = []
        """The backends that copies were sent to, and what is to be called with their status."""
        self.waits: list[tuple[StageKind, float]] = []
        """What the layer has waited for, and since when."""
        self.races: list[FakeRace] = []
        self.journey = Journey(1000.0, 1000.0)
        """What `follow_journey` tells."""
        self.followed = False

    def race(self, seconds: float, permit: Callable[[], bool]) -> FakeRace:
        """Note the second try; it never begins by itself."""
        race = FakeRace(seconds, permit)
        self.races.append(race)
        return race

    def within(self, seconds: float, error: Callable[[], ExchangeError]) -> FakeDeadline:
        """Note the limit; it never passes by itself."""
        deadline = FakeDeadline(seconds, error)
        self.deadlines.append(deadline)
        return deadline

    def at_end(self, call: Callable[[Ended], None]) -> None:
        """Note the call; `end` makes it."""
        self.calls_at_end.append(call)

    def waited(self, kind: StageKind, start: float) -> None:
        """Note what the layer has waited for."""
        self.waits.append((kind, start))

    def follow_journey(self) -> Callable[[], Journey]:
        """Return what returns `journey`."""
        self.followed = True
        return lambda: self.journey

    def aside(self, backend: str, seconds: float, done: Callable[[int], None]) -> bool:
        """Note the copy, if there can be one."""
        if not self.replayable or self.completed is None:
            return False
        self.asides.append((backend, done))
        return True

    def apart(self, serve: Handler) -> None:
        """Note what is to be done with a copy of this request; tests run it."""
        copy = FakeRequest(self.method, source=self.source, target=self.target, fields=dict(self.headers))
        copy.backend = self.backend
        self.errands.append((copy, serve))

    def end(
        self,
        status: int = 200,
        took: float = 0.01,
        error: ExchangeError | None = None,
        grpc_status: GrpcStatus | None = None,
        journey: Journey | None = None,
        http_version: str = "1.1",
    ) -> None:
        """Tell those who asked that the exchange has ended."""
        ended = Ended(
            service="default/whoami",
            port=80,
            source=self.source,
            method=self.method,
            target=self.target,
            status=status,
            endpoint="10.1.0.1:8080",
            took=took,
            received=0,
            sent=0,
            error=error,
            grpc_status=grpc_status,
            journey=journey,
            http_version=http_version,
        )
        for call in self.calls_at_end:
            call(ended)


class FakeResponse:
    """A response whose body is `body`; `length` None: its head does not say how long it is.

    For a gRPC call, give `grpc_status` if it is known at once, or `early` if it is only known after waiting
    for it; give neither if it is not known before the call ends. `trailers` are those that end the call.
    """

    def __init__(
        self,
        status: int = 200,
        fields: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        grpc_status: GrpcStatus | None = None,
        early: GrpcStatus | ExchangeError | None = None,
        length: int | None = -1,
        trailers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.headers = ReplyHeaders((fields or {}).items())
        self.body = body
        self.length = len(body) if length == -1 else length
        self.collecting: tuple[int, Callable[[bytes | None], None]] | None = None
        self.grpc_status = grpc_status
        self.waited: list[float] = []
        """How long those would have waited who asked for an early status."""
        self.discarded = False
        self._early = early
        self._trailers = ReplyHeaders((trailers or {}).items())

    def trailer(self, name: str) -> str | None:
        """Return what the call has ended with, if it has."""
        return None if self.grpc_status is None else self._trailers.get(name)

    async def early_status(self, seconds: float) -> GrpcStatus | None:
        """Return the status that is known, or comes early; raise the error that comes instead."""
        self.waited.append(seconds)
        if isinstance(self._early, ExchangeError):
            raise self._early
        if self.grpc_status is None:
            self.grpc_status = self._early
        return self.grpc_status

    def discard(self) -> None:
        """Note that the layer threw it away."""
        self.discarded = True

    async def read(self, limit: int) -> bytes | None:
        """Return the body if it is small enough."""
        return self.body if len(self.body) <= limit else None

    def collect(self, limit: int, done: Callable[[bytes | None], None]) -> None:
        """Note who wants the body; `passed` gives it."""
        self.collecting = (limit, done)

    def passed(self) -> None:
        """The whole body has passed to the client."""
        if self.collecting is not None:
            limit, done = self.collecting
            done(self.body if len(self.body) <= limit else None)


class FakeConnection:
    """A new connection, with the times that a `Gate` may set."""

    def __init__(self, source: str = "10.1.0.7") -> None:
        self.source = source
        self.connect_time = 3.0
        self.idle_time: float | None = None


class FakeTable:
    """The numbers that workers share, of one worker."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}

    def update(self, key: bytes, change: Callable[[int], int | None]) -> None:
        """As `SharedTable.update`."""
        number = change(self.numbers.get(key, 0))
        if number is not None:
            assert -(2**63) <= number < 2**63
            self.numbers[key] = number


class FakeWindow:
    """The counts that workers share: a list of what was counted, and when."""

    def __init__(self, counters: int) -> None:
        self.counters = counters
        self.counted: list[tuple[int, tuple[int, ...]]] = []
        """The second, and the counters."""
        self.began = 0
        self.stage = 0

    def moment(self) -> int:
        """As `NodeWindow.moment`."""
        return self.began

    def begin(self, now: float, seen: int) -> bool:
        """As `NodeWindow.begin`."""
        if self.began != seen:
            return False
        self.began, self.stage = round(now * 1e9), 0
        return True

    def reach(self, moment: int, stage: int) -> bool:
        """As `NodeWindow.reach`."""
        if self.began != moment or self.stage >= stage:
            return False
        self.stage = stage
        return True

    def add(self, now: float, indices: Iterable[int], moment: int) -> bool:
        """As `NodeWindow.add`."""
        if self.began != moment:
            return False
        counters = tuple(indices)
        assert all(0 <= index < self.counters for index in counters)
        self.counted.append((int(now), counters))
        return True

    def sums(self, now: float) -> list[int]:
        """As `NodeWindow.sums`."""
        newest, begun = int(now), self.began // 10**9
        oldest = max(newest - WINDOW_SECONDS, begun)
        sums = [0] * self.counters
        for second, counters in self.counted:
            if oldest < second <= newest:
                for index in counters:
                    sums[index] += 1
        return sums


class FakeWindows:
    """The windows of one node."""

    def __init__(self) -> None:
        self.made: dict[tuple[bytes, int], FakeWindow] = {}

    def window(self, key: bytes, counters: int) -> FakeWindow:
        """Return the window of this key, with this number of counters."""
        if not 1 <= counters <= MOST_COUNTERS:
            raise ValueError(f"a window has 1 to {MOST_COUNTERS} counters, not {counters}")
        return self.made.setdefault((key, counters), FakeWindow(counters))


class FakeContext:
    """A clock that stands still until a test moves it, and metrics that can be read.

    Contexts that are given the same `shared` and `windows` are those of several workers of one node.
    """

    def __init__(
        self,
        *,
        shared: FakeTable | None = None,
        windows: FakeWindows | None = None,
        port: int = 80,
        tokens: TokenStore | None = None,
        traces: TraceSink | None = None,
    ) -> None:
        self.service = "default/whoami"
        self.port = port
        self.shared = shared or FakeTable()
        self.windows = windows or FakeWindows()
        self.tokens = tokens
        self.traces = traces
        self.time = 1000.0
        self.metrics: dict[str, int] = {}

    def now(self) -> float:
        """Return `time`."""
        return self.time

    def window(self, name: str, counters: int) -> FakeWindow:
        """Return the window of this name."""
        return self.windows.window(name.encode(), counters)

    def counter(self, metric: Metric) -> Callable[[int], None]:
        """Return what adds to `metrics[metric.name]`."""
        assert metric.kind == "counter"
        self.metrics.setdefault(metric.name, 0)

        def add(amount: int) -> None:
            self.metrics[metric.name] += amount

        return add

    def gauge(self, metric: Metric) -> Callable[[int], None]:
        """Return what sets `metrics[metric.name]`."""
        assert metric.kind == "gauge"

        def set_value(value: int) -> None:
            self.metrics[metric.name] = int(value)

        return set_value


class Silence:
    """An outcome: nothing comes until the first of the limits that are in force has passed."""

    def error_for(self, request: Request) -> ExchangeError:
        """Return the error of that limit."""
        in_force = [limit for limit in cast("FakeRequest", request).deadlines if not limit.cancelled]
        assert in_force, "no limit is in force: the request would wait for ever"
        return min(in_force, key=lambda limit: limit.seconds).error()


Outcome = int | BaseException | FakeResponse | Silence


class Scripted:
    """A handler that plays a list of outcomes, and remembers the requests; the last one is repeated."""

    def __init__(self, outcomes: Iterable[Outcome], *, during: Callable[[], None] | None = None) -> None:
        self._outcomes = list(outcomes)
        self._during = during
        self.requests: list[Request] = []
        self.responses: list[FakeResponse] = []

    async def __call__(self, request: Request) -> Response:
        """Play the next outcome: a status, a response, or an error to raise."""
        self.requests.append(request)
        if self._during is not None:
            self._during()
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, Silence):
            outcome = outcome.error_for(request)
        if isinstance(outcome, BaseException):
            raise outcome
        response = FakeResponse(outcome) if isinstance(outcome, int) else outcome
        self.responses.append(response)
        return response


def handler_of(layer: Layer, *outcomes: Outcome) -> tuple[Handler, Scripted]:
    """Return the layer around a scripted handler, and that."""
    scripted = Scripted(outcomes or (200,))
    return layer(scripted), scripted


def run(awaitable: Awaitable[Response]) -> Any:
    """Step a layer's coroutine to its end; it must not wait for anything that is not played at once."""
    coroutine = cast("Coroutine[Any, Any, Response]", awaitable)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("the layer waits for something")


def status_of(awaitable: Awaitable[Response]) -> int | str:
    """Return the status of the response, or the reason of the error."""
    try:
        status: int = run(awaitable).status
    except ExchangeError as error:
        return error.reason
    return status


def sent_over(options: msgspec.Struct) -> Any:
    """Return the options as a worker gets them."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(options), type=type(options))
