"""A TCP proxy before the API server that does to connections what networks do to them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

RESET = struct.pack("ii", 1, 0)
Result = TypeVar("Result")


class Gate:
    """Passes bytes to a port of 127.0.0.1, from a thread of its own, until told otherwise."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = True
        self._pairs: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._dead: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Gate:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        ).result(10)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- weather ---------------------------------------------------------------------------------------

    def cut(self) -> int:
        """Reset every connection there is, and return how many; new ones pass."""
        return self._act(self._reset_all)

    def shut(self) -> None:
        """Reset every connection, and each new one at once."""
        self._act(partial(self._set_open, False))
        self._act(self._reset_all)

    def open(self) -> None:
        """Let new connections pass."""
        self._act(partial(self._set_open, True))

    def lose(self) -> int:
        """Forget the connections, as a firewall does: they hang, new ones pass. Returns how many."""

        def forget() -> int:
            self._dead.update(self._pairs)
            return len(self._pairs)

        return self._act(forget)

    def stall(self) -> None:
        """Hold all bytes back, of new connections too, until `flow`."""
        self._act(self._flowing.clear)

    def flow(self) -> None:
        """Let bytes pass again."""
        self._act(self._flowing.set)

    # -- connections -----------------------------------------------------------------------------------

    def _act(self, action: Callable[[], Result]) -> Result:
        async def run() -> Result:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._open:
                await self._join(reader, client)
            else:
                _reset(client)
        except (OSError, asyncio.CancelledError):
            _reset(client)
        finally:
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_connection("127.0.0.1", self._target)
        self._pairs[client] = server
        try:
            await asyncio.gather(self._copy(reader, server, client), self._copy(answers, client, client))
        finally:
            del self._pairs[client]
            self._dead.discard(client)
            _reset(server)
            _reset(client)

    async def _copy(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(65536):
            await self._flowing.wait()
            if client not in self._dead:
                sink.write(data)
                await sink.drain()
        if client not in self._dead:
            raise ConnectionResetError

    def _set_open(self, open_: bool) -> None:
        self._open = open_

    def _reset_all(self) -> int:
        count = len(self._pairs)
        for client, server in list(self._pairs.items()):
            _reset(client)
            _reset(server)
        return count

    async def _close(self) -> None:
        self._server.close()
        self._flowing.set()
        self._reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as if the cable were cut: with a reset, and nothing that was still to be sent."""
    with contextlib.suppress(OSError):
        raw: socket.socket | None = writer.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
