"""TCP ports: bytes both ways, half-close, server-first, backpressure, refusal."""

from __future__ import annotations

import asyncio
import socket

import pytest

from discovery.model import Endpoint
from nodeagent.stats import columns
from tests.dataplane.harness import Mesh, until
from tests.dataplane.test_resilience import closed_port, reset_on_close


async def test_server_first_then_both_ways(mesh: Mesh) -> None:
    async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        while line := await reader.readline():
            writer.write(line.upper())

    await mesh.serve(await mesh.endpoint(banner), protocol="tcp")
    reader, writer = await mesh.connect()
    assert await reader.readline() == b"220 ready\r\n"
    writer.write(b"hello\n")
    assert await reader.readline() == b"HELLO\n"
    await until(lambda: mesh.count(columns.BYTES_RECEIVED) == 6)
    assert mesh.count(columns.BYTES_SENT) == len(b"220 ready\r\nHELLO\n")


async def test_half_close_in_both_directions(mesh: Mesh) -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        everything = await reader.read(-1)
        writer.write(b"%d bytes" % len(everything))

    await mesh.serve(await mesh.endpoint(answer_at_the_end), protocol="tcp")
    reader, writer = await mesh.connect()
    writer.write(b"x" * 1000)
    writer.write_eof()
    assert await reader.read(-1) == b"1000 bytes"
    await until(lambda: not mesh.proxy.runtime.connections)


async def test_bytes_sent_before_the_endpoint_is_connected_are_kept(mesh: Mesh) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(-1))

    await mesh.serve(await mesh.endpoint(echo), protocol="tcp")
    for _ in range(20):
        reader, writer = await mesh.connect()
        writer.write(b"early")
        writer.write_eof()
        assert await reader.read(-1) == b"early"


async def test_another_endpoint_when_one_refuses(mesh: Mesh) -> None:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")

    await mesh.serve(closed_port(), await mesh.endpoint(hello), protocol="tcp")
    for _ in range(4):
        reader, _ = await mesh.connect()
        assert await reader.read(-1) == b"hello"


async def test_no_endpoint_resets_the_client(mesh: Mesh) -> None:
    await mesh.serve(closed_port(), protocol="tcp")
    reader, _ = await mesh.connect()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    assert mesh.count(columns.UPSTREAM_CONNECT_FAILED) == 1


async def test_large_transfer_with_a_slow_reader(mesh: Mesh) -> None:
    size = 16 * 1024 * 1024

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        block = b"y" * 65536
        for _ in range(size // len(block)):
            writer.write(block)
            await writer.drain()

    await mesh.serve(await mesh.endpoint(send), protocol="tcp")
    reader, _ = await mesh.connect()
    received = 0
    while data := await reader.read(100_000):
        received += len(data)
        await asyncio.sleep(0)
    assert received == size


async def test_a_reset_endpoint_resets_the_client(mesh: Mesh) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        reset_on_close(writer)

    await mesh.serve(await mesh.endpoint(break_off), protocol="tcp")
    reader, writer = await mesh.connect()
    writer.write(b"hello and more")
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)


async def test_what_is_kept_for_an_endpoint_that_does_not_answer_is_bounded(mesh: Mesh) -> None:
    """The endpoint's backlog is full, so connecting to it hangs, while the client sends and sends."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        blockers = [socket.socket() for _ in range(4)]
        for blocker in blockers:
            blocker.setblocking(False)
            blocker.connect_ex(full.getsockname())
        await mesh.serve(Endpoint("127.0.0.1", full.getsockname()[1]), protocol="tcp")
        _, writer = await mesh.connect()
        writer.write(bytes(32 * 1024 * 1024))
        await until(lambda: mesh.count(columns.BYTES_RECEIVED))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.5)
        assert 0 < mesh.count(columns.BYTES_RECEIVED) < 1024 * 1024
        for blocker in blockers:
            blocker.close()
