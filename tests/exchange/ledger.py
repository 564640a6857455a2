"""What peers of the data plane have asked and answered, and what must hold of it, whatever the protocols.

Every request and every answer has a number and a body that no other has a byte of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

IDEMPOTENT: Final = ("GET", "PUT")
MOST_SENDS: Final = 4
"""How often the mesh may send an idempotent request to endpoints that break off, without being asked to."""


def body_of(kind: str, number: int, size: int) -> bytes:
    """Return the body of one request or answer."""
    word = b"<%b%d>" % (kind.encode(), number)
    return (word * (size // len(word) + 1))[:size]


class Body:
    """A body on its way: what comes must be its next bytes."""

    def __init__(self, kind: str, number: int, size: int) -> None:
        self._whole = body_of(kind, number, size)
        self.size = size
        self.seen = 0

    def came(self, data: bytes) -> None:
        """Check more of it."""
        at, self.seen = self.seen, self.seen + len(data)
        assert data == self._whole[at : self.seen], (data[:40], self._whole[at : at + 40])

    @property
    def whole(self) -> bool:
        """Whether all of it has come."""
        return self.seen == self.size


class Asked:
    """A request, and what its client got. `trailer`: its body ends with one."""

    def __init__(self, number: int, method: str, size: int, trailer: bool) -> None:
        self.number = number
        self.method = method
        self.size = size
        self.trailer = trailer
        self.outcome = ""
        """What became of it, as the client sees it; empty as long as it waits."""
        self.answer: Answer | None = None
        self.body: Body | None = None
        """Of the answer."""
        self.tries: list[Try] = []

    @property
    def whole(self) -> bytes:
        """The whole body."""
        return body_of("r", self.number, self.size)

    def ends(self, outcome: str) -> None:
        """Note its end; there is one."""
        assert not self.outcome, f"{self.number} was {self.outcome} and is {outcome} now"
        self.outcome = outcome


class Answer:
    """What an endpoint answers to one try. `until_close`: its end cannot be told from a broken connection."""

    def __init__(self, number: int, asked: int, status: int, size: int) -> None:
        self.number = number
        self.asked = asked
        self.status = status
        self.size = size
        self.until_close = False
        self.trailer = False
        self.given = False
        """A client has got it, or is getting it."""

    @property
    def whole(self) -> bytes:
        """The whole body."""
        return body_of("a", self.number, self.size)


class Try:
    """A request as one endpoint got it."""

    def __init__(self, asked: Asked, hears_all: Callable[[], bool]) -> None:
        self.asked = asked
        self.hears_all = hears_all
        """Whether its endpoint has looked at all that the mesh has said."""
        self.stream = 0
        """On which it has come, in HTTP/2."""
        self.body = Body("r", asked.number, asked.size)
        self.complete = False
        self.refused = False
        """The endpoint has said that it did nothing."""
        self.judged = False
        """The endpoint has broken it off, and the mesh hears of it."""
        self.over = False
        """Nothing more will be said of it, by either side."""
        self.answer: Answer | None = None
        self.left = b""
        """What is to be sent of the answer."""
        self.ended = False
        """All of the answer is sent."""

    def __repr__(self) -> str:
        return f"{self.asked.method} {self.asked.number}"

    def data(self, data: bytes) -> None:
        """More of its body has come."""
        self.body.came(data)

    def end(self, trailer: str | None) -> None:
        """All of it has come; `trailer` is what its trailer says, if there was one."""
        assert self.body.whole, f"request {self.asked.number} ended at {self.body.seen} of {self.body.size}"
        assert trailer in (None, str(self.asked.number)), trailer
        self.complete = True


class Ledger:
    """All requests and answers of one run. `insists`: a layer sends requests again, whatever they are."""

    def __init__(self, *, insists: bool) -> None:
        self.insists = insists
        self.asked: dict[int, Asked] = {}
        self.answers: dict[int, Answer] = {}

    def ask(self, method: str, size: int, trailer: bool) -> Asked:
        """Note a new request."""
        number = len(self.asked) + 1
        asked = self.asked[number] = Asked(number, method, size if method != "GET" else 0, trailer)
        return asked

    def reached(
        self, method: str, number: int, hears_all: Callable[[], bool], *, refused: bool, late: bool
    ) -> Try:
        """Note that an endpoint has got a request; whether it may have it is checked at once.

        It is late when the endpoint has ended its connection before it has looked at the request.
        """
        asked = self.asked[number]
        assert asked.method == method
        one = Try(asked, hears_all)
        before = tuple(asked.tries)
        one.refused, one.over = refused, refused or late
        asked.tries.append(one)
        worked = sum(not earlier.refused for earlier in asked.tries)
        if not self.insists:
            most = MOST_SENDS if method in IDEMPOTENT else 1
            assert worked <= most, f"{method} {number} was sent to {worked} endpoints"
        if not (self.insists or one.over):
            for earlier in before:
                assert not earlier.judged, (
                    f"{method} {number} was sent although an endpoint had broken it off"
                )
                over = earlier.over or not earlier.hears_all()
                assert over, f"{method} {number} was sent although an endpoint is about to answer it"
        assert asked.outcome != "not served", f"{method} {number} was sent although its client was told not"
        return one

    def answer(self, one: Try, status: int, size: int) -> Answer:
        """Note that an endpoint begins to answer."""
        assert one.answer is None
        number = len(self.answers) + 1
        answer = one.answer = self.answers[number] = Answer(number, one.asked.number, status, size)
        one.left = answer.whole
        return answer

    def answered(self, asked: Asked, status: int, fields: dict[str, str]) -> None:
        """Note the head of an answer that a client gets, and check that it is meant for it."""
        assert asked.body is None, f"a second answer to {asked.number}"
        if "x-answer" not in fields:
            assert "proxy-status" in fields, fields
            asked.body = OWN
            return
        answer = self.answers[int(fields["x-answer"])]
        assert answer.asked == asked.number, f"{asked.number} got the answer to {answer.asked}"
        assert answer.status == status
        assert not answer.given
        answer.given = True
        asked.answer = answer
        asked.body = Body("a", answer.number, answer.size)

    def finished(self, asked: Asked, trailer: str | None) -> None:
        """Note that an answer has ended as one that is whole."""
        assert asked.body is not None
        answer = asked.answer
        if answer is not None:
            assert asked.body.whole or answer.until_close, (
                f"the answer to {asked.number} ended at {asked.body.seen} of {answer.size}"
            )
            assert trailer in (None, str(answer.number)), trailer
        asked.ends("answered")


class _Own(Body):
    """The body of an answer of the mesh itself: whatever it likes."""

    def __init__(self) -> None:
        super().__init__("", 0, 0)

    def came(self, data: bytes) -> None:
        """Let it pass."""


OWN: Final = _Own()
