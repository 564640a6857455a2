"""Fixtures of the tests without sockets: a stage, on which every conversation ends with nothing left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.exchange.http1 import Http1Stage
from tests.exchange.streams import StreamStage


@pytest.fixture
def streams() -> Iterator[Callable[..., StreamStage]]:
    """Make stages of fake streams; what was played on them must leave nothing behind."""
    stages: list[StreamStage] = []

    def make(**options: Any) -> StreamStage:
        stages.append(StreamStage(**options))
        return stages[-1]

    yield make
    for stage in stages:
        stage.end()


@pytest.fixture
def wires() -> Iterator[Callable[..., Http1Stage]]:
    """Make stages of HTTP/1 on both sides; what was played on them must leave nothing behind."""
    stages: list[Http1Stage] = []

    def make(**options: Any) -> Http1Stage:
        stages.append(Http1Stage(**options))
        return stages[-1]

    yield make
    for stage in stages:
        stage.end()
