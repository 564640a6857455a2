"""Requests, calls and bytes count for the source of their connection, whatever the protocol."""

from __future__ import annotations

import asyncio

import pytest

from nodeagent.stats import columns
from nodeagent.stats.edges import ROWS_AT, SHAPE, EdgeRows
from nodeagent.stats.identity import UNKNOWN, Identity
from nodeagent.stats.rows import read_tags
from tests.dataplane.harness import Mesh, answering, read_head, until

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
WEB = Identity("deployment/web", "shop", "web-1")


class Edges:
    """The edges of a proxy under test: who its clients are, and what is counted of them."""

    def __init__(self, mesh: Mesh) -> None:
        runtime = mesh.proxy.runtime
        self.cells = mesh.cells
        self.first = mesh.layout.base(10)
        self.rows = runtime.edges = EdgeRows(mesh.cells, self.first)
        self.client: Identity = UNKNOWN
        self.asked = 0
        runtime.identify = self.identify

    def identify(self, address: str, before: Identity | None) -> Identity:
        self.asked += 1
        assert address == "127.0.0.1"
        return self.client

    def count(self, column: int, source: str) -> int:
        rows = self.cells[self.first + ROWS_AT :]
        tags = (tag for tag in read_tags(rows, SHAPE) if tag is not None and tag.name == source)
        return sum(rows[tag.at + SHAPE.counters_at + column] for tag in tags)


@pytest.fixture
def edges(mesh: Mesh) -> Edges:
    return Edges(mesh)


async def test_a_connection_is_asked_about_once_until_something_changes(mesh: Mesh, edges: Edges) -> None:
    await mesh.serve(await mesh.endpoint(answering()))
    reader, writer = await mesh.connect()

    async def ask() -> None:
        writer.write(GET)
        await read_head(reader)
        assert await reader.readexactly(2) == b"ok"

    for _ in range(3):
        await ask()
    await until(lambda: edges.count(columns.REQUESTS_2XX, "/unknown") == 3)
    assert edges.asked == 1
    assert edges.count(columns.CONNECTIONS, "/unknown") == 1
    assert edges.count(columns.BYTES_RECEIVED, "/unknown") == 3 * len(GET)
    edges.client = WEB
    mesh.proxy.sources_changed()
    await ask()
    await until(lambda: edges.count(columns.REQUESTS_2XX, WEB.source) == 1)
    assert edges.asked == 2
    assert mesh.count(columns.REQUESTS_2XX) == 0, "nothing is counted twice"


async def test_the_bytes_of_tcp_and_the_mesh_s_own_responses(mesh: Mesh, edges: Edges) -> None:
    edges.client = WEB

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(-1))

    await mesh.serve(await mesh.endpoint(echo), protocol="tcp")
    reader, writer = await mesh.connect()
    writer.write(b"hello")
    writer.write_eof()
    assert await reader.read(-1) == b"hello"
    await until(lambda: edges.count(columns.BYTES_SENT, WEB.source) == 5)
    assert edges.count(columns.BYTES_RECEIVED, WEB.source) == 5
    assert edges.count(columns.CONNECTIONS, WEB.source) == 1
    await mesh.serve()
    await mesh.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    await until(lambda: edges.count(columns.MESH_RESPONSES, WEB.source) == 1)
    assert edges.count(columns.REQUESTS_5XX, WEB.source) == 1


async def test_a_port_that_left_goes_on_counting_in_its_slot(mesh: Mesh, edges: Edges) -> None:
    await mesh.serve(await mesh.endpoint(answering()))
    assert mesh.listener is not None
    reader, writer = await mesh.connect()
    writer.write(GET)
    await read_head(reader)
    await until(lambda: edges.count(columns.REQUESTS_2XX, "/unknown") == 1)
    mesh.apply(removed=(mesh.listener.key,))
    assert edges.count(columns.REQUESTS_2XX, "/unknown") == 0
    assert mesh.count(columns.REQUESTS_2XX) == 1


async def test_requests_of_a_service_are_those_of_all_sources(mesh: Mesh, edges: Edges) -> None:
    await mesh.serve(await mesh.endpoint(answering()))
    asked = frozenset({"default/web", "shop/gone"})
    assert mesh.proxy.requests(asked) == {"default/web": 0, "shop/gone": 0}
    for client in (UNKNOWN, WEB):
        edges.client = client
        reader, writer = await mesh.connect()
        writer.write(GET)
        await read_head(reader)
        assert await reader.readexactly(2) == b"ok"
        writer.close()
    await until(lambda: mesh.proxy.requests(asked) == {"default/web": 2, "shop/gone": 0})
