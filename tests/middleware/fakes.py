"""What layers are tested with: the contract's values without a data plane, stepped by hand without a loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, cast

import msgspec

from middleware.contract import ExchangeError, Handler, Layer, Metric, Request, Response


class FakeHeaders:
    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        self._fields = {name.lower(): value for name, value in (fields or {}).items()}

    def get(self, name: str) -> str | None:
        return self._fields.get(name.lower())

    def get_all(self, name: str) -> list[str]:
        value = self.get(name)
        return [] if value is None else [value]


class FakeRequest:
    def __init__(
        self, method: str = "GET", *, source: str = "10.1.0.7", replayable: bool = True, target: str = "/"
    ) -> None:
        self.method = method
        self.target = target
        self.headers = FakeHeaders()
        self.source = source
        self.replayable = replayable


class FakeResponse:
    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.headers = FakeHeaders()
        self.discarded = False

    def discard(self) -> None:
        self.discarded = True


class FakeTable:
    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}

    def update(self, key: bytes, change: Callable[[int], int | None]) -> None:
        number = change(self.numbers.get(key, 0))
        if number is not None:
            assert -(2**63) <= number < 2**63
            self.numbers[key] = number


class FakeContext:
    """A clock that stands still until a test moves it, and metrics that can be read."""

    def __init__(self, *, shared: FakeTable | None = None, port: int = 80) -> None:
        self.service = "default/whoami"
        self.port = port
        self.shared = shared or FakeTable()
        self.time = 1000.0
        self.metrics: dict[str, int] = {}

    def now(self) -> float:
        return self.time

    def counter(self, metric: Metric) -> Callable[[int], None]:
        assert metric.kind == "counter"
        self.metrics.setdefault(metric.name, 0)

        def add(amount: int) -> None:
            self.metrics[metric.name] += amount

        return add

    def gauge(self, metric: Metric) -> Callable[[int], None]:
        assert metric.kind == "gauge"

        def set_value(value: int) -> None:
            self.metrics[metric.name] = int(value)

        return set_value


class Scripted:
    """A handler that plays a list of outcomes, and remembers the requests; the last one is repeated."""

    def __init__(
        self, outcomes: Iterable[int | BaseException], *, during: Callable[[], None] | None = None
    ) -> None:
        self._outcomes = list(outcomes)
        self._during = during
        self.requests: list[Request] = []
        self.responses: list[FakeResponse] = []

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        if self._during is not None:
            self._during()
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        response = FakeResponse(outcome)
        self.responses.append(response)
        return response


def handler_of(layer: Layer, *outcomes: int | BaseException) -> tuple[Handler, Scripted]:
    """Return the layer around a scripted handler, and that."""
    scripted = Scripted(outcomes or (200,))
    return layer(scripted), scripted


def run(awaitable: Awaitable[Response]) -> FakeResponse:
    """Step a layer's coroutine to its end; it must not wait for anything that is not played at once."""
    coroutine = cast("Coroutine[Any, Any, Response]", awaitable)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        response: FakeResponse = stop.value
        return response
    coroutine.close()
    raise AssertionError("the layer waits for something")


def status_of(awaitable: Awaitable[Response]) -> int | str:
    """Return the status of the response, or the reason of the error."""
    try:
        return run(awaitable).status
    except ExchangeError as error:
        return error.reason


def sent_over(options: msgspec.Struct) -> Any:
    """Return the options as a worker gets them."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(options), type=type(options))
