"""Which client makes a worker hold most, and how it is reset."""

from __future__ import annotations

import asyncio

import pytest

from tests.dataplane.harness import Mesh, answering, until

KIB = 1024
HEAD = b"GET / HTTP/1.1\r\nHost: web\r\n"


async def connect(mesh: Mesh, source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert mesh.listener is not None
    reader, writer = await asyncio.open_connection(*mesh.listener.key, local_addr=(source, 0))
    mesh.writers.append(writer)
    return reader, writer


async def held_by(mesh: Mesh, source: str, least: int) -> int:
    """Wait until this is the source that holds most, and return how much."""

    def most() -> int:
        found = mesh.proxy.runtime.greediest()
        return found.held if found is not None and found.source == source and found.held >= least else 0

    await until(most)
    return most()


async def test_nobody_holds_anything(mesh: Mesh) -> None:
    await mesh.serve(await mesh.endpoint(answering()))
    assert mesh.proxy.runtime.greediest() is None


async def test_a_head_that_does_not_end_is_held_and_its_source_broken_off(mesh: Mesh) -> None:
    await mesh.serve(await mesh.endpoint(answering()))
    good_reader, good = await connect(mesh, "127.0.0.2")
    greedy_reader, greedy = await connect(mesh, "127.0.0.3")
    greedy.write(HEAD + b"X: " + b"x" * 40 * KIB)
    held = await held_by(mesh, "127.0.0.3", 40 * KIB)
    assert held < 42 * KIB
    mesh.proxy.runtime.break_off("127.0.0.3")
    with pytest.raises(ConnectionResetError):
        await greedy_reader.read()
    good.write(HEAD + b"Connection: close\r\n\r\n")
    assert (await good_reader.read()).endswith(b"ok")


async def test_requests_sent_ahead_and_a_response_that_is_not_read_are_held(mesh: Mesh) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b"x" * 64 * KIB)
            await writer.drain()

    await mesh.serve(await mesh.endpoint(endless))
    _, writer = await connect(mesh, "127.0.0.3")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write((HEAD + b"\r\n") * 1000)
    assert await held_by(mesh, "127.0.0.3", 50 * KIB) < 400 * KIB


async def test_a_body_kept_for_another_try_is_held(mesh: Mesh) -> None:
    await mesh.serve(mesh.unreachable())
    _, writer = await connect(mesh, "127.0.0.3")
    writer.write(b"PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 40 * KIB)
    await held_by(mesh, "127.0.0.3", 40 * KIB)


async def test_what_comes_before_a_tcp_endpoint_is_there_is_held(mesh: Mesh) -> None:
    await mesh.serve(mesh.unreachable(), protocol="tcp")
    _, writer = await connect(mesh, "127.0.0.3")
    writer.write(b"x" * 20 * KIB)
    await held_by(mesh, "127.0.0.3", 10 * KIB)
