"""One agent for all tests of this folder, and the servers that several of them use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.kit.ports import LOCALHOST, free_port, listens
from hack.kit.processes import Process, wait_until
from tests.interop.mesh import InteropMesh, built

Start = Callable[..., int]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="package")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteropMesh]:
    """A whole agent in loopback capture, without Services."""
    mesh = InteropMesh(tmp_path_factory.mktemp("interop"))
    yield mesh
    mesh.close()


@pytest.fixture(scope="package")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start servers: `PORT` on a command line becomes a port, which is returned once they listen."""
    processes: list[Process] = []
    logs: Path = tmp_path_factory.mktemp("servers")

    def start(*command: str) -> int:
        port = free_port()
        words = [word.replace("PORT", str(port)) for word in command]
        process = Process(Path(words[0]).name, words, logs / f"{len(processes)}.log", cwd=ROOT)
        processes.append(process)
        wait_until(lambda: listens(LOCALHOST, port), process)
        return port

    yield start
    for process in processes:
        process.stop()


@pytest.fixture(scope="package")
def go_http(start: Start) -> int:
    """The port of a server of Go's net/http, for HTTP/1.1 and HTTP/2."""
    return start(built("h2peer"), "serve-http", f"{LOCALHOST}:PORT")


@pytest.fixture(scope="package")
def go_grpc(start: Start) -> int:
    """The port of a server of Go's gRPC."""
    return start(built("h2peer"), "serve-grpc", f"{LOCALHOST}:PORT")
