"""HTTP/2 without TLS by the library h2: what clients and endpoints of a soak share.

GOAWAY is kept from the library, which would end everything: requests that have begun continue.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any, Final, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame

LAST_STREAM: Final = 2**31 - 1
WINDOW: Final = 256 * 1024
"""Bytes that a peer may send on the connection before earlier ones were read, in addition to the initial
window."""
_GOAWAY: Final = 7
_HEAD: Final = 9


class Multiplex(asyncio.Protocol, ABC):
    """One side of a connection. Subclasses say what its events mean."""

    def __init__(self, *, client: bool) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=client, header_encoding="utf-8"))
        self.transport = cast("asyncio.Transport", None)
        self.lost = False
        self.told = LAST_STREAM
        """The last stream that the peer serves."""
        self._bytes = bytearray()
        self._preface = 0 if client else 24
        self._moved = asyncio.Event()
        """More may be sent now than before, perhaps."""
        self._full = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(WINDOW)
        self.speak()

    def data_received(self, data: bytes) -> None:
        """Look at whole frames; a peer that breaks the protocol loses its connection."""
        buffer = self._bytes
        buffer += data
        try:
            while len(buffer) >= (needed := self._preface or self._size()):
                if not self._preface and buffer[3] == _GOAWAY:
                    self.told = int.from_bytes(buffer[_HEAD : _HEAD + 4], "big") & LAST_STREAM
                    self.goaway(int.from_bytes(buffer[_HEAD + 4 : _HEAD + 8], "big"))
                else:
                    for event in self.h2.receive_data(bytes(buffer[:needed])):
                        self._take(event)
                del buffer[:needed]
                self._preface = 0
        except ProtocolError as error:
            self.broken(error)
            self.transport.abort()
            return
        self._moved.set()
        self.speak()

    def _size(self) -> int:
        return _HEAD + int.from_bytes(self._bytes[:3], "big") if len(self._bytes) >= _HEAD else _HEAD

    def _take(self, event: Event) -> None:
        self.event(event)
        if isinstance(event, DataReceived) and event.flow_controlled_length and event.stream_id:
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def pause_writing(self) -> None:
        """The peer does not read."""
        self._full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._full = False
        self._moved.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended; wake up those who wait to send."""
        self.lost = True
        self._moved.set()

    # Sending

    def speak(self) -> None:
        """Send what the library has to say."""
        data = self.h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def say_goaway(self, last: int) -> None:
        """Say up to which stream requests are served."""
        if not self.transport.is_closing():
            self.transport.write(self.h2.data_to_send() + GoAwayFrame(0, last_stream_id=last).serialize())

    async def send(self, stream: int, data: bytes, *, end: bool) -> None:
        """Send a piece of a body as windows allow; all of it, unless its stream ends before.

        Raises:
            ConnectionError, ProtocolError: the connection or the stream has ended.
        """
        while True:
            if self.lost or self.transport.is_closing():
                raise ConnectionResetError("the connection has ended")
            window = self.h2.local_flow_control_window(stream)
            most = 0 if self._full else min(max(window, 0), self.h2.max_outbound_frame_size)
            if most or not data:
                piece, data = data[:most], data[most:]
                self.h2.send_data(stream, piece, end_stream=end and not data)
                self.speak()
                if not data:
                    return
                continue
            self._moved.clear()
            await self._moved.wait()

    # What subclasses are told

    @abstractmethod
    def event(self, event: Event) -> None:
        """Something has come."""

    def goaway(self, code: int) -> None:
        """The peer begins to leave."""

    def broken(self, error: Exception) -> None:
        """The peer has broken the protocol."""


def fields_of(event: Any) -> dict[str, str]:
    """Return the fields of a head."""
    return dict(cast("list[tuple[str, str]]", event.headers))
