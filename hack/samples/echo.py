"""A TCP server that sends back what it gets: `python -m hack.samples.echo --listen 127.0.0.1:7000 --name a`.

With `--banner` it speaks first, as SMTP or MySQL do. When the client ends its half of the connection, the
rest is sent back and then our half ends. On SIGTERM it stops accepting and leaves once the open connections
have ended, at most `GRACE` seconds later.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Sequence

import uvloop

GRACE = 25.0
"""Seconds that open connections may last after SIGTERM."""
CHUNK = 64 * 1024


class EchoServer:
    """Answers connections at one address as `name`."""

    def __init__(self, name: str, banner: bool = False) -> None:
        self._greeting = f"220 {name} ready\r\n".encode() if banner else b""
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self, host: str, port: int) -> None:
        """Serve until SIGTERM or SIGINT, then let open connections end."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = await asyncio.start_server(self._accept, host, port, limit=CHUNK)
        print(f"echo: listening on {host}:{port}", flush=True)
        await stop.wait()
        server.close()
        if self._open:
            _, late = await asyncio.wait(self._open, timeout=GRACE)
            for task in late:
                task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._echo(reader, writer)
        except ConnectionError as error:
            print(f"echo: a client went away: {error}", flush=True)
        finally:
            self._open.discard(task)
            writer.close()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._greeting)
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the server in the foreground."""
    parser = argparse.ArgumentParser(prog="echo", description="A TCP server that sends back what it gets.")
    parser.add_argument("--listen", default="127.0.0.1:7000", metavar="ADDR:PORT")
    parser.add_argument("--name", default="echo")
    parser.add_argument("--banner", action="store_true", help="speak first: one line with the name")
    given = parser.parse_args(arguments)
    host, _, port = given.listen.rpartition(":")
    uvloop.run(EchoServer(given.name, given.banner).serve(host, int(port)))


if __name__ == "__main__":
    main()
