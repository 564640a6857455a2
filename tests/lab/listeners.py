"""Run on a node of the lab: stands for workers and DNS, and for what else listens on a node.

A worker answers each connection with one JSON line, `[peer address, original address, original port]`, and
sends back every line it gets. The others answer with their own name.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

SO_ORIGINAL_DST = 80


async def answer_as_worker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    packed = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    port, address = struct.unpack("!2xH4s8x", packed)
    said = [writer.get_extra_info("peername")[0], socket.inet_ntoa(address), port]
    writer.write(json.dumps(said).encode() + b"\n")
    while line := await reader.readline():
        writer.write(line)
    writer.close()


async def answer_as_dns(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"dns tcp\n")
    writer.close()


async def answer_as_node(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"node\n")
    writer.close()


class UdpEcho(asyncio.DatagramProtocol):
    def __init__(self, name: bytes) -> None:
        self._name = name

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(self._name + b" " + addr[0].encode(), addr)


async def main() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.start_server(answer_as_worker, "240.0.0.1", 15001)
    await asyncio.start_server(answer_as_dns, "240.0.0.53", 15053)
    await asyncio.start_server(answer_as_node, "0.0.0.0", 2222)
    await loop.create_datagram_endpoint(lambda: UdpEcho(b"dns"), local_addr=("240.0.0.53", 15053))
    await loop.create_datagram_endpoint(lambda: UdpEcho(b"node"), local_addr=("0.0.0.0", 9999))
    print("listening", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
