"""What the agent's own DNS says when it is asked on its node, by the way that pods' questions take.

It shows from outside whether a node resolves mesh names: the question goes to the address that pods use, so
an answer means that the route, the kernel's table and the DNS server are all in place. Only names of the
agent's own zones are asked for.
"""

from __future__ import annotations

import asyncio
import socket

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import msgspec

PATIENCE = 2.0
"""Seconds for the answer."""
AT_ONCE = 4
"""Questions under way; others wait."""
LONGEST_NAME = 253
_ANSWER_BYTES = 4096


class NotOurs(Exception):
    """A name that this agent's DNS does not serve; the message says what may be asked."""


class Resolution(msgspec.Struct, frozen=True):
    """What came of one question. `rcode` is DNS' word for it; it is empty without an answer: see `error`."""

    name: str
    type: str
    server: str
    rcode: str = ""
    addresses: tuple[str, ...] = ()
    """Of A records; empty for a zone."""
    error: str = ""


class Resolver:
    """Asks one DNS server about names of its zones; where no name is given, about the first zone."""

    def __init__(self, server: tuple[str, int], zones: tuple[str, ...]) -> None:
        self._server = server
        self._zones = zones
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def resolve(self, name: str = "") -> Resolution:
        """Return what the DNS server says about a name, or about the zone itself.

        Raises:
            NotOurs: the name is in none of the zones.
        """
        wanted = (name or self._zones[0]).lower().removesuffix(".")
        question = self._question(wanted)
        async with self._turn:
            return await asyncio.to_thread(_ask, self._server, wanted, question)

    def _question(self, name: str) -> dns.message.QueryMessage:
        ours = ", ".join(self._zones)
        if len(name) > LONGEST_NAME or not any(f".{name}".endswith(f".{zone}") for zone in self._zones):
            raise NotOurs(f"only names of {ours} are answered here")
        try:
            return dns.message.make_query(name, "SOA" if name in self._zones else "A")
        except (dns.exception.DNSException, ValueError) as error:
            raise NotOurs(f"that is no DNS name: {error}") from error


def _ask(server: tuple[str, int], name: str, question: dns.message.QueryMessage) -> Resolution:
    """Ask over UDP. Blocks for `PATIENCE` seconds at most, and is called in a thread."""
    kind = dns.rdatatype.to_text(question.question[0].rdtype)
    empty = Resolution(name, kind, f"{server[0]}:{server[1]}")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(PATIENCE)
            # Connected, so that a refusal of the kernel is heard, and no other sender is.
            asking.connect(server)
            asking.send(question.to_wire())
            answer = dns.message.from_wire(asking.recv(_ANSWER_BYTES))
    except TimeoutError:
        return msgspec.structs.replace(empty, error=f"no answer in {PATIENCE:g} s")
    except OSError as error:
        return msgspec.structs.replace(empty, error=error.strerror or str(error))
    except (dns.exception.DNSException, ValueError) as error:
        return msgspec.structs.replace(empty, error=f"the answer is no DNS message: {error}")
    if answer.id != question.id:
        return msgspec.structs.replace(empty, error="the answer is not to this question")
    addresses = tuple(
        record.to_text()
        for records in answer.answer
        if records.rdtype == dns.rdatatype.A
        for record in records
    )
    return msgspec.structs.replace(empty, rcode=dns.rcode.to_text(answer.rcode()), addresses=addresses)
