"""Heads that have come before, byte for byte: their meaning is looked up. Requests of a client whose heads
differ are looked up without what differs (`nodeagent.proxy.http1.varying`).

The codec, `nodeagent.proxy.http1.head`, alone decides: what is remembered is its result for exactly these
bytes, and a head that it refuses is never remembered. Connections share the memory, but that reveals nothing:
a head is only found by a client that sends all of it, secrets included.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from nodeagent.proxy.http1.head import parse_request, parse_response
from nodeagent.proxy.http1.varying import Cuts, places
from nodeagent.proxy.memory import PATIENCE, SELDOM, Memory
from nodeagent.proxy.message import RequestHead, ResponseHead

_ROOM: Final = 512 * 1024
"""Bytes in each of two generations, for requests and for responses, of a process."""
_LARGEST: Final = 8 * 1024
"""Bytes of a head that is worth remembering."""
_END: Final = b"\r\n\r\n"
PATHS_DIFFER: Final = 4
"""After this many new heads in a row the target is cut out too."""

H = TypeVar("H")


class _Known(Generic[H]):
    """A head that was read before: a copy that is never changed."""

    __slots__ = ("cost", "head")

    def __init__(self, head: H, raw: bytes) -> None:
        self.head = head
        self.cost = 2 * len(raw) + 600


_requests: Final[Memory[bytes, _Known[RequestHead]]] = Memory(_ROOM)
_responses: Final[Memory[bytes, _Known[ResponseHead]]] = Memory(_ROOM)


class RequestReader:
    """Reads the request heads of one connection, as `parse_request` does.

    While its heads repeat, they are looked up as they are; once they differ, without what identifies a
    request, and if that is not enough, without the target as well.
    """

    __slots__ = ("_cuts", "_news")

    def __init__(self) -> None:
        self._news = 0
        """Heads in a row that were not remembered."""
        self._cuts: Cuts | None = None
        """Where they are cut before they are looked up."""

    def read(self, data: bytes, default_host: bytes = b"", position: int = 0) -> RequestHead | None:
        """Read the request head at `position` of `data`."""
        news = self._news
        if news > PATIENCE and news & SELDOM:
            self._news = news + 1
            return parse_request(data, default_host, position)
        end = data.find(_END, position) + 4
        if end < 4 or end - position > _LARGEST:
            return parse_request(data, default_host, position)
        cuts = self._cuts
        found = cuts.find(data, position, end) if cuts is not None else None
        if found is not None:
            head = found.read()
        else:
            raw = data[position:end]
            known = _requests.young.get(raw) or _requests.older(raw)
            head = known.head.copy(end) if known is not None else None
        if head is not None:
            self._news = 0
            return head
        self._news = news = news + 1
        head = parse_request(data, default_host, position)
        # A request without Host gets that of the listener, which is not in these bytes.
        if head is None or head.minor != b"1" or head.end != end:
            return head
        if found is not None:
            found.learn()
        elif _requests.again(raw):
            _requests.keep(raw, _Known(head.copy(end), raw))
        if found is None or news == PATHS_DIFFER:
            self._cuts = places(data, position, end, news >= PATHS_DIFFER)
        return head


class ResponseReader:
    """Reads the response heads of one connection, as `parse_response` does."""

    __slots__ = ("_news",)

    def __init__(self) -> None:
        self._news = 0
        """Heads in a row that were not remembered."""

    def read(self, data: bytes, to_head: bool) -> ResponseHead | None:
        """Read the response head at the start of `data`."""
        news = self._news
        if news > PATIENCE and news & SELDOM:
            self._news = news + 1
            return parse_response(data, to_head)
        end = data.find(_END) + 4
        if to_head or end < 4 or end > _LARGEST:
            return parse_response(data, to_head)
        raw = data[:end]
        known = _responses.young.get(raw) or _responses.older(raw)
        if known is not None:
            self._news = 0
            return known.head.copy(end)
        self._news = news + 1
        head = parse_response(data, to_head)
        if head is not None and head.end == end and _responses.again(raw):
            _responses.keep(raw, _Known(head.copy(end), raw))
        return head
