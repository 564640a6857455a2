"""A response whose head has come and which waits for the layers to settle on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nodeagent.proxy.fields import Fields
from nodeagent.proxy.head import ResponseHead

if TYPE_CHECKING:
    from nodeagent.proxy.exchange import Exchange


class UpstreamResponse:
    """The head of a response that waits for its layers. Implements `middleware.contract.Response`."""

    __slots__ = ("_exchange", "head", "rest")

    def __init__(self, exchange: Exchange, head: ResponseHead, rest: bytes) -> None:
        self._exchange = exchange
        self.head = head
        self.rest = rest

    @property
    def status(self) -> int:
        """The status code."""
        return self.head.status

    @property
    def headers(self) -> Fields:
        """The end-to-end header fields."""
        return Fields(self.head.raw_fields)

    def discard(self) -> None:
        """Throw the response away; its connection is kept if all of the response has come."""
        self._exchange.discard(self)
