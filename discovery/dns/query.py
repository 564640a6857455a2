"""Reads a DNS query from the wire: header, the one question, and EDNS, as far as an answer depends on them.

Written out by hand, as it runs for every query that is not answered from the cache: a general message parser
takes ten times as long, which a flood of random names would make felt. Nothing here follows a compression
pointer, so nothing can loop; every read is bounded by the packet.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec
from dns.flags import Flag
from dns.rdatatype import RdataType

HEADER_LENGTH = 12
PLAIN_OPT_LENGTH = 11
"""An OPT record without options: root name, type, class, TTL and an empty RDATA."""

MAX_NAME = 255
MAX_LABEL = 63

_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_QR = int(Flag.QR)
_RD = int(Flag.RD)
_OPT = int(RdataType.OPT)
_POINTER = 0xC0


class Edns(msgspec.Struct, frozen=True):
    """What the OPT record says (RFC 6891 section 6.1.2). `payload` is in bytes; options are not read."""

    payload: int
    version: int
    dnssec_ok: bool


class Query(msgspec.Struct, frozen=True):
    """A question in class and type codes; `name` is the wire form in lower case, the root label included."""

    name: bytes
    qtype: int
    qclass: int
    question_end: int
    """Offset of the first byte after the question."""
    recursion_desired: bool
    edns: Edns | None
    plain: bool
    """True if nothing follows the question but, perhaps, an OPT record without options."""


class NotAQueryError(Exception):
    """Too short for a header, or a response: answering could make two servers talk for ever."""


class QueryRejected(Exception):
    """The header could be read, but the packet is malformed or of another opcode.

    `question_end` is the offset after the question if that was sound, else 0.
    """

    def __init__(self, result: Literal["formerr", "notimp"], question_end: int = 0) -> None:
        super().__init__(result)
        self.result = result
        self.question_end = question_end


def parse_query(wire: bytes) -> Query:
    """Read one query (RFC 1035 section 4.1).

    Raises:
        NotAQueryError: there is nothing to answer.
        QueryRejected: the answer is an error.
    """
    if len(wire) < HEADER_LENGTH:
        raise NotAQueryError
    _, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(wire)
    if flags & _QR:
        raise NotAQueryError
    if flags & 0x7800:
        raise QueryRejected("notimp")
    if questions != 1:
        raise QueryRejected("formerr")
    name_end = _end_of_name(wire, HEADER_LENGTH, pointers=False)
    end = name_end + _QUESTION.size
    if not name_end or end > len(wire):
        raise QueryRejected("formerr")
    qtype, qclass = _QUESTION.unpack_from(wire, name_end)
    edns = None
    if answers or authorities or additionals or len(wire) > end:
        edns = _read_records(wire, end, answers + authorities, additionals)
    return Query(
        # Length bytes are below 64, so that lower() changes letters of labels only.
        name=wire[HEADER_LENGTH:name_end].lower(),
        qtype=qtype,
        qclass=qclass,
        question_end=end,
        recursion_desired=bool(flags & _RD),
        edns=edns,
        plain=len(wire) == end + (PLAIN_OPT_LENGTH if edns else 0),
    )


def _end_of_name(wire: bytes, start: int, *, pointers: bool) -> int:
    """Return the offset after the name at `start`, or 0 if it is malformed."""
    offset, end = start, len(wire)
    while offset < end:
        length = wire[offset]
        if length > MAX_LABEL:
            return offset + 2 if pointers and length >= _POINTER else 0
        offset += 1 + length
        if offset - start > MAX_NAME:
            return 0
        if length == 0:
            return offset
    return 0


def _read_records(wire: bytes, offset: int, leading: int, additionals: int) -> Edns | None:
    """Walk over all records after the question; `leading` are those of answer and authority."""
    question_end = offset
    edns = None
    for number in range(leading + additionals):
        name_end = _end_of_name(wire, offset, pointers=True)
        if not name_end or name_end + _RECORD.size > len(wire):
            raise QueryRejected("formerr", question_end)
        rtype, rclass, ttl, length = _RECORD.unpack_from(wire, name_end)
        if rtype == _OPT:
            if edns is not None or number < leading or name_end != offset + 1:
                raise QueryRejected("formerr", question_end)
            edns = Edns(payload=rclass, version=ttl >> 16 & 0xFF, dnssec_ok=bool(ttl & 0x8000))
        offset = name_end + _RECORD.size + length
    if offset != len(wire):
        raise QueryRejected("formerr", question_end)
    return edns
