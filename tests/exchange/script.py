"""Conversations as tests, readable as a wire log.

`peer >> what`: the peer says it, to the mesh. `peer << what`: the peer hears it, from the mesh. Steps are
played in order, each until the loop has come to rest, and what the mesh has said must be what the next steps
hear, all of it, in this order: a step that is missing fails as much as one that is wrong.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.exchange.plane import Plane


class Hears(NamedTuple):
    """The mesh says something to a peer."""

    peer: str
    what: object


class Says(NamedTuple):
    """A peer says something to the mesh."""

    peer: str
    what: bytes | str


class Passes(NamedTuple):
    """Time passes, swept once a second."""

    seconds: float


class Peer:
    """Whom the mesh talks with."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __rshift__(self, what: bytes | str) -> Says:
        return Says(self.name, what)

    def __lshift__(self, what: object) -> Hears:
        return Hears(self.name, what)


Step = Says | Hears | Passes | Callable[[], object]

client, client2, client3 = Peer("client"), Peer("client2"), Peer("client3")
a, b, c, d = (Peer(name) for name in "abcd")
"""Endpoints: they are dialled."""
a1, a2, a3, a4 = (Peer(f"a{number}") for number in range(1, 5))
b1, b2, c1, d1 = (Peer(name) for name in ("b1", "b2", "c1", "d1"))
"""Connections to them, in the order in which they were accepted."""


class Stage(ABC):
    """Where a conversation is played."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.loop = plane.loop
        self.log: deque[tuple[str, bytes | str]] = deque()
        """What the mesh has said and no step has heard."""
        self._played: list[str] = []

    @abstractmethod
    def act(self, peer: str, what: bytes | str) -> None:
        """Have a peer say something."""

    def play(self, *steps: Step) -> None:
        """Play a conversation, or its next part."""
        for step in steps:
            if isinstance(step, Hears):
                self._hear(step)
            else:
                self._check_silence(step)
                self._perform(step)
        self._check_silence("nothing more")

    def does(self, *steps: Step) -> dict[str, list[Any]]:
        """Play steps without looking at each; return everything that was said since, by receiver."""
        for step in steps:
            self._perform(step)
        said: dict[str, list[Any]] = {}
        while self.log:
            peer, what = self.log.popleft()
            said.setdefault(peer, []).append(what)
        return said

    def _perform(self, step: Step) -> None:
        if isinstance(step, Passes):
            self._note(f"... {step.seconds:g}s")
            self.plane.passes(step.seconds)
        elif isinstance(step, Says):
            self._note(f"{step.peer} >> {step.what!r}")
            with self.loop.running():
                self.act(*step)
        elif not isinstance(step, Hears):
            with self.loop.running():
                step()
        self.loop.settle()

    def _hear(self, step: Hears) -> None:
        if not self.log:
            self._fail(step, "nothing")
        peer, what = self.log.popleft()
        while isinstance(what, bytes) and self.log and self.log[0][0] == peer:
            more = self.log[0][1]
            if isinstance(more, str):
                break
            self.log.popleft()
            what += more
        if (peer, what) != step and not (peer == step.peer and step.what == what):
            self._fail(step, f"{peer} << {what!r}")
        self._note(f"{peer} << {what!r}")

    def _check_silence(self, step: object) -> None:
        if self.log:
            peer, what = self.log[0]
            self._fail(step, f"{peer} << {what!r}")

    def _note(self, line: str) -> None:
        self._played.append(line)

    def _fail(self, expected: object, got: str) -> None:
        wanted = f"{expected.peer} << {expected.what!r}" if isinstance(expected, Hears) else str(expected)
        log = "\n  ".join(self._played)
        raise AssertionError(f"after\n  {log}\nexpected\n  {wanted}\ngot\n  {got}")


def passes(seconds: float) -> Passes:
    """Let time pass."""
    return Passes(seconds)
