"""A response whose head has come and which waits for the layers to settle on it."""

from __future__ import annotations

from typing import Protocol

from middleware.contract import UpstreamReset
from nodeagent.proxy.body import Unchunked
from nodeagent.proxy.chain import Outcome
from nodeagent.proxy.message import CHUNKED, Fields, ResponseHead


class ResponseOwner(Protocol):
    """The exchange that a response belongs to."""

    def discard(self, response: UpstreamResponse) -> None:
        """Throw it away."""
        ...

    def read_on(self) -> None:
        """Have more of it come."""
        ...

    def wake_chain(self) -> None:
        """Go on where a layer waits for more of it."""
        ...


class UpstreamResponse:
    """A response that waits for its layers. Implements `middleware.contract.Response`.

    `data` is what has come of the body, in its framing; `end` if that is all; `cut` if its connection broke.
    """

    __slots__ = ("_owner", "cut", "data", "end", "head", "trailers", "wanted")

    def __init__(self, owner: ResponseOwner, head: ResponseHead, data: bytes, end: bool) -> None:
        self._owner = owner
        self.wanted = False
        """A layer waits for more of the body."""
        self.head = head
        self.data = data
        self.end = end
        self.cut = False
        self.trailers = b""
        """Those that were no part of the body's bytes."""

    @property
    def status(self) -> int:
        """The status code."""
        return self.head.status

    @property
    def headers(self) -> Fields:
        """The end-to-end header fields."""
        return Fields(self.head)

    def discard(self) -> None:
        """Throw the response away; its connection is kept if all of the response has come."""
        self._owner.discard(self)

    async def read(self, limit: int) -> bytes | None:
        """Wait for the whole body and return it; None if it is larger.

        Raises:
            UpstreamReset: the endpoint broke off within it.
        """
        if self.head.length > limit:
            return None
        while not self.end:
            if self.cut:
                raise UpstreamReset("the endpoint closed the connection within its response")
            if len(self.data) > 2 * limit + 1024:  # of chunks of one byte four fifths are framing
                return None
            self.wanted = True
            self._owner.read_on()
            await Outcome()
        body = Unchunked().payload(self.data) if self.head.length == CHUNKED else self.data
        return body if len(body) <= limit else None

    def take(self, data: bytes, end: bool) -> None:
        """More of the body has come."""
        self.data += data
        self.end = self.end or end
        self.wake()

    def wake(self) -> None:
        """Let a layer that reads see what is new."""
        if self.wanted:
            self.wanted = False
            self._owner.wake_chain()
