"""A purge as an owner has it: the annotation gets a new mark, and all workers of an agent forget."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hack.kit.waiting import until
from tests.agent.harness import Agent
from tests.agent.test_file_endpoints import annotated, running

WORKERS = 2
PATIENCE = 90.0


class Origin:
    """Answers with what may be kept for an hour, and counts by path."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            self.asked[head.split(b" ")[1].decode()] += 1
            writer.write(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
def origin() -> Iterator[Origin]:
    found, loop = Origin(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(found.handle, "127.0.0.1", 0)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def how(agent: Agent, path: str) -> str:
    """Ask on a new connection, which any worker may accept; return what the cache has done."""
    with closing(agent.connect()) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return str(response.getheader("Cache-Status"))


def test_all_workers_forget(tmp_path: Path, origin: Origin) -> None:
    where = f"svc.mesh/endpoints: 127.0.0.1:{origin.port}"
    cached = "svc.mesh/cache: on stale-if-error=1h"

    def all_workers_ask(path: str, times: int) -> None:
        """Ask until both workers have, which may take a while on a busy machine; no worker asks twice."""

        def have_asked() -> bool:
            how(agent, path)
            return origin.asked[path] >= times * WORKERS

        until(have_asked, PATIENCE)

    with running(tmp_path / "cluster", "--workers", str(WORKERS)) as agent:
        agent.write("web.yaml", annotated(where, cached))
        until(lambda: how(agent, "/a").startswith("svc.mesh"), PATIENCE)
        all_workers_ask("/a", 1)
        all_workers_ask("/b", 1)
        agent.write("web.yaml", annotated(where, cached, "svc.mesh/cache-purge: release-2 path=/a"))
        until(lambda: len(agent.events("cache_purged")) == WORKERS, PATIENCE)
        assert {(line["mark"], line["path"], line["responses"]) for line in agent.events("cache_purged")} == {
            ("release-2", "/a", 1)
        }
        all_workers_ask("/a", 2)
        assert all("; hit;" in how(agent, path) for path in ("/a", "/b") * 6)
        assert origin.asked == {"/a": 2 * WORKERS, "/b": WORKERS}
        series = 'svcmesh_cache_purged_total{service="web",namespace="shop",port="18080"}'
        until(lambda: agent.metric(series) == WORKERS, PATIENCE)
