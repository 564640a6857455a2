"""One agent for all tests of this folder, and the servers that several of them use."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from hack.kit.ports import LOCALHOST, free_port, listens
from hack.kit.processes import Process, wait_until
from tests.interop.mesh import NODE_PEER, InteropMesh, built, installed

ROOT = Path(__file__).parents[2]


class Server(msgspec.Struct, frozen=True):
    """A server that runs; `log` is what it says."""

    port: int
    log: Path

    def asked(self) -> list[str]:
        """Return the requests that it has told of."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line.removeprefix("asked ") for line in lines if line.startswith("asked ")]


Start = Callable[..., Server]


@pytest.fixture(scope="package")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteropMesh]:
    """A whole agent in loopback capture, without Services."""
    mesh = InteropMesh(tmp_path_factory.mktemp("interop"))
    yield mesh
    mesh.close()


@pytest.fixture(scope="package")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start servers and wait until they listen; `PORT` on a command line becomes their port."""
    processes: list[Process] = []
    logs: Path = tmp_path_factory.mktemp("servers")

    def start(*command: str, port: int = 0) -> Server:
        port = port or free_port()
        words = [word.replace("PORT", str(port)) for word in command]
        log = logs / f"{len(processes)}.log"
        process = Process(Path(words[0]).name, words, log, cwd=ROOT)
        processes.append(process)
        wait_until(lambda: listens(LOCALHOST, port), process)
        return Server(port, log)

    yield start
    for process in processes:
        process.stop()


@pytest.fixture(scope="package")
def go_http(start: Start) -> Server:
    """A server of Go's net/http, for HTTP/1.1 and HTTP/2."""
    return start(built("h2peer"), "serve-http", f"{LOCALHOST}:PORT")


@pytest.fixture(scope="package")
def go_grpc(start: Start) -> Server:
    """A server of Go's gRPC."""
    return start(built("h2peer"), "serve-grpc", f"{LOCALHOST}:PORT")


@pytest.fixture(scope="package")
def node_server(start: Start) -> Callable[[str], Server]:
    """Start a server of Node's that speaks `http` or `http2`, once."""

    @functools.cache
    def started(protocol: str) -> Server:
        return start(installed("node", "nodejs"), NODE_PEER, f"serve-{protocol}", f"{LOCALHOST}:PORT")

    return started
