"""DNS over UDP: one non-blocking socket, read by the loop's reader callback until it is empty.

A `DatagramProtocol` costs a callback for each packet, an eighth more CPU time; here it is two system calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from discovery.dns.listening import open_socket
from discovery.dns.responder import Responder

BATCH = 64
"""Datagrams answered before the loop gets its turn: below a millisecond of work."""

MAX_QUERY = 4096
"""Bytes read of a datagram; a longer one is cut off, and thereby malformed."""

RECEIVE_BUFFER = 1 << 20
"""Bytes asked of the kernel for datagrams that wait while the loop is busy: the default holds about 250."""

_SO_RCVBUFFORCE = 33
_LAST_DRAIN = 4096


class UdpListener:
    """Answers on one address until it is closed.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, address: str, port: int, responder: Responder) -> None:
        self._responder = responder
        self._socket = open_socket(address, port, socket.SOCK_DGRAM)
        _grow_receive_buffer(self._socket)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._on_readable)

    def close(self) -> None:
        """Answer what has already arrived, then stop."""
        self._loop.remove_reader(self._socket)
        self._answer_batch(_LAST_DRAIN)
        self._socket.close()

    def _on_readable(self) -> None:
        self._answer_batch(BATCH)

    def _answer_batch(self, size: int) -> None:
        receive, send, respond = self._socket.recvfrom, self._socket.sendto, self._responder.respond_udp
        answered = 0
        for _ in range(size):
            try:
                query, source = receive(MAX_QUERY)
            except BlockingIOError:
                break
            except OSError:
                # An ICMP error of an earlier answer, or memory is short: that client asks again, others must
                # not notice. The error is gone from the socket once it was read.
                continue
            reply = respond(query, source)
            if reply is None:
                continue
            try:
                send(reply, source)
            except OSError:
                self._responder.counters.dropped += 1
            else:
                answered += 1
        self._responder.counters.udp += answered


def _grow_receive_buffer(udp: socket.socket) -> None:
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    with contextlib.suppress(PermissionError):
        # Beyond net.core.rmem_max, where we may (CAP_NET_ADMIN).
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
