"""The DNS server of the mesh zone: UDP and TCP on one or more addresses, one zone in force at a time.

Runs on one loop, uvloop or asyncio's own. `SO_REUSEPORT` lets two agents answer side by side while one
takes over from the other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection

import structlog

from discovery.dns.cache import CAPACITY, AnswerCache
from discovery.dns.counters import DnsCounters
from discovery.dns.index import ZoneIndex
from discovery.dns.listening import open_socket
from discovery.dns.malformed import log_malformed
from discovery.dns.responder import Responder
from discovery.dns.reverse import Key
from discovery.dns.tcp import IDLE_TIME, MAX_CONNECTIONS, TcpListener
from discovery.dns.udp import UdpListener
from discovery.dns.zone import Zone

log = structlog.get_logger()

TICK = 1.0
"""Seconds between two looks for idle connections and malformed packets to report."""


class DnsServer:
    """Answers from `zone` on every address that `start` was called for, until `close`.

    `cache_capacity` bounds the answers remembered (twice as many at most), `tcp_idle_time` is in seconds,
    `tcp_max_connections` counts for each address.

    Raises:
        ValueError, dns.exception.DNSException: the zone's origin, aliases or addresses cannot be used.
    """

    def __init__(
        self,
        zone: Zone,
        *,
        cache_capacity: int = CAPACITY,
        tcp_idle_time: float = IDLE_TIME,
        tcp_max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._zone = zone
        self._index = ZoneIndex(zone)
        _warn_of_unusable(self._index)
        self._responder = Responder(self._index, AnswerCache(cache_capacity))
        self._tcp_idle_time = tcp_idle_time
        self._tcp_max_connections = tcp_max_connections
        self._udp: list[UdpListener] = []
        self._tcp: list[TcpListener] = []
        self._ticker: asyncio.TimerHandle | None = None

    @property
    def counters(self) -> DnsCounters:
        """The counters of all addresses; they continue to count and may be read at any time."""
        return self._responder.counters

    async def start(self, address: str, port: int) -> int:
        """Listen on one address over UDP and TCP; call it again for further ones. Return the port.

        Port 0 takes a free one. If either transport cannot listen, neither does.

        Raises:
            ValueError: `address` is not an IPv4 or IPv6 address.
            OSError: the address cannot be bound; the message names it.
        """
        # TCP first: of the two it is the one whose free ports clients' connections use up.
        listening = open_socket(address, port, socket.SOCK_STREAM)
        port = listening.getsockname()[1]
        tcp = TcpListener(self._responder, self._tcp_idle_time, self._tcp_max_connections)
        try:
            udp = UdpListener(address, port, self._responder)
        except OSError:
            listening.close()
            raise
        try:
            await tcp.start(listening)
        except OSError:
            udp.close()
            listening.close()
            raise
        self._udp.append(udp)
        self._tcp.append(tcp)
        if self._ticker is None:
            self._tick()
        log.info("dns_listening", address=address, port=port)
        return port

    def set_zone(self, zone: Zone, changed: Collection[Key] | None = None) -> None:
        """Answer from this zone from now on; an equal one changes nothing.

        `changed`, if given, are all Services (namespace, name) that differ from the zone before, which is the
        same in all else but its serial: then only they are looked at.

        Raises:
            ValueError, dns.exception.DNSException: it cannot be used; the zone before it stays in force.
        """
        if zone == self._zone:
            return
        index = ZoneIndex(zone) if changed is None else self._index.updated(zone, changed)
        self._responder.use(index)
        self._zone, self._index = zone, index
        _warn_of_unusable(index)

    async def close(self) -> None:
        """Answer what has already arrived, then stop; may be called again."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        while self._udp:
            self._udp.pop().close()
        listeners, self._tcp = self._tcp, []
        await asyncio.gather(*(listener.close() for listener in listeners))

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for listener in self._tcp:
            listener.close_idle(now)
        if report := self._responder.malformed.take(now):
            log_malformed(report)
        self._ticker = loop.call_later(TICK, self._tick)


def _warn_of_unusable(index: ZoneIndex) -> None:
    if index.unusable:
        log.warning(
            "dns_name_unusable",
            services=list(index.unusable),
            reason="they have no valid DNS name or address, or their name is ns.dns; they cannot be resolved",
        )
