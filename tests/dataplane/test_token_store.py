"""The cluster's limits in a real Redis or Valkey, and in the face of one that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hack.debian import can_install, install
from middleware.cluster_limit import AWAY
from middleware.contract import Grant
from nodeagent.settings import Limits, StoreAddress
from nodeagent.worker import token_store
from nodeagent.worker.token_store import RedisTokens, StoreConnection, command
from tests.dataplane.harness import Mesh, answering, until

PASSWORD = "s3cret phrase"
PROGRAMS = ("valkey-server", "redis-server")


@pytest.fixture(scope="session")
def program() -> str:
    found = next(filter(shutil.which, PROGRAMS), None)
    if found is None and can_install():
        install(["redis-server"])
        found = next(filter(shutil.which, PROGRAMS), None)
    if found is None:
        pytest.skip("neither valkey-server nor redis-server is here (Debian has both)")
    return found


class Server:
    """A store of our own, with a password; it can be stopped and started again."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    async def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self.process = self._run([self.program, *options, "--requirepass", PASSWORD])
        await until(self._listens)

    @staticmethod
    def _run(command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()

    def address(self, password: str = PASSWORD, database: int = 3) -> StoreAddress:
        file = self.folder / "password"
        file.write_text(f"{password}\n")
        return StoreAddress("127.0.0.1", self.port, "", database, str(file))


@pytest.fixture
def server(program: str, tmp_path: Path) -> Iterator[Server]:
    server = Server(program, tmp_path)
    yield server
    server.stop()


@pytest.fixture
async def tokens() -> AsyncIterator[Callable[[StoreAddress], RedisTokens]]:
    made: list[RedisTokens] = []

    def make(address: StoreAddress) -> RedisTokens:
        made.append(RedisTokens(asyncio.get_running_loop(), address))
        return made[-1]

    yield make
    for one in made:
        one.close()
    await asyncio.sleep(0)


async def take(
    store: RedisTokens, most: int = 1, *, key: str = "k", interval: float = 3600.0, burst: int = 10
) -> Grant | None:
    answered: asyncio.Future[Grant | None] = asyncio.get_running_loop().create_future()
    store.take(key, interval, burst, most, answered.set_result)
    async with asyncio.timeout(10):
        return await answered


Make = Callable[[StoreAddress], RedisTokens]


async def test_workers_share_a_limit(server: Server, tokens: Make) -> None:
    await server.start()
    one, two = tokens(server.address()), tokens(server.address())
    assert await take(one, 6) == Grant(6, 0.0)
    assert await take(two, 6) == Grant(4, 0.0)
    refused = await take(one)
    assert refused is not None
    assert refused.count == 0
    assert 3590 < refused.wait <= 3600
    assert await take(one, key="other") == Grant(1, 0.0)


async def test_tokens_come_back_with_time_up_to_the_burst(server: Server, tokens: Make) -> None:
    await server.start()
    store = tokens(server.address())
    assert await take(store, 5, interval=0.001, burst=5) == Grant(5, 0.0)
    await asyncio.sleep(0.05)  # at least so long: ten bursts
    assert await take(store, 100, interval=0.001, burst=5) == Grant(5, 0.0)


async def test_many_at_once_are_answered_in_order(server: Server, tokens: Make) -> None:
    await server.start()
    store = tokens(server.address())
    grants = await asyncio.gather(*(take(store, 1, burst=100, key=str(n % 2)) for n in range(250)))
    assert [grant.count for grant in grants if grant is not None] == [1] * 200 + [0] * 50


async def test_a_store_that_goes_and_comes_back(
    server: Server, tokens: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_store, "PAUSE", 0.01)
    await server.start()
    store = tokens(server.address())
    assert await take(store)
    with capture_logs() as logs:
        server.stop()
        await until(lambda: logs)
        assert await take(store) is None
        await server.start()
        found: list[Grant | None] = []

        def has_answered() -> bool:
            store.take("k", 1.0, 10, 1, found.append)
            return any(found)

        await until(has_answered)
    assert [line["event"] for line in logs] == ["token_store_lost", "token_store_back"]
    assert logs[0]["store"] == f"127.0.0.1:{server.port}"


async def test_a_wrong_password_is_said_and_not_shown(server: Server, tokens: Make) -> None:
    await server.start()
    store = tokens(server.address("wrong words"))
    with capture_logs() as logs:
        assert await take(store) is None
    assert [line["event"] for line in logs] == ["token_store_lost"]
    assert "WRONGPASS" in logs[0]["reason"]
    assert "wrong words" not in str(logs)


async def test_a_password_file_that_is_not_there(server: Server, tokens: Make) -> None:
    await server.start()
    store = tokens(StoreAddress("127.0.0.1", server.port, "", 0, "/nonexistent/password"))
    with capture_logs() as logs:
        assert await take(store) is None
    assert "/nonexistent/password" in logs[0]["reason"]


async def test_a_store_that_does_not_answer(tokens: Make) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    store = tokens(StoreAddress("127.0.0.1", server.sockets[0].getsockname()[1], "", 0, ""))
    with capture_logs() as logs:
        assert await take(store) is None
        assert await take(store) is None  # at once
    assert [line["reason"] for line in logs] == ["the store did not answer within 250ms"]
    server.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"-NOSCRIPT no such thing\r\n", "the store answered NOSCRIPT no such thing"),
        (b"$5\r\nhello\r\n:1\r\n", "the store answered something else than the script does"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n\r\n", "the store answered something else than the script does"),
        (b"x" * 70_000, "the store answered something that is not RESP"),
    ],
)
async def test_a_store_that_is_none(tokens: Make, answer: bytes, reason: str) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    store = tokens(StoreAddress("127.0.0.1", server.sockets[0].getsockname()[1], "", 0, ""))
    with capture_logs() as logs:
        assert await take(store) is None
    assert [line["reason"] for line in logs] == [reason]
    server.close()


@pytest.mark.parametrize("size", range(1, 12))
def test_answers_in_pieces(size: int) -> None:
    got: list[Grant | None] = []
    connection = StoreConnection([command("SELECT", "1")], lambda _reason: None)
    connection.pending.extend([(got.append, 0.0), (got.append, 0.0)])
    data = b"+OK\r\n*2\r\n:12\r\n:0\r\n*2\r\n:0\r\n:1500000\r\n"
    for start in range(0, len(data), size):
        connection.data_received(data[start : start + size])
    assert got == [Grant(12, 0.0), Grant(0, 1.5)]


async def test_requests_of_a_proxy(server: Server, tokens: Make) -> None:
    await server.start()
    get = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
    node = Mesh(Limits())
    node.proxy.runtime.tokens = tokens(server.address())
    try:
        annotations = {"svc.mesh/rate-limit": "3/h burst=3 scope=cluster away=closed"}
        await node.serve(await node.endpoint(answering()), annotations=annotations)
        answers = [await node.ask(get) for _ in range(4)]
        assert [answer.split(b" ")[1] for answer in answers] == [b"200", b"200", b"200", b"429"]
        assert b"\r\nRetry-After: " in answers[3]
        annotations = {"svc.mesh/rate-limit": "4/h burst=4 scope=cluster away=closed"}
        await node.serve(await node.endpoint(answering()), annotations=annotations)
        server.stop()
        refused = await node.ask(get)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b'details="rate_limit_unavailable: ' in refused
        assert node.metric("rate-limit", AWAY.name) == 1
    finally:
        await node.close()
