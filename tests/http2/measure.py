"""Measures what an attack costs the mesh: memory against bytes sent, calls against those of its sender."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from tests.exchange.http1 import Http1Stage
from tests.http2.attacks import Attack

TIMES = 100
CONNECTION = 640 * 1024
"""Bytes that a connection may take whatever it has sent: a hundred streams, each some 4 KB with all that
forwarding it needs, and what is remembered of header blocks."""
SETTING_UP = 20_000
"""Calls that belong to a connection and its hundred streams, with those of the stage."""
BYTES_PER_CALL = 1000
"""Bytes that somebody can send for the price of a call of a function."""
PIECE = 16 * 1024


class Calls:
    """Counts calls of functions, also of those that are not Python's."""

    def __init__(self) -> None:
        self.count = 0

    def _note(self, _frame: object, event: str, _argument: object) -> None:
        if event in ("call", "c_call"):
            self.count += 1

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count those within the block."""
        before = sys.getprofile()
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(before)


def pieces(attack: Attack, paid: Calls) -> Iterator[bytes]:
    """Write the attack, as much at once as comes from a socket, and count what that costs."""
    frames_of = attack.write()
    while True:
        piece = b""
        with paid.counting():
            while len(piece) < PIECE and (said := next(frames_of, b"")):
                piece += said
        if not piece:
            return
        paid.count += len(piece) // BYTES_PER_CALL
        yield piece


def says(stage: Http1Stage, piece: bytes, peer: str = "client") -> list[str]:
    """Have a peer say something, without a note of it; return what it hears."""
    stage.wire(peer).says(piece)
    stage.loop.settle()
    heard = [str(what) for who, what in stage.log if who == peer]
    stage.log.clear()
    return heard


def held(stage: Http1Stage) -> int:
    """Return what the connections say that they hold."""
    return sum(one.held for one in stage.plane.runtime.connections)


def check_memory(stage: Http1Stage, attack: Attack, peer: str = "client") -> None:
    """Check what the mesh holds after each piece of an attack, and while it deals with it."""
    every = list(pieces(attack, Calls()))
    gc.collect()
    tracemalloc.start()
    try:
        before, sent = tracemalloc.get_traced_memory()[0], 0
        for piece in every:
            tracemalloc.reset_peak()
            sent += len(piece)
            heard = says(stage, piece, peer)
            now, peak = tracemalloc.get_traced_memory()
            assert peak - before < TIMES * sent + CONNECTION
            if "end" in heard:
                break
        assert now - before < 2 * held(stage) + CONNECTION, "more than it says that it holds"
    finally:
        tracemalloc.stop()


def check_calls(stage: Http1Stage, attack: Attack, peer: str = "client") -> list[str]:
    """Check what the mesh does for each piece of an attack; return what it says to the last one."""
    paid, spent = Calls(), Calls()
    heard: list[str] = []
    for piece in pieces(attack, paid):
        with spent.counting():
            heard = says(stage, piece, peer)
        assert spent.count < TIMES * paid.count + SETTING_UP
        if "end" in heard:
            break
    return heard
