"""Endpoints of which one is slow: `python -m hack.bench.uneven_backend PORT ADDRESS=MILLISECONDS...`.

Each serves `AT_ONCE` requests at a time, and lets further ones wait, as a server with a pool of threads does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import uvloop

AT_ONCE: Final = 4
_HEAD_END: Final = b"\r\n\r\n"
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def _serve(port: int, endpoints: list[tuple[str, float]]) -> None:
    for address, seconds in endpoints:
        free = asyncio.Semaphore(AT_ONCE)

        async def handle(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            free: asyncio.Semaphore = free,
            seconds: float = seconds,
        ) -> None:
            try:
                while True:
                    await reader.readuntil(_HEAD_END)
                    async with free:
                        await asyncio.sleep(seconds)
                    writer.write(_ANSWER)
            except (ConnectionError, asyncio.IncompleteReadError):
                return
            finally:
                writer.close()

        await asyncio.start_server(handle, address, port, backlog=1024)
    await asyncio.get_running_loop().create_future()


def main() -> None:
    """Serve until killed."""
    port, *endpoints = sys.argv[1:]
    pairs = [one.split("=") for one in endpoints]
    uvloop.run(_serve(int(port), [(address, float(ms) / 1e3) for address, ms in pairs]))


if __name__ == "__main__":
    main()
