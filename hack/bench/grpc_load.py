"""gRPC by its own library: `python -m hack.bench.grpc_load serve PORT`, and `call HOST PORT` for the load.

Each of the callers waits for an answer before its next call; a message has 100 bytes, each way. `call` prints
JSON.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import click
import grpc
import msgspec

from hack.bench.figures import quantile
from hack.bench.load import HttpLoad
from hack.kit.ports import LOCALHOST

METHOD: Final = "/bench.Echo/Unary"
MESSAGE: Final = b"x" * 100
_OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
_WARM_UP: Final = 100
"""Calls before it counts: the connection is made, and the code has run once."""


async def _echo(request: bytes, _context: Any) -> bytes:
    return request


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, details: Any) -> Any:
        """Return what answers a call."""
        return grpc.unary_unary_rpc_method_handler(_echo) if details.method == METHOD else None


async def serve(port: int) -> None:
    """Serve until the process is told to end."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Handlers(),))
    server.add_insecure_port(f"{LOCALHOST}:{port}")
    await server.start()
    await server.wait_for_termination()


async def call(target: str, at_once: int, seconds: float) -> HttpLoad:
    """Call until the time is over; return how many calls were answered and how soon.

    Raises:
        grpc.aio.AioRpcError: one failed.
    """
    times: list[float] = []
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        unary = channel.unary_unary(METHOD)
        for _ in range(_WARM_UP):
            await unary(MESSAGE)
        began = time.perf_counter()

        async def caller() -> None:
            while (start := time.perf_counter()) - began < seconds:
                await unary(MESSAGE)
                times.append(time.perf_counter() - start)

        await asyncio.gather(*(caller() for _ in range(at_once)))
        took = time.perf_counter() - began
    p50, p99 = (round(quantile(times, percent) * 1e6) for percent in (50, 99))
    return HttpLoad(len(times) + _WARM_UP, round(took * 1e6), 2 * len(MESSAGE) * len(times), p50, p99, {})


@click.command("serve")
@click.argument("port", type=int)
def serve_command(port: int) -> None:
    """Serve at PORT of the loopback address."""
    asyncio.run(serve(port))


@click.command("call")
@click.argument("host")
@click.argument("port", type=int)
@click.option(
    "--at-once", type=click.IntRange(1), default=10, show_default=True, help="Calls at the same time."
)
@click.option("--seconds", type=click.FloatRange(0.1), default=2.0, show_default=True)
def call_command(host: str, port: int, at_once: int, seconds: float) -> None:
    """Call the server at HOST and PORT."""
    click.echo(msgspec.json.encode(asyncio.run(call(f"{host}:{port}", at_once, seconds))).decode())


main = click.Group(commands=[serve_command, call_command], help="One unary method, served and called.")

if __name__ == "__main__":
    main()
