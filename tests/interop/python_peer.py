"""Servers of Python's world that answer `hello TARGET`: run by the interpreter of `make interop-peers`.

    python python_peer.py gunicorn|uvicorn-h11|uvicorn-httptools|cheroot|aiohttp PORT

They write a line for each request, when all of it has come: what was asked, and the field x-marker.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import Any

HOST = "127.0.0.1"


def note(method: str, target: str, marker: str) -> bytes:
    """Tell of a request; return what it is answered with."""
    # In one piece: what `print` adds to end a line may come after the line of another thread.
    sys.stdout.write(f"asked {method} {target} {marker}\n")
    sys.stdout.flush()
    return f"hello {target}\n".encode()


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The application for gunicorn and cheroot."""
    while environ["wsgi.input"].read(65536):
        pass
    query = environ.get("QUERY_STRING", "")
    target = environ["PATH_INFO"] + (f"?{query}" if query else "")
    body = note(environ["REQUEST_METHOD"], target, environ.get("HTTP_X_MARKER", ""))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body] if environ["REQUEST_METHOD"] != "HEAD" else []


async def asgi(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """The application for uvicorn."""
    if scope["type"] != "http":
        return
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        return
    fields = dict(scope["headers"])
    query = scope["query_string"].decode()
    target = scope["raw_path"].decode() + (f"?{query}" if query else "")
    body = note(scope["method"], target, fields.get(b"x-marker", b"").decode("latin-1"))
    length = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


def serve_gunicorn(port: int) -> None:
    """A worker of threads, because the plain one keeps no connection."""
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            settings = {"bind": f"{HOST}:{port}", "worker_class": "gthread", "threads": 8, "keepalive": 30}
            for name, value in settings.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return wsgi

    Application().run()


def serve_uvicorn(port: int, http: str) -> None:
    """With its parser in Python, or with llhttp's predecessor in C."""
    import uvicorn

    uvicorn.run(asgi, host=HOST, port=port, http=http, loop="asyncio", lifespan="off", log_level="warning")


def serve_cheroot(port: int) -> None:
    from cheroot.wsgi import Server

    Server((HOST, port), wsgi, numthreads=8).start()


def serve_aiohttp(port: int) -> None:
    from aiohttp import web

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        body = note(request.method, request.path_qs, request.headers.get("X-Marker", ""))
        return web.Response(body=body)

    async def main() -> None:
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, HOST, port).start()
        await asyncio.Event().wait()

    asyncio.run(main())


SERVERS: dict[str, Callable[[int], None]] = {
    "gunicorn": serve_gunicorn,
    "uvicorn-h11": lambda port: serve_uvicorn(port, "h11"),
    "uvicorn-httptools": lambda port: serve_uvicorn(port, "httptools"),
    "cheroot": serve_cheroot,
    "aiohttp": serve_aiohttp,
}

if __name__ == "__main__":
    SERVERS[sys.argv[1]](int(sys.argv[2]))
