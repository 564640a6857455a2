"""The far end of port forwarding for tests: what a kubelet does with the WebSocket of a pod's port."""

from __future__ import annotations

import asyncio
import contextlib
import struct

from aiohttp import WSMsgType, web


async def open_forward(request: web.Request) -> web.WebSocketResponse:
    """Accept port forwarding; the first message of each channel repeats the port."""
    socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
    await socket.prepare(request)
    for channel in (b"\x00", b"\x01"):
        await socket.send_bytes(channel + struct.pack("<H", int(request.query["ports"])))
    return socket


async def pump(socket: web.WebSocketResponse, host: str, port: int) -> None:
    """Carry bytes between a client and an address until one of them ends; errors go to their channel."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        await socket.send_bytes(b"\x01" + str(error).encode())
        await socket.close()
        return

    async def back() -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await socket.send_bytes(b"\x00" + data)
            await socket.close()

    task = asyncio.create_task(back())
    async for message in socket:
        if message.type is WSMsgType.BINARY and message.data[0] == 0:
            writer.write(message.data[1:])
    task.cancel()
    writer.close()
