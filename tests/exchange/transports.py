"""A transport between the data plane and a peer that the test plays: like uvloop's, but without a socket.

It does what `uvloop/handles/stream.pyx` and `basetransport.pyx` (0.23) do, where protocols can tell:

- `write` tries at once, may call `pause_writing` before it returns, and may find out that the far side is
  gone; `resume_writing` and `connection_lost` come in a later turn. After that writing is an error.
- Nothing is read while reading is paused, not even an end or a reset. Writing notices a reset all the same.
- The end of the stream is told once more when reading is paused and resumed behind it.
- `close` sends what is left first, `abort` does not. What was not read by then makes a reset of the end.
- A connection that `create_connection` gives up is closed without `connection_lost`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from nodeagent.proxy.connection import Connection

HIGH: Final = 64
"""Bytes that may wait to be sent before the protocol is paused; small, so that tests are."""
LOW: Final = 16


class End:
    """What comes after the last byte."""


class Reset:
    """What comes in place of further bytes."""


class PseudoSocket:
    """What protocols do with a transport's socket."""

    def __init__(self) -> None:
        self.linger = False
        self.closed = False
        self._event = -1
        self._pending = False

    def setsockopt(self, _level: int, option: int, _value: object) -> None:
        if self.closed:
            raise ValueError("negative file descriptor")
        if option == socket.SO_LINGER:
            self.linger = True

    def fileno(self) -> int:
        """A descriptor that can be read while something has come and was not read."""
        if self._event < 0:
            self._event = os.eventfd(int(self._pending), os.EFD_NONBLOCK)
        return self._event

    def show(self, pending: bool) -> None:
        if pending != self._pending and self._event >= 0:
            (os.eventfd_write(self._event, 1) if pending else os.eventfd_read(self._event))
        self._pending = pending

    def close(self) -> None:
        self.closed = True
        if self._event >= 0:
            os.close(self._event)
            self._event = -1


class HandTransport(asyncio.Transport):
    """Both ends of a connection. `heard(what)` is told what the far side gets: bytes, "end" or "reset"."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        heard: Callable[[bytes | str], None] = lambda _: None,
        peername: str = "10.1.2.3",
        high: int = HIGH,
        low: int = LOW,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._heard = heard
        self._peername = peername
        self._high, self._low = high, low
        self._protocol = cast("Connection", None)
        self._socket = PseudoSocket()
        self._closing = self._closed = self._losing = False
        self._eof = False
        self._reading = self._read_scheduled = False
        self._paused = False
        self._unsent = bytearray()
        # The far side
        self.reads = True
        self._said_end = False
        self.left = ""
        """`closed` or `reset`, once the far side is gone."""
        self.ended = ""
        """How our side ended, as the far side sees it: `end` or `reset`."""
        self.received = bytearray()
        self._on_its_way: deque[bytes | type[End] | type[Reset]] = deque()

    def start(self, protocol: asyncio.Protocol | None = None) -> None:
        """Uvloop begins to read only after `connection_made`, whatever that does."""
        if protocol is not None:
            self.set_protocol(protocol)
            self._protocol.connection_made(self)
        if not self._closing:
            self._reading = True
            self._schedule_read()

    # What protocols call

    def write(self, data: Any) -> None:
        self._ensure_alive()
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._losing:
            return
        waits = bool(self._unsent) or self._paused
        self._unsent += data
        if not waits:
            self._send(len(self._unsent) if self.reads else 0)
        elif self.reads:
            self._loop.call_soon(self._send_all)
        if len(self._unsent) > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        self._ensure_alive()
        self._eof = True
        self._say_end()

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        if not self._closing:
            self._reading = False

    def resume_reading(self) -> None:
        if not self._closing and not self._reading:
            self._ensure_alive()
            self._reading = True
            self._schedule_read()

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            return (self._peername, 40000)
        return self._socket if name == "socket" else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast("Connection", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def close(self) -> None:
        if self._closing:
            return
        self._closing, self._reading = True, False
        if not self._unsent:
            self._losing = True
            self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        self._break(None)

    def close_silently(self) -> None:
        """What uvloop does with a connection that `create_connection` gives up."""
        if not self._closed:
            self._closing, self._reading = True, False
            self._close_socket()

    # What the far side does

    @property
    def closed(self) -> bool:
        """True once `connection_lost` has been called."""
        return self._closed

    @property
    def waiting(self) -> int:
        """Bytes that the far side has sent, and nobody has read."""
        return sum(len(item) for item in self._on_its_way if isinstance(item, bytes))

    def says(self, data: bytes) -> None:
        """Send bytes."""
        self._arrives(data)

    def ends(self) -> None:
        """Send the end, and go on reading."""
        if not self._said_end:
            self._said_end = True
            self._arrives(End)

    def closes(self) -> None:
        """Send the end; whatever comes now is answered with a reset."""
        if self._unsent or self.left:
            self.resets()
            return
        self.left = "closed"
        self.ends()

    def resets(self) -> None:
        """Break the connection off; after an end only a writer notices."""
        if self.left == "reset" or self._closed:
            return
        self.left = "reset"
        if not self._said_end:
            self._arrives(Reset)
        if self._unsent:  # tell the one that waits until it can write
            self._loop.call_soon(self._break, ConnectionResetError(104, "Connection reset by peer"))

    def stops(self) -> None:
        """Read no more."""
        self.reads = False

    def takes(self, most: int | None = None) -> None:
        """Read this many of the bytes that wait; None: read everything from now on."""
        if most is None:
            self.reads = True
        if self._unsent and not (self._losing or self.left):
            if most is None:
                self._loop.call_soon(self._send_all)
            else:
                self._send(most)
                self._loop.call_soon(self._written)

    # Between the two

    def _ensure_alive(self) -> None:
        if self._closed:
            raise RuntimeError("unable to perform operation; the handler is closed")

    def _arrives(self, item: bytes | type[End] | type[Reset]) -> None:
        if not self._closed:
            self._on_its_way.append(item)
            self._socket.show(True)
            self._schedule_read()

    def _schedule_read(self) -> None:
        if self._reading and self._on_its_way and not self._read_scheduled:
            self._read_scheduled = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._read_scheduled = False
        if not (self._reading and self._on_its_way):
            return
        item = self._on_its_way[0]
        if isinstance(item, bytes):
            self._on_its_way.popleft()
            self._socket.show(bool(self._on_its_way))
            self._protocol.data_received(item)
        elif item is End:
            self._reading = False
            if not self._protocol.eof_received():
                self.close()
        else:
            self._break(ConnectionResetError(104, "Connection reset by peer"))
        self._schedule_read()

    def _send(self, size: int) -> None:
        data = bytes(self._unsent[:size])
        if self.left == "reset":
            self._unsent.clear()
            self._break(BrokenPipeError(32, "Broken pipe"))
            return
        del self._unsent[:size]
        if self.left == "closed":
            if data:
                self.resets()
        elif data:
            self.received += data
            self._heard(data)
        self._say_end()

    def _send_all(self) -> None:
        if self._unsent and self.reads and not self._losing:
            self._send(len(self._unsent))
            self._written()

    def _written(self) -> None:
        """Uvloop's `_on_write`."""
        if self._closed:
            return
        if self._paused and len(self._unsent) <= self._low:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._unsent:
            self._losing = True
            self._loop.call_soon(self._lose, None)

    def _say_end(self) -> None:
        if self._eof and not self._unsent and not self.ended:
            self.ended = "end"
            if not self.left:
                self._heard("end")

    def _break(self, error: Exception | None) -> None:
        """Uvloop's `_force_close`."""
        if self._losing or self._closed:
            return
        self._closing, self._reading, self._losing = True, False, True
        self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        if self._closed:
            return
        try:
            self._protocol.connection_lost(error)
        finally:
            self._close_socket()

    def _close_socket(self) -> None:
        unread = any(isinstance(item, bytes) for item in self._on_its_way)
        how = "reset" if self._socket.linger or unread else "end"
        self._unsent.clear()
        self._closed = True
        self._socket.close()
        if self.ended != how and self.ended != "reset":
            self.ended = how
            if not self.left:
                self._heard(how)
