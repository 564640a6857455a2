"""Answers a DNS query from the mesh zone: bytes in, bytes out, nothing kept and nothing awaited.

Owner names in an answer are compression pointers into the question, which is echoed byte by byte: so a name
is answered in the case asked.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec
from dns.flags import Flag
from dns.rcode import Rcode
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

from discovery.dns.index import NEGATIVE_TTL, TYPE_NS, TYPE_SOA, TYPE_SRV, Apex, Found, Glue, ZoneIndex
from discovery.dns.query import HEADER_LENGTH, NotAQueryError, Query, QueryRejected, parse_query

RECORD_TTL = 5
"""Seconds that a resolver may remember a record. Short, because a removed Service must be served for this
long after its name is gone; not 0, because then many clients ask again for every connection."""

EDNS_PAYLOAD = 1232
"""The greatest UDP answer, in bytes: fits into any path's packet without fragments (DNS flag day 2020)."""

MIN_PAYLOAD = 512
"""What every client can take over UDP (RFC 1035 section 4.2.1, RFC 6891 section 6.2.3)."""

MAX_TCP_ANSWER = 65535

Result = Literal["noerror", "nodata", "nxdomain", "refused", "formerr", "notimp", "badvers", "dropped"]

_RCODES: dict[Result, int] = {
    "noerror": int(Rcode.NOERROR),
    "nodata": int(Rcode.NOERROR),
    "nxdomain": int(Rcode.NXDOMAIN),
    "refused": int(Rcode.REFUSED),
    "formerr": int(Rcode.FORMERR),
    "notimp": int(Rcode.NOTIMP),
    "badvers": int(Rcode.BADVERS),
}
_QR, _AA, _TC, _RD = (int(flag) for flag in (Flag.QR, Flag.AA, Flag.TC, Flag.RD))
_IN = int(RdataClass.IN)
_ANY, _HINFO, _OPT = int(RdataType.ANY), int(RdataType.HINFO), int(RdataType.OPT)
_WITH_GLUE = (TYPE_NS, TYPE_SRV)
"""Whose target's address goes into the additional section (RFC 1035 section 3.3.11, RFC 2782)."""
_TRANSFERS = (int(RdataType.AXFR), int(RdataType.IXFR))

_HEADER = struct.Struct("!HHHHH")
_RECORD = struct.Struct("!HHIH")
_POINTER = struct.Struct("!H")
_OPT_RECORD = struct.Struct("!BHHBBHH")
_MINIMAL_ANY = b"\x07RFC8482\x00"
"""HINFO's CPU and OS of RFC 8482 section 4.2."""


class Answer(msgspec.Struct, frozen=True):
    """A whole answer, or None if the packet must not be answered. `query` is None if it could not be read."""

    wire: bytes | None
    result: Result
    query: Query | None = None


def answer(index: ZoneIndex, wire: bytes, *, udp: bool) -> Answer:
    """Answer one packet; over UDP the answer fits into what the client takes, else says so (TC)."""
    try:
        query = parse_query(wire)
    except NotAQueryError:
        return Answer(None, "dropped")
    except QueryRejected as rejected:
        return Answer(_rejection(wire, rejected), rejected.result)
    if query.edns is not None and query.edns.version != 0:
        return _error(wire, query, "badvers")
    found = index.find(query.name) if query.qclass == _IN else None
    if found is None or query.qtype in _TRANSFERS:
        return _error(wire, query, "refused")
    return _authoritative(wire, query, found, udp=udp)


def _rejection(wire: bytes, rejected: QueryRejected) -> bytes:
    """Answer with only the header, and the question if it is valid."""
    flags = _QR | (int.from_bytes(wire[2:4], "big") & (0x7800 | _RD)) | _RCODES[rejected.result]
    question = wire[HEADER_LENGTH : rejected.question_end]
    return wire[:2] + _HEADER.pack(flags, 1 if question else 0, 0, 0, 0) + question


def _error(wire: bytes, query: Query, result: Result) -> Answer:
    rcode = _RCODES[result]
    # BADVERS does not fit into the header: its upper bits travel in the OPT record.
    return Answer(_assemble(wire, query, rcode & 0xF, extended_rcode=rcode >> 4), result, query)


def _authoritative(wire: bytes, query: Query, found: Found, *, udp: bool) -> Answer:
    limit = _udp_limit(query) if udp else MAX_TCP_ANSWER
    result: Result
    record = authority = glue = b""
    rdata, rtype = _select(query.qtype, found)
    if rdata is not None:
        result = "noerror"
        record = _record(_pointer(0), rtype, RECORD_TTL, rdata)
        glue = _glue(found.glue) if found.glue is not None and rtype in _WITH_GLUE else b""
    else:
        result = "nxdomain" if found.records is None else "nodata"
        authority = _soa(found.apex, found.apex_offset)
    flags = _AA | _RCODES[result]
    full = _assemble(wire, query, flags, record, authority, glue)
    if len(full) > limit and glue:
        # Leaving out what was not asked for is no truncation (RFC 2181 section 9).
        full = _assemble(wire, query, flags, record)
    if len(full) > limit:
        full = _assemble(wire, query, flags | _TC)
    return Answer(full, result, query)


def _select(qtype: int, found: Found) -> tuple[bytes | None, int]:
    """Return RDATA and type of the one record that answers `qtype`."""
    if qtype == _ANY and found.records:
        return _MINIMAL_ANY, _HINFO
    return (found.records or {}).get(qtype), qtype


def _udp_limit(query: Query) -> int:
    if query.edns is None:
        return MIN_PAYLOAD
    return min(max(query.edns.payload, MIN_PAYLOAD), EDNS_PAYLOAD)


def _assemble(
    wire: bytes,
    query: Query,
    flags: int,
    record: bytes = b"",
    authority: bytes = b"",
    glue: bytes = b"",
    *,
    extended_rcode: int = 0,
) -> bytes:
    """Put an answer together; each section holds one record or none."""
    edns = query.edns
    opt = b""
    if edns is not None:
        opt = _OPT_RECORD.pack(0, _OPT, EDNS_PAYLOAD, extended_rcode, 0, 0x8000 if edns.dnssec_ok else 0, 0)
    if query.recursion_desired:
        flags |= _RD
    counts = (1, bool(record), bool(authority), bool(glue) + bool(opt))
    header = wire[:2] + _HEADER.pack(_QR | flags, *counts)
    return b"".join((header, wire[HEADER_LENGTH : query.question_end], record, authority, glue, opt))


def _record(owner: bytes, rtype: int, ttl: int, rdata: bytes) -> bytes:
    return owner + _RECORD.pack(rtype, _IN, ttl, len(rdata)) + rdata


def _pointer(offset: int) -> bytes:
    """Return a compression pointer to the asked name from `offset`."""
    return _POINTER.pack(0xC000 | HEADER_LENGTH + offset)


def _soa(apex: Apex, offset: int) -> bytes:
    return _record(_pointer(offset), TYPE_SOA, NEGATIVE_TTL, apex.soa)


def _glue(glue: Glue) -> bytes:
    return _record(glue.prefix + _pointer(glue.offset), glue.rtype, RECORD_TTL, glue.rdata)
