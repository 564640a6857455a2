"""Fixtures of the data plane's tests: uvloop, limits, and a proxy in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from nodeagent.settings import Limits
from tests.dataplane.harness import Mesh


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The data plane runs on uvloop and nowhere else."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
async def mesh(limits: Limits) -> AsyncIterator[Mesh]:
    mesh = Mesh(limits)
    yield mesh
    await mesh.close()
