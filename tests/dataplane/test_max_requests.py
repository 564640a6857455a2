"""`svc.mesh/max-requests` on a real data plane, with clients of two addresses."""

from __future__ import annotations

import asyncio

from middleware.max_requests import LIMITED, QUEUED
from tests.dataplane.harness import Mesh, until

GET = b"GET /%s HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Slow:
    """An endpoint that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._turns: list[asyncio.Event] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            turn = asyncio.Event()
            self._turns.append(turn)
            self.asked.append(head.split(b" ")[1])
            await turn.wait()
            writer.write(OK)

    def answer(self) -> None:
        """Answer the oldest request."""
        self._turns.pop(0).set()


class Clients:
    """Ask from an address of one's own."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    def ask(self, name: str, source: str = "127.0.0.1") -> asyncio.Task[bytes]:
        async def go() -> bytes:
            assert self.mesh.listener is not None
            reader, writer = await asyncio.open_connection(*self.mesh.listener.key, local_addr=(source, 0))
            self.mesh.writers.append(writer)
            writer.write(GET % name.encode())
            async with asyncio.timeout(10):
                return await reader.read(-1)

        return asyncio.get_running_loop().create_task(go())


def number(mesh: Mesh, metric: str) -> int:
    return mesh.metric("max-requests", metric)


async def test_a_neighbour_is_next_and_a_full_queue_makes_room_for_it(mesh: Mesh) -> None:
    slow = Slow()
    await mesh.serve(await mesh.endpoint(slow), annotations={"svc.mesh/max-requests": "1 queue=2"})
    clients = Clients(mesh)
    first = clients.ask("g1")
    await until(lambda: slow.asked == [b"/g1"])
    second = clients.ask("g2")
    await until(lambda: number(mesh, QUEUED.name) == 1)
    third = clients.ask("g3")
    await until(lambda: number(mesh, QUEUED.name) == 2)
    neighbour = clients.ask("n1", "127.0.0.2")
    refused = await third
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 1\r\n" in refused
    assert b'Proxy-Status: svc.mesh; error=http_request_denied; details="concurrency_limited: ' in refused
    await until(lambda: number(mesh, QUEUED.name) == 3)
    slow.answer()
    assert (await first).endswith(b"ok")
    await until(lambda: len(slow.asked) == 2)
    slow.answer()
    await until(lambda: len(slow.asked) == 3)
    slow.answer()
    assert {await second, await neighbour} == {await first}
    assert slow.asked[0] == b"/g1"
    assert set(slow.asked[1:]) == {b"/g2", b"/n1"}
    assert number(mesh, LIMITED.name) == 1


async def test_one_that_waits_too_long(mesh: Mesh) -> None:
    slow = Slow()
    annotations = {"svc.mesh/max-requests": "1 queue-time=20ms"}
    await mesh.serve(await mesh.endpoint(slow), annotations=annotations)
    clients = Clients(mesh)
    first = clients.ask("1")
    await until(lambda: slow.asked)
    assert b'details="queue_timeout: none of 1 requests before it ended within 20ms"' in await clients.ask(
        "2"
    )
    slow.answer()
    assert (await first).endswith(b"ok")
    third = clients.ask("3")
    await until(lambda: slow.asked == [b"/1", b"/3"])
    slow.answer()
    assert (await third).endswith(b"ok")


async def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind(mesh: Mesh) -> None:
    slow = Slow()
    await mesh.serve(await mesh.endpoint(slow), annotations={"svc.mesh/max-requests": "1"})
    clients = Clients(mesh)
    first = clients.ask("1")
    await until(lambda: slow.asked)
    _, writer = await mesh.connect()
    writer.write(GET % b"gone")
    await until(lambda: number(mesh, QUEUED.name) == 1)
    writer.close()
    await until(lambda: mesh.proxy.runtime.clients == 1)
    last = clients.ask("last")
    await until(lambda: number(mesh, QUEUED.name) == 2)
    slow.answer()
    assert (await first).endswith(b"ok")
    await until(lambda: slow.asked == [b"/1", b"/last"])
    slow.answer()
    assert (await last).endswith(b"ok")


async def test_a_response_counts_until_its_last_byte(mesh: Mesh) -> None:
    end = asyncio.Event()

    async def streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
            await end.wait()
            writer.write(b"k")

    await mesh.serve(await mesh.endpoint(streams), annotations={"svc.mesh/max-requests": "1 queue=0"})
    reader, writer = await mesh.connect()
    writer.write(GET % b"")
    await reader.readuntil(b"\r\n\r\no")
    clients = Clients(mesh)
    assert b"concurrency_limited" in await clients.ask("2")
    end.set()
    assert await reader.read(-1) == b"k"
    assert (await clients.ask("3")).endswith(b"ok")
