"""What DNS counts: plain integers that only ever grow, written by the server and read by the admin side."""

from __future__ import annotations

import msgspec

RESULTS = ("noerror", "nodata", "nxdomain", "refused", "formerr", "notimp", "badvers", "dropped")


class DnsCounters(msgspec.Struct):
    """Queries by result and, those that were answered, by transport.

    `dropped` had no answer: too short, a response instead of a query, or the answer could not be sent.
    """

    noerror: int = 0
    nodata: int = 0
    nxdomain: int = 0
    refused: int = 0
    formerr: int = 0
    notimp: int = 0
    badvers: int = 0
    dropped: int = 0
    udp: int = 0
    tcp: int = 0

    def by_result(self) -> dict[str, int]:
        """Return the queries by result."""
        return {name: getattr(self, name) for name in RESULTS}

    def by_transport(self) -> dict[str, int]:
        """Return the responses by transport."""
        return {"udp": self.udp, "tcp": self.tcp}
