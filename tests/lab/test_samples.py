"""The sample servers, on loopback: what the demo and the end-to-end tests rely on."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

REQUEST = "{method} {target} HTTP/1.1\r\nHost: sample\r\nContent-Length: {length}\r\n\r\n"


@asynccontextmanager
async def running(sample: str, *options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A sample at a free port of 127.0.0.1, by what it prints."""
    with_port = await free_port()
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            f"hack.samples.{sample}",
            "--name",
            "a",
            "--listen",
            f"127.0.0.1:{with_port}",
        ),
        *options,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            line = await process.stdout.readline()
            assert line == f"{sample}: listening on 127.0.0.1:{with_port}\n".encode()
            yield process, with_port
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def free_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def ask(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], target: str, body: bytes = b""
) -> tuple[int, dict[str, object]]:
    reader, writer = streams
    head = REQUEST.format(method="POST" if body else "GET", target=target, length=len(body))
    writer.write(head.encode() + body)
    return await read_answer(reader)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, object]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


async def test_whoami_says_who_answered() -> None:
    async with running("whoami", "--status", "503") as (_, port):
        streams = await asyncio.open_connection("127.0.0.1", port)
        status, answer = await ask(streams, "/x?status=201", b"12345")
        assert status == 201
        assert (answer["name"], answer["address"], answer["peer"]) == ("a", "127.0.0.1", "127.0.0.1")
        assert (answer["method"], answer["path"], answer["body_bytes"]) == ("POST", "/x?status=201", 5)
        assert answer["headers"] == {"host": "sample", "content-length": "5"}
        assert (await ask(streams, "/"))[0] == 503
        assert (await ask(streams, "/?delay=soon"))[0] == 400
        streams[1].close()


async def test_whoami_answers_what_is_in_flight_and_closes_what_is_idle() -> None:
    async with running("whoami") as (process, port):
        idle, busy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await ask(idle, "/")
        await ask(busy, "/")
        busy[1].write(REQUEST.format(method="GET", target="/?delay=0.3", length=0).encode())
        await ask(idle, "/")
        process.terminate()
        assert await idle[0].read() == b""
        assert (await read_answer(busy[0]))[0] == 200
        assert await process.wait() == 0
        for _, writer in (idle, busy):
            writer.close()


async def test_echo_speaks_first_and_half_closes() -> None:
    async with running("echo", "--banner") as (process, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.readline() == b"220 a ready\r\n"
        writer.write(b"x" * 300_000)
        writer.write_eof()
        assert await reader.read(-1) == b"x" * 300_000
        writer.close()
        process.terminate()
        assert await process.wait() == 0


async def test_echo_lets_open_connections_end() -> None:
    async with running("echo") as (process, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"one\n")
        assert await reader.readline() == b"one\n"
        process.terminate()
        writer.write(b"two\n")
        assert await reader.readline() == b"two\n"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert await process.wait() == 0
