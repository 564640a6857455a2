"""The sockets under a connection, on the loop that the agent runs on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterator

import aiohttp
import pytest
import uvloop

from discovery.kube.connection import make_socket

ATTEMPTS = 90


@contextlib.contextmanager
def resetting_server() -> Iterator[int]:
    """A server that resets each connection as soon as it is there, as a proxy with nothing behind does."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            while not stop.is_set():
                connection, _ = listener.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield port
        finally:
            stop.set()
            with socket.create_connection(("127.0.0.1", port)):
                thread.join()


async def connect_in_vain(port: int) -> list[BaseException]:
    """Try TLS connections, from three tasks, and return why they failed."""
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(), limit=2, socket_factory=make_socket)
    failures: list[BaseException] = []

    async def attempt(session: aiohttp.ClientSession) -> None:
        for _ in range(ATTEMPTS // 3):
            try:
                await session.get(f"https://127.0.0.1:{port}/")
            except (aiohttp.ClientError, RuntimeError) as error:
                failures.append(error.with_traceback(None))

    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(attempt(session) for _ in range(3)))
    return failures


def test_connections_that_fail_close_nothing_of_each_other() -> None:
    with resetting_server() as port:
        failures = uvloop.run(connect_in_vain(port))
    assert len(failures) == ATTEMPTS
    # EBADF, or uvloop's "File descriptor 15 is used by transport", where a number was closed twice.
    assert [failure for failure in failures if not isinstance(failure, aiohttp.ClientConnectorError)] == []
    allowed = {errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE}
    assert {f.os_error.errno for f in failures if isinstance(f, aiohttp.ClientConnectorError)} <= allowed


def test_a_socket_that_was_dropped_is_not_closed_but_one_that_is_told_to_is() -> None:
    address = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 0))
    made = make_socket(address)
    assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    number = made.fileno()
    del made
    os.close(number)  # refused if it was closed before
    made = make_socket(address)
    number = made.fileno()
    made.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
