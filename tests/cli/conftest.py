"""A fake API server in a thread of its own: commands run their own loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.discovery.kube.fake_api import FakeApi


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """Objects and pages must be put into it before a command runs."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    server, loop = FakeApi(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    yield server
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
