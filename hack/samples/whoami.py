"""An HTTP server that says who answered: `python -m hack.samples.whoami --listen 127.0.0.1:8080 --name a`.

It answers any method and path with JSON. `?status=503`, `?delay=0.2` (seconds) and `?bytes=1000` (padding)
change one answer, the flags change all. On SIGTERM it stops accepting, answers what is in flight, closes
idle connections and ends, as a well-behaved pod does.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Sequence

import uvloop
from aiohttp import web

GRACE = 25.0
"""Seconds that requests in flight may take after SIGTERM."""


def make_app(name: str, address: str, status: int = 200, delay: float = 0.0) -> web.Application:
    """Return the application: answers as `name` at `address`, with `status` after `delay` seconds."""

    async def answer(request: web.Request) -> web.Response:
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
        try:
            pause = float(request.query.get("delay", delay))
            code = int(request.query.get("status", status))
            padding = int(request.query.get("bytes", 0))
        except ValueError as error:
            return web.json_response({"name": name, "error": str(error)}, status=400)
        if pause:
            await asyncio.sleep(pause)
        body = {
            "name": name,
            "address": address,
            "peer": request.remote,
            "method": request.method,
            "path": request.path_qs,
            "headers": {key.lower(): value for key, value in request.headers.items()},
            "body_bytes": size,
        }
        if padding:
            body["padding"] = "x" * padding
        return web.json_response(body, status=code)

    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", answer)
    return app


async def serve(app: web.Application, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=GRACE)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_address=True).start()
        print(f"whoami: listening on {host}:{port}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the server in the foreground."""
    parser = argparse.ArgumentParser(prog="whoami", description="An HTTP server that says who answered.")
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="ADDR:PORT")
    parser.add_argument("--name", default="whoami")
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    given = parser.parse_args(arguments)
    host, _, port = given.listen.rpartition(":")
    uvloop.run(serve(make_app(given.name, host, given.status, given.delay), host, int(port)))


if __name__ == "__main__":
    main()
