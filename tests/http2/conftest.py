"""Stages of HTTP/2; what was played on them must leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.http2.wire import Http2Stage


@pytest.fixture
def wires() -> Iterator[Callable[..., Http2Stage]]:
    """Make stages; their ends are checked."""
    stages: list[Http2Stage] = []

    def make(**options: Any) -> Http2Stage:
        stages.append(Http2Stage(**options))
        return stages[-1]

    yield make
    for stage in stages:
        stage.end()
