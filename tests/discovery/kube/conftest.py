from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from discovery.kube.source import KubeSource
from discovery.kube.timing import Timing
from tests.discovery.kube.fake_api import FakeApi
from tests.discovery.kube.listener import Listener

# What a test does not wait for is far away, so that a slow machine decides nothing.
FAST = Timing(
    backoff_first=0.01,
    backoff_limit=0.02,
    watch_shortest=300,
    watch_longest=300,
    connect=20,
    answer=20,
    stale_after=60,
    short_watch=0.0,
    credentials_age=0.0,
)
QUICKLY_STALE = msgspec.structs.replace(FAST, stale_after=0.05)
Listen = Callable[..., Listener]


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeApi]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = FakeApi()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def listen(api: FakeApi, tmp_path: Path) -> AsyncIterator[Listen]:
    """Starts a source against the fake server; call it with arguments of `KubeSource`."""
    async with AsyncExitStack() as stack:

        def start(**options: Any) -> Listener:
            defaults: dict[str, Any] = {
                "kubeconfig": api.write_kubeconfig(tmp_path / "kubeconfig"),
                "node_name": "node-1",
                "timing": FAST,
                "random": lambda: 0.5,
            }
            listener = Listener(KubeSource(**(defaults | options)))
            stack.push_async_callback(listener.stop)
            return listener

        yield start
