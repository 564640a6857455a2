"""One peer that sends as fast as it can, in the smallest pieces there are, does not keep the others waiting.

The floods run on threads, with blocking sockets, so that they do not wait for the loop they load. What is
measured is a neighbour: a new client of another Service, asking one request after another meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from nodeagent.plan.model import Listener
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, answering, until
from tests.dataplane.peers import on_thread, read_until

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n"
LONGEST_WAIT = 0.5
"""Seconds for a request that takes a few milliseconds in an idle worker."""
ASKED = 3
FLOOD_TIME = 5.0
"""Seconds after which a flood ends by itself: a worker that is kept busy could not end it."""


def flood_time() -> Iterator[None]:
    """Yield until the time of a flood is over."""
    end = time.monotonic() + FLOOD_TIME
    while time.monotonic() < end:
        yield


class Flood:
    """A client on a thread: it sends `piece` again and again, and throws away what it gets."""

    def __init__(self, route: Listener, beginning: bytes, piece: bytes) -> None:
        self.sent = 0
        self._connection = socket.create_connection(route.key)
        self._beginning = beginning
        self._piece = piece
        for work in (self._send, self._discard):
            threading.Thread(target=work, daemon=True).start()

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.sendall(self._beginning)
            for _ in flood_time() if self._piece else ():
                self._connection.sendall(self._piece)
                self.sent += len(self._piece)

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            while self._connection.recv(1024 * 1024):
                pass

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


@contextlib.contextmanager
def flooding(
    route: Listener, piece: bytes, beginning: bytes = b"", clients: int = 1
) -> Iterator[list[Flood]]:
    floods = [Flood(route, beginning, piece) for _ in range(clients)]
    try:
        yield floods
    finally:
        for flood in floods:
            flood.stop()


async def neighbour_is_served(mesh: Mesh, moving: Callable[[], int], longest: float = LONGEST_WAIT) -> None:
    """Ask for something while a flood, whose progress is `moving`, goes on; no answer may take longer."""
    loop = asyncio.get_running_loop()
    for _ in range(ASKED):
        before = moving()
        started = loop.time()
        answer = await mesh.ask(GET_CLOSE)
        took = loop.time() - started
        assert took < longest, f"answered after {took:.2f} s: {answer[:20]!r}"
        assert answer.endswith(b"ok")
        await until(lambda: moving() > before)  # noqa: B023


def swallow(taken: list[int]) -> Callable[[socket.socket], None]:
    """An endpoint that reads for ever and answers nothing."""

    def serve(connection: socket.socket) -> None:
        while data := connection.recv(1024 * 1024):
            taken[0] += len(data)

    return serve


@pytest.mark.parametrize(
    ("clients", "size", "longest"), [(1, 1, LONGEST_WAIT), (1, 16, LONGEST_WAIT), (4, 1, 3 * LONGEST_WAIT)]
)
async def test_an_upload_in_tiny_chunks(mesh: Mesh, clients: int, size: int, longest: float) -> None:
    taken = [0]
    with on_thread(swallow(taken)) as endpoint:
        flooded = await mesh.serve(endpoint)
        await mesh.serve(await mesh.endpoint(answering()))
        chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
        with flooding(flooded, chunk * (1024 * 1024 // len(chunk)), POST, clients):
            await until(lambda: taken[0])
            await neighbour_is_served(mesh, lambda: taken[0], longest)


async def test_a_response_in_tiny_chunks(mesh: Mesh) -> None:
    def endless(connection: socket.socket) -> None:
        read_until(connection, b"\r\n\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in flood_time():
            connection.sendall(b"1\r\nx\r\n" * 200_000)
            sent[0] += 1

    sent = [0]
    with on_thread(endless) as endpoint:
        flooded = await mesh.serve(endpoint)
        await mesh.serve(await mesh.endpoint(answering()))
        with flooding(flooded, b"", GET):
            await until(lambda: sent[0])
            await neighbour_is_served(mesh, lambda: sent[0])


class TestInterimResponses:
    """An endpoint that sends nothing but 1xx."""

    def endless(self, sent: list[int]) -> Callable[[socket.socket], None]:
        def serve(connection: socket.socket) -> None:
            read_until(connection, b"\r\n\r\n")
            for _ in flood_time():
                connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000)
                sent[0] += 1

        return serve

    async def test_their_number_is_limited(self, mesh: Mesh) -> None:
        with on_thread(self.endless([0])) as endpoint:
            await mesh.serve(endpoint)
            reader, writer = await mesh.connect()
            writer.write(GET_CLOSE)
            received = 0
            async with asyncio.timeout(3):
                while (status := (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]) == b"103":
                    received += 1
                    assert received < 10_000
            assert status == b"502"
            assert mesh.count(columns.UPSTREAM_PROTOCOL_ERROR) == 1

    async def test_a_few_pass(self, mesh: Mesh) -> None:
        async def hints(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(8):
                writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        await mesh.serve(await mesh.endpoint(hints))
        assert (await mesh.ask(GET_CLOSE)).count(b"HTTP/1.1 103 Early Hints") == 8

    async def test_neighbours_are_served(self, mesh: Mesh) -> None:
        answered = [0]

        def ask_again_and_again(key: tuple[str, int]) -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    with socket.create_connection(key, timeout=30) as connection:
                        connection.sendall(GET_CLOSE)
                        while not stop.is_set() and connection.recv(1024 * 1024):
                            pass
                    answered[0] += 1

        stop = threading.Event()
        sent = [0]
        with on_thread(self.endless(sent)) as endpoint:
            flooded = await mesh.serve(endpoint)
            await mesh.serve(await mesh.endpoint(answering()))
            for _ in range(2):
                threading.Thread(target=ask_again_and_again, args=(flooded.key,), daemon=True).start()
            try:
                await until(lambda: answered[0] or sent[0])
                await neighbour_is_served(mesh, lambda: answered[0])
            finally:
                stop.set()


class TestPipelines:
    """Very many requests at once, all of which the mesh answers itself."""

    @pytest.mark.parametrize("clients", [1, 4])
    async def test_neighbours_are_served(self, mesh: Mesh, clients: int) -> None:
        flooded = await mesh.serve()
        await mesh.serve(await mesh.endpoint(answering()))
        with flooding(flooded, GET * 10_000, clients=clients) as floods:
            await until(lambda: mesh.count(columns.MESH_RESPONSES))
            await neighbour_is_served(mesh, lambda: mesh.count(columns.MESH_RESPONSES))
            assert all(flood.sent for flood in floods)

    async def test_they_do_not_keep_the_loop(self, mesh: Mesh) -> None:
        """One write of very many requests, and how long the loop works before a timer has its turn.

        In CPU time: how busy the machine is does not matter.
        """
        await mesh.serve()
        longest = 0.0
        reader, writer = await mesh.connect()
        writer.write(GET * 50_000 + GET_CLOSE)
        reading = asyncio.create_task(reader.read(-1))
        while not reading.done():
            before = time.process_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.process_time() - before)
        assert (await reading).count(b"HTTP/1.1 503 ") == 50_001
        assert longest < LONGEST_WAIT / 5
