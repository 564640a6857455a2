"""A whole agent: no input makes it hold, or spend in CPU, a hundred times what its sender has sent, or spent.

This is where Envoy draws its line between load and a vulnerability. Memory is the peak of the worker's
resident set, counted by the kernel. CPU is what the kernel has charged the process, and the sender's thread,
which writes every frame itself: not the time that has passed, so a busy machine makes no difference. Of an
attack that seems to be too much, the best of three counts.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import msgspec
import pytest

from hack.kit.ports import LOCALHOST
from hack.kit.waiting import until
from tests.exchange.floods import FLOODS
from tests.http2.attacks import ATTACKS, Attack
from tests.http2.wire import HELLO
from tests.interop.mesh import InteropMesh
from tests.interop.recorder import Recorder

TIMES = 100
CONNECTION = 640 * 1024
"""Bytes that a connection may take whatever it has sent, as in tests/http2."""
PIECE = 16 * 1024
STILL = 500_000
"""Nanoseconds of CPU within which a process has nothing to do between two looks: it has timers."""
TRIES = 3
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(),
    reason="needs /proc/PID/schedstat of Linux",
)


class Cost(msgspec.Struct, frozen=True):
    """Bytes that were sent, bytes by which a process became larger, and seconds of CPU of both."""

    sent: int
    held: int
    paid: float
    spent: float

    @property
    def too_much(self) -> bool:
        """Whether it is an amplification."""
        return self.held > TIMES * self.sent + CONNECTION or self.spent > TIMES * self.paid


def cpu(pid: int) -> int:
    """Return the nanoseconds of CPU that a process has had."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)


def peak(pid: int) -> int:
    """Return the largest resident set of a process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def settle(pid: int) -> None:
    """Wait until a process has nothing more to do."""
    looks = [cpu(pid)]

    def still() -> bool:
        looks.append(cpu(pid))
        return len(looks) > 3 and looks[-1] - looks[-4] < STILL

    until(still)


def measure(pid: int, send: Callable[[], int]) -> Cost:
    """Return what it costs a process that `send` says something to it, and returns how many bytes."""
    settle(pid)
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # forgets the peak
    large, had, began = peak(pid), cpu(pid), time.thread_time()
    sent = send()
    paid = time.thread_time() - began
    settle(pid)
    return Cost(sent, peak(pid) - large, paid, (cpu(pid) - had) / 1e9)


def check(pid: int, send: Callable[[], int]) -> None:
    """Check that it is no amplification."""
    costs = [measure(pid, send)]
    while costs[-1].too_much and len(costs) < TRIES:
        costs.append(measure(pid, send))
    assert not costs[-1].too_much, costs


def pieces(attack: Attack) -> Iterator[bytes]:
    """Write the attack, as much at once as a socket takes."""
    piece = bytearray()
    for said in attack.write():
        piece += said
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def sender(address: tuple[str, int], greeting: bytes, attack: Attack) -> Callable[[], int]:
    """Return what makes the attack on a connection of its own, and reads what comes back."""

    def send() -> int:
        with socket.create_connection(address) as connection:
            connection.sendall(greeting)
            connection.setblocking(False)
            sent = len(greeting)
            with contextlib.suppress(ConnectionError, BlockingIOError):
                for piece in pieces(attack):
                    sent += _send(connection, piece)
                while _readable(connection):
                    if not connection.recv(PIECE):
                        break
        return sent

    return send


def _send(connection: socket.socket, piece: bytes) -> int:
    """Send all of it, as far as the far side takes it."""
    left = piece
    while left:
        readable, writable, _ = select.select([connection], [connection], [], 0.2)
        if readable and not connection.recv(PIECE):
            raise ConnectionResetError
        if writable:
            left = left[connection.send(left) :]
        elif not readable:
            raise BlockingIOError
    return len(piece)


def _readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0.1)[0])


@pytest.fixture(scope="module")
def address(mesh: InteropMesh) -> Iterator[tuple[str, int]]:
    """A Service with an endpoint that answers."""
    with Recorder().running() as port:
        yield mesh.serve(port, "http")


@pytest.fixture(scope="module")
def worker(mesh: InteropMesh) -> int:
    """The worker's process, after first requests."""
    (pid,) = mesh.agent.workers()
    return pid


@pytest.mark.parametrize("attack", FLOODS, ids=[attack.name for attack in FLOODS])
def test_http1(address: tuple[str, int], worker: int, attack: Attack) -> None:
    check(worker, sender(address, b"", attack))


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_http2(address: tuple[str, int], worker: int, attack: Attack) -> None:
    check(worker, sender(address, HELLO, attack))


def question(name: str, kind: str) -> bytes:
    """Write a query."""
    return dns.message.make_query(name, kind).to_wire()


QUERIES = 200
"""So many fit into the buffer of a socket."""
ZONE = "svc.mesh."
QUESTIONS: dict[str, Callable[[int], bytes]] = {
    "names that are there": lambda _number: question(f"service-1.interop.{ZONE}", "A"),
    "names that are not there": lambda number: question(f"n{number}.interop.{ZONE}", "A"),
    "long names": lambda number: question(f"{'a.' * 100}n{number}.{ZONE}", "AAAA"),
    "all kinds": lambda _number: question(f"service-1.interop.{ZONE}", "ANY"),
    "names of others": lambda number: question(f"n{number}.example.org.", "TXT"),
    "names that point at themselves": lambda _number: bytes.fromhex("0001010000010000000000 00c00c00010001"),
    "no question": lambda number: number.to_bytes(2, "big") + bytes(10),
    "junk": lambda number: bytes((number % 256,)) * 500,
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_dns(mesh: InteropMesh, address: tuple[str, int], name: str) -> None:
    assert address
    queries = [QUESTIONS[name](number) for number in range(QUERIES)]

    def send() -> int:
        sent = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((LOCALHOST, mesh.agent.dns_port))
            for query in queries:
                sent += asking.send(query)
        return sent

    check(mesh.agent.process.pid, send)
