"""Clients and endpoints that keep to their protocol, and check that the mesh does. What both protocols have.

Bytes are on their way in both directions: a peer that is deaf has yet to read what the mesh has said, and
acts on what it knows; one that dribbles sends its bytes a few at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from tests.exchange.ledger import Asked, Ledger, Try
from tests.exchange.transports import HandTransport


class Peer(ABC):
    """One connection, as the far side of the mesh has it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.wire: HandTransport
        self.deaf = False
        self.dribble: int | None = None
        """Bytes that are sent at a time; None: all."""
        self.gone = ""
        """How this side has ended: `ends` is a half-close, after which it still reads."""
        self.mesh_ended = ""
        """How the mesh has ended its side: `end` or `reset`."""
        self._inbox: list[bytes | str] = []
        self._outbox = bytearray()

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.wire.get_extra_info('peername')[0]}"

    def hears(self, what: bytes | str) -> None:
        """Something has come. It is looked at when the mesh has come to rest."""
        self._inbox.append(what)

    def digest(self) -> bool:
        """Look at what has come; return whether there was something."""
        if self.deaf or not self._inbox:
            return False
        inbox, self._inbox = self._inbox, []
        if self.gone in ("resets", "closes"):
            return False
        for what in inbox:
            if self.mesh_ended:
                assert what == "reset", what
            elif isinstance(what, bytes):
                self.read(what)
            else:
                self.mesh_ended = what
                self.lost()
        self.flush()
        return True

    def says(self, data: bytes) -> None:
        """Have something to send."""
        self._outbox += data

    def flush(self) -> None:
        """Send what there is, or a part of it."""
        if self.gone or self.wire.closed:
            self._outbox.clear()
            return
        most = len(self._outbox) if self.dribble is None else self.dribble
        data = bytes(self._outbox[:most])
        del self._outbox[:most]
        if data:
            self.wire.says(data)

    @property
    def unsent(self) -> bool:
        """Whether it has something to send."""
        return bool(self._outbox) and not self.gone

    @property
    def active(self) -> bool:
        """Whether it may say something still."""
        return not (self.gone or self.mesh_ended == "reset" or self.wire.closed)

    def leaves(self, how: str) -> None:
        """End this side: `ends`, `closes` or `resets`."""
        self._outbox.clear()
        self.gone = how
        if how == "ends":
            self.wire.ends()
        elif how == "closes":
            self.wire.closes()
            self.wire.takes()  # what comes is answered with a reset, whether it was read or not
        else:
            self.wire.resets()
        self.left()

    def calms(self) -> None:
        """Do from now on what one hopes for: read, listen, say all."""
        self.deaf, self.dribble = False, None
        self.wire.takes()
        self.flush()

    @abstractmethod
    def read(self, data: bytes) -> None:
        """Look at bytes of the mesh."""

    @abstractmethod
    def lost(self) -> None:
        """The mesh has ended its side."""

    @abstractmethod
    def left(self) -> None:
        """This side has ended."""


class Client(Peer):
    """A client. `waiting` are the requests that have no end yet."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.waiting: list[Asked] = []

    def settle(self, asked: Asked, outcome: str) -> None:
        """Note what became of a request that will get no whole answer."""
        if not asked.outcome:
            asked.ends(outcome)
        if asked in self.waiting:
            self.waiting.remove(asked)

    def lost(self) -> None:
        """The mesh has ended its side: so has all that waits."""
        for asked in list(self.waiting):
            self.settle(asked, "broken")

    def left(self) -> None:
        """Nothing is waited for any more, unless it only says no more."""
        if self.gone != "ends":
            for asked in list(self.waiting):
                self.settle(asked, "left")

    @property
    @abstractmethod
    def may_ask(self) -> bool:
        """Whether it may begin a request now."""

    @abstractmethod
    def ask(self, method: str, size: int, *, known_length: bool, trailer: bool, most: int) -> Asked:
        """Begin a request; this many bytes of its body come with it."""

    @abstractmethod
    def go_on(self, most: int) -> bool:
        """Send more of the bodies that are not all sent; return whether there was something to send."""

    @property
    @abstractmethod
    def sending(self) -> bool:
        """Whether there is more of a body to be sent."""


class Endpoint(Peer):
    """A connection to an endpoint. `tries` are the requests that have come."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.tries: list[Try] = []

    def hears_all(self) -> bool:
        """Whether it has looked at all that the mesh has said."""
        return not self._inbox

    def lost(self) -> None:
        """The mesh has ended its side: nobody waits for anything."""
        for one in self.tries:
            one.over = True

    def left(self) -> None:
        """Nothing is answered any more."""
        self.lost()

    @abstractmethod
    def answerable(self) -> list[Try]:
        """Return the requests that may be answered now."""

    @abstractmethod
    def unfinished(self) -> list[Try]:
        """Return the requests of whose answers more is to be sent."""

    @abstractmethod
    def respond(self, one: Try, status: int, size: int, framing: str, most: int) -> None:
        """Begin an answer; this many bytes of its body come with it."""

    @abstractmethod
    def go_on(self, one: Try, most: int) -> bool:
        """Send more of an answer; return whether anything could be sent."""

    @abstractmethod
    def inform(self, one: Try, count: int) -> None:
        """Say something before the answer."""
