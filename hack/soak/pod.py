"""A good endpoint of all HTTP Services: `python -m hack.soak.pod --address 127.0.0.1 --ports 80,81 --name a`.

`/` answers with JSON that has the request's fields; `/delay/SECONDS` does it later, `/status/CODE` with that
status. `/bytes/N` answers N bytes of a pattern that can be checked, `/chunked/N` the same without a length.
`/sum` takes a body and answers with its size and CRC; `/tunnel` is a WebSocket that sends back what it gets.
On SIGTERM it leaves as a well-behaved pod does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import zlib
from collections.abc import Sequence

import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler

from hack.kit.waiting import until_async

GRACE = 25.0
"""Seconds that requests in flight may take after SIGTERM."""
LAST_BYTES = 2.0
"""Seconds that the end of a response may take to get through then."""
PIECE = 64 * 1024
PERIOD = 251
PATTERN = bytes(range(PERIOD)) * (PIECE // PERIOD + 2)
"""Any piece of the endless pattern, of at most `PIECE` bytes, is in this from within its first period on."""


def expected(offset: int, size: int) -> bytes:
    """Return `size` bytes, at most `PIECE`, of the pattern from `offset` on."""
    start = offset % PERIOD
    return PATTERN[start : start + size]


class Active:
    """How many requests and tunnels are under way. aiohttp cuts tunnels short when it shuts down."""

    def __init__(self) -> None:
        self.count = 0


def make_app(name: str, active: Active) -> web.Application:
    """Return the application: answers as `name`."""

    @web.middleware
    async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
        active.count += 1
        try:
            return await handler(request)
        finally:
            active.count -= 1

    def described(request: web.Request, status: int = 200) -> web.Response:
        fields = {key.lower(): value for key, value in request.headers.items()}
        return web.json_response({"name": name, "headers": fields}, status=status)

    async def plain(request: web.Request) -> web.Response:
        return described(request)

    async def delay(request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.match_info["seconds"]))
        return described(request)

    async def status(request: web.Request) -> web.Response:
        return described(request, int(request.match_info["code"]))

    async def stream(request: web.Request) -> web.StreamResponse:
        size = int(request.match_info["size"])
        response = web.StreamResponse()
        if request.path.startswith("/bytes/"):
            response.content_length = size
        await response.prepare(request)
        sent = 0
        while sent < size:
            piece = expected(sent, min(PIECE, size - sent))
            await response.write(piece)
            sent += len(piece)
        await response.write_eof()
        return response

    async def add_up(request: web.Request) -> web.Response:
        size = crc = 0
        async for piece in request.content.iter_any():
            size += len(piece)
            crc = zlib.crc32(piece, crc)
        return web.json_response({"name": name, "bytes": size, "crc": crc})

    async def tunnel(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        async for message in socket:
            if message.type == web.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    app = web.Application(client_max_size=0, middlewares=[counted])
    app.router.add_get("/", plain)
    app.router.add_get("/delay/{seconds}", delay)
    app.router.add_get("/status/{code}", status)
    app.router.add_get("/{kind:bytes|chunked}/{size}", stream)
    app.router.add_post("/sum", add_up)
    app.router.add_get("/tunnel", tunnel)
    return app


async def serve(name: str, address: str, ports: Sequence[int]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    active = Active()
    runner = web.AppRunner(make_app(name, active), access_log=None, shutdown_timeout=LAST_BYTES)
    await runner.setup()
    try:
        sites = [web.TCPSite(runner, address, port, reuse_address=True) for port in ports]
        for site in sites:
            await site.start()
        print(f"pod: listening on {address}", flush=True)
        await stop.wait()
        for site in sites:
            await site.stop()
        with contextlib.suppress(TimeoutError):
            await until_async(lambda: not active.count, GRACE, 0.05)
    finally:
        await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the endpoint in the foreground."""
    parser = argparse.ArgumentParser(
        prog="pod", description="A good endpoint of all HTTP Services of a soak."
    )
    parser.add_argument("--address", required=True)
    parser.add_argument("--ports", required=True, help="separated by commas")
    parser.add_argument("--name", required=True)
    given = parser.parse_args(arguments)
    ports = [int(port) for port in given.ports.split(",")]
    uvloop.run(serve(given.name, given.address, ports))


if __name__ == "__main__":
    main()
