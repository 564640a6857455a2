"""A response whose head has come, and which waits for the layers to decide about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from middleware.contract import Deadline, UpstreamReset
from middleware.grpc import GrpcStatus
from nodeagent.proxy.body import Unchunked
from nodeagent.proxy.chain import Outcome
from nodeagent.proxy.grpc_status import status_in
from nodeagent.proxy.message import CHUNKED, Fields, ResponseHead, value_in


class ResponseOwner(Protocol):
    """The exchange that a response belongs to."""

    @property
    def grpc(self) -> bool:
        """Whether it is a call of gRPC."""
        ...

    def after(self, seconds: float, call: Callable[[], None]) -> Deadline:
        """Have `call` called when this much time has passed, unless that is cancelled."""
        ...

    def discard(self, response: UpstreamResponse) -> None:
        """Throw it away."""
        ...

    def collect(self, head: ResponseHead, limit: int, done: Callable[[bytes | None], None]) -> None:
        """Have the body of the response with this head collected as it passes."""
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

    __slots__ = ("_late", "_owner", "cut", "data", "end", "head", "trailers", "wanted")

    def __init__(self, owner: ResponseOwner, head: ResponseHead, data: bytes, end: bool) -> None:
        self._owner = owner
        self.wanted = False
        """A layer waits for more of the body."""
        self.head = head
        self.data = data
        self.end = end
        self.cut = False
        self._late = False
        self.trailers = b""
        """Those that were not part of the body's bytes."""

    @property
    def status(self) -> int:
        """The status code."""
        return self.head.status

    @property
    def length(self) -> int | None:
        """The size of the body, if the head says so."""
        length = self.head.length
        return length if length >= 0 else None

    @property
    def headers(self) -> Fields:
        """The end-to-end header fields."""
        return Fields(self.head)

    @property
    def grpc_status(self) -> GrpcStatus | None:
        """The status of a call, if it is known by now."""
        lines = self._last_lines()
        return status_in(lines, self.head.status) if lines is not None else None

    def trailer(self, name: str) -> str | None:
        """Return the first value of a field that a call has ended with."""
        lines = self._last_lines()
        return value_in(lines, name) if lines is not None else None

    def _last_lines(self) -> bytes | None:
        """Return the fields that a call has ended with; None: it has not, as far as is known."""
        head = self.head
        if not self._owner.grpc:
            return None
        if head.status != 200:
            return head.fields
        if not self.end:
            return None
        if self.trailers:
            return self.trailers
        if head.length == CHUNKED:
            body = Unchunked()
            body.payload(self.data)
            return body.trailers
        return b"" if self.data else head.fields

    async def early_status(self, seconds: float) -> GrpcStatus | None:
        """Wait for a call's first byte of a message or its end, and return its status if that has come.

        Raises:
            UpstreamReset: the endpoint broke off before either.
        """
        if not self._owner.grpc or self.head.status != 200:
            return self.grpc_status
        limit = self._owner.after(seconds, self._too_late)
        try:
            while not (self.data or self.end or self._late):
                if self.cut:
                    raise UpstreamReset("the endpoint broke off within its response, before any message")
                self.wanted = True
                self._owner.read_on()
                await Outcome()
        finally:
            limit.cancel()
        return self.grpc_status

    def _too_late(self) -> None:
        self._late = True
        self.wake()

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

    def collect(self, limit: int, done: Callable[[bytes | None], None]) -> None:
        """Have the body collected as it passes to the client; see the contract."""
        if self.head.length > limit:
            done(None)
        else:
            self._owner.collect(self.head, limit, done)

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
