"""Answers, message by message, made and read by dnspython."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import msgspec
import pytest

from discovery.dns.answer import EDNS_PAYLOAD, Result, answer
from discovery.dns.index import ZoneIndex
from discovery.dns.zone import Zone, ZonePort, ZoneService

SOA = "svc.mesh. 5 IN SOA ns.dns.svc.mesh. hostmaster.svc.mesh. 7 7200 1800 86400 5"


def ask(
    index: ZoneIndex, query: dns.message.Message, *, udp: bool = True
) -> tuple[dns.message.Message, Result]:
    given = answer(index, query.to_wire(), udp=udp)
    assert given.wire is not None
    reply = dns.message.from_wire(given.wire)
    assert query.is_response(reply)
    return reply, given.result


def lines(section: list[dns.rrset.RRset]) -> list[str]:
    return [line for rrset in section for line in rrset.to_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "rtype", "expected"),
    [
        ("whoami.default.svc.mesh", "A", "whoami.default.svc.mesh. 5 IN A 250.96.0.10"),
        ("WhoAmI.DEFAULT.svc.MESH", "A", "WhoAmI.DEFAULT.svc.MESH. 5 IN A 250.96.0.10"),
        ("whoami.default.mesh.local", "A", "whoami.default.mesh.local. 5 IN A 250.96.0.10"),
        ("ns.dns.svc.mesh", "A", "ns.dns.svc.mesh. 5 IN A 240.0.0.53"),
        (
            "_http._tcp.whoami.default.svc.mesh",
            "SRV",
            "_http._tcp.whoami.default.svc.mesh. 5 IN SRV 0 100 80 whoami.default.svc.mesh.",
        ),
        (
            "_peers._UDP.whoami.default.mesh.local",
            "SRV",
            "_peers._UDP.whoami.default.mesh.local. 5 IN SRV 0 100 7946 whoami.default.mesh.local.",
        ),
        ("10.0.96.250.in-addr.arpa", "PTR", "10.0.96.250.in-addr.arpa. 5 IN PTR whoami.default.svc.mesh."),
        ("3.2.1.240.IN-ADDR.arpa", "PTR", "3.2.1.240.IN-ADDR.arpa. 5 IN PTR db.shop.svc.mesh."),
        ("53.0.0.240.in-addr.arpa", "PTR", "53.0.0.240.in-addr.arpa. 5 IN PTR ns.dns.svc.mesh."),
        ("svc.mesh", "SOA", SOA),
        ("mesh.local", "NS", "mesh.local. 5 IN NS ns.dns.mesh.local."),
        ("250.in-addr.arpa", "NS", "250.in-addr.arpa. 5 IN NS ns.dns.svc.mesh."),
        ("whoami.default.svc.mesh", "ANY", 'whoami.default.svc.mesh. 5 IN HINFO "RFC8482" ""'),
    ],
)
def test_record(index: ZoneIndex, name: str, rtype: str, expected: str) -> None:
    reply, result = ask(index, dns.message.make_query(name, rtype))
    assert result == "noerror"
    assert reply.rcode() == dns.rcode.NOERROR
    assert lines(reply.answer) == [expected]
    assert not reply.authority
    assert reply.flags & dns.flags.AA
    assert reply.flags & dns.flags.RD
    assert not reply.flags & (dns.flags.RA | dns.flags.TC)


@pytest.mark.parametrize(
    ("name", "rtype", "soa"),
    [
        ("whoami.default.svc.mesh", "AAAA", "svc.mesh."),
        ("whoami.default.svc.mesh", "TYPE65", "svc.mesh."),
        ("whoami.default.svc.mesh", "SRV", "svc.mesh."),
        ("WHOAMI.default.Mesh.Local", "TXT", "Mesh.Local."),
        ("_http._tcp.whoami.default.svc.mesh", "A", "svc.mesh."),
        ("_tcp.whoami.default.svc.mesh", "SRV", "svc.mesh."),
        ("_udp.whoami.default.svc.mesh", "ANY", "svc.mesh."),
        ("default.svc.mesh", "A", "svc.mesh."),
        ("dns.svc.mesh", "A", "svc.mesh."),
        ("ns.dns.svc.mesh", "AAAA", "svc.mesh."),
        ("svc.mesh", "A", "svc.mesh."),
        ("10.0.96.250.in-addr.arpa", "A", "250.in-addr.arpa."),
        ("96.250.in-addr.arpa", "PTR", "250.in-addr.arpa."),
        ("0.96.250.in-addr.arpa", "PTR", "250.in-addr.arpa."),
        ("255.in-addr.arpa", "PTR", "255.in-addr.arpa."),
    ],
)
def test_nodata(index: ZoneIndex, name: str, rtype: str, soa: str) -> None:
    reply, result = ask(index, dns.message.make_query(name, rtype))
    assert (result, reply.rcode()) == ("nodata", dns.rcode.NOERROR)
    assert not reply.answer
    assert_soa(reply, soa)


@pytest.mark.parametrize(
    ("name", "soa"),
    [
        ("nobody.default.svc.mesh", "svc.mesh."),
        ("nowhere.svc.mesh", "svc.mesh."),
        ("a.whoami.default.svc.mesh", "svc.mesh."),
        ("_https._tcp.whoami.default.svc.mesh", "svc.mesh."),
        ("_http._udp.whoami.default.svc.mesh", "svc.mesh."),
        ("_tcp.plain.default.svc.mesh", "svc.mesh."),
        ("_._tcp.plain.default.svc.mesh", "svc.mesh."),
        ("a._http._tcp.whoami.default.svc.mesh", "svc.mesh."),
        (r"whoami\.default.svc.mesh", "svc.mesh."),
        (r"who\255mi.default.svc.mesh", "svc.mesh."),
        ("nobody.default.mesh.local", "mesh.local."),
        ("12.0.96.250.in-addr.arpa", "250.in-addr.arpa."),
        ("010.0.96.250.in-addr.arpa", "250.in-addr.arpa."),
        ("x.10.0.96.250.in-addr.arpa", "250.in-addr.arpa."),
        (r"10\.0.96.250.in-addr.arpa", "250.in-addr.arpa."),
        ("97.250.in-addr.arpa", "250.in-addr.arpa."),
    ],
)
@pytest.mark.parametrize("rtype", ["A", "PTR", "ANY"])
def test_nxdomain(index: ZoneIndex, name: str, soa: str, rtype: str) -> None:
    reply, result = ask(index, dns.message.make_query(name, rtype))
    assert (result, reply.rcode()) == ("nxdomain", dns.rcode.NXDOMAIN)
    assert not reply.answer
    assert_soa(reply, soa)


def assert_soa(reply: dns.message.Message, owner: str) -> None:
    assert reply.flags & dns.flags.AA
    (soa,) = reply.authority
    assert soa.rdtype == dns.rdatatype.SOA
    assert soa.name.to_text() == owner
    assert soa[0].minimum == soa.ttl == 5


@pytest.mark.parametrize(
    ("name", "rtype", "rclass"),
    [
        ("example.org", "A", "IN"),
        (".", "NS", "IN"),
        ("mesh", "SOA", "IN"),
        ("notsvc.mesh", "A", "IN"),
        ("whoami.default.svc.mesh.default.svc.cluster.local", "A", "IN"),
        ("in-addr.arpa", "PTR", "IN"),
        ("1.0.0.10.in-addr.arpa", "PTR", "IN"),
        ("1.0.0.239.in-addr.arpa", "PTR", "IN"),
        ("0250.in-addr.arpa", "PTR", "IN"),
        ("whoami.default.svc.mesh", "A", "CH"),
        ("whoami.default.svc.mesh", "A", "ANY"),
        ("svc.mesh", "AXFR", "IN"),
    ],
)
def test_refused(index: ZoneIndex, name: str, rtype: str, rclass: str) -> None:
    reply, result = ask(index, dns.message.make_query(name, rtype, rclass))
    assert (result, reply.rcode()) == ("refused", dns.rcode.REFUSED)
    assert not reply.answer
    assert not reply.authority
    assert not reply.flags & dns.flags.AA


@pytest.mark.parametrize(
    ("name", "rtype", "expected"),
    [
        ("_http._tcp.whoami.default.svc.mesh", "SRV", ["whoami.default.svc.mesh. 5 IN A 250.96.0.10"]),
        ("_http._tcp.whoami.default.mesh.local", "SRV", ["whoami.default.mesh.local. 5 IN A 250.96.0.10"]),
        ("svc.mesh", "NS", ["ns.dns.svc.mesh. 5 IN A 240.0.0.53"]),
        ("svc.mesh", "SOA", []),
        ("250.in-addr.arpa", "NS", []),
    ],
)
def test_additional(index: ZoneIndex, name: str, rtype: str, expected: list[str]) -> None:
    reply, _ = ask(index, dns.message.make_query(name, rtype))
    assert lines(reply.additional) == expected


def test_recursion_desired_is_copied(index: ZoneIndex) -> None:
    reply, _ = ask(index, dns.message.make_query("whoami.default.svc.mesh", "A", flags=0))
    assert not reply.flags & dns.flags.RD


class TestEdns:
    def test_payload_is_ours_and_options_are_ignored(self, index: ZoneIndex) -> None:
        cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
        query = dns.message.make_query(
            "whoami.default.svc.mesh", "A", use_edns=0, payload=4096, options=[cookie]
        )
        reply, result = ask(index, query)
        assert (result, reply.edns, reply.payload, reply.options) == ("noerror", 0, EDNS_PAYLOAD, ())
        assert not reply.ednsflags & dns.flags.DO

    def test_dnssec_ok_is_copied(self, index: ZoneIndex) -> None:
        reply, _ = ask(index, dns.message.make_query("whoami.default.svc.mesh", "A", want_dnssec=True))
        assert reply.ednsflags & dns.flags.DO

    def test_no_opt_without_opt(self, index: ZoneIndex) -> None:
        reply, _ = ask(index, dns.message.make_query("whoami.default.svc.mesh", "A", use_edns=False))
        assert reply.edns == -1

    def test_other_errors_have_an_opt(self, index: ZoneIndex) -> None:
        reply, _ = ask(index, dns.message.make_query("example.org", "A", use_edns=0))
        assert (reply.rcode(), reply.edns) == (dns.rcode.REFUSED, 0)

    def test_unknown_version(self, index: ZoneIndex) -> None:
        reply, result = ask(index, dns.message.make_query("whoami.default.svc.mesh", "A", use_edns=1))
        assert (result, reply.rcode(), reply.edns) == ("badvers", dns.rcode.BADVERS, 0)
        assert not reply.answer


class TestTruncation:
    @pytest.fixture
    def long_zone(self, zone: Zone) -> ZoneIndex:
        origin = ".".join("z" * 59 for _ in range(2))
        service = ZoneService("n" * 58, "s" * 59, "250.96.0.1", (ZonePort("p", "tcp", 80),))
        services = {(service.namespace, service.name): service}
        return ZoneIndex(msgspec.structs.replace(zone, origin=origin, aliases=(), services=services))

    def query(self, prefix: str, rtype: str, payload: int) -> dns.message.Message:
        name = ".".join([prefix + "s" * 59, "n" * 58, "z" * 59, "z" * 59])
        return dns.message.make_query(name, rtype, use_edns=0 if payload else False, payload=payload)

    @pytest.mark.parametrize(
        ("payload", "udp", "additional"),
        [
            (0, True, False),
            (100, True, False),
            (530, True, False),
            (552, True, True),
            (4096, True, True),
            (0, False, True),
        ],
    )
    def test_additional_is_left_out_first(
        self, long_zone: ZoneIndex, payload: int, udp: bool, additional: bool
    ) -> None:
        query = self.query("_p._tcp.", "SRV", payload)
        given = answer(long_zone, query.to_wire(), udp=udp)
        assert given.wire is not None
        assert len(given.wire) <= (max(512, payload) if udp else 65535)
        reply = dns.message.from_wire(given.wire)
        assert bool(reply.additional) == additional
        assert bool(reply.answer) != bool(reply.flags & dns.flags.TC)

    def test_truncated(self, long_zone: ZoneIndex) -> None:
        query = self.query("x.", "A", 0)
        short, _ = ask(long_zone, query)
        assert short.flags & dns.flags.TC
        assert not short.answer
        assert not short.authority
        full, _ = ask(long_zone, query, udp=False)
        assert not full.flags & dns.flags.TC
        assert full.authority
        assert full.rcode() == short.rcode() == dns.rcode.NXDOMAIN
        with_edns, _ = ask(long_zone, self.query("x.", "A", 1232))
        assert with_edns.authority
        assert not with_edns.flags & dns.flags.TC


class TestMalformed:
    HEADER = bytes.fromhex("1234 0100 0001 0000 0000 0000")
    QUESTION = b"\x06whoami\x07default\x03svc\x04mesh\0\0\x01\0\x01"
    OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"

    def counts(self, qd: int = 1, an: int = 0, ns: int = 0, ar: int = 0) -> bytes:
        return self.HEADER[:4] + b"".join(n.to_bytes(2, "big") for n in (qd, an, ns, ar))

    @pytest.mark.parametrize("length", range(12))
    def test_too_short_is_not_answered(self, index: ZoneIndex, length: int) -> None:
        assert answer(index, self.HEADER[:length], udp=True).wire is None

    def test_response_is_not_answered(self, index: ZoneIndex) -> None:
        wire = b"\x12\x34\x81\x00" + self.HEADER[4:] + self.QUESTION
        given = answer(index, wire, udp=True)
        assert (given.wire, given.result) == (None, "dropped")

    def test_no_single_question(self, index: ZoneIndex) -> None:
        for wire in (self.counts(0), self.counts(2) + self.QUESTION * 2, self.counts(65535) + self.QUESTION):
            self.assert_formerr(index, wire, question=b"")

    @pytest.mark.parametrize(
        "question",
        [
            b"",
            b"\x06whoa",
            b"\x03svc\x04mesh",
            b"\x03svc\x04mesh\0\0\x01\0",
            b"\xc0\x0c\0\x01\0\x01",
            b"\x03svc\xc0\x00\0\x01\0\x01",
            b"\x40" + b"a" * 64 + b"\0\0\x01\0\x01",
            (b"\x3f" + b"a" * 63) * 4 + b"\0\0\x01\0\x01",
        ],
    )
    def test_broken_question(self, index: ZoneIndex, question: bytes) -> None:
        self.assert_formerr(index, self.HEADER + question, question=b"")

    def test_longest_name_is_sound(self, index: ZoneIndex) -> None:
        question = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0\0\x01\0\x01"
        assert answer(index, self.HEADER + question, udp=True).result == "refused"

    def test_broken_records(self, index: ZoneIndex) -> None:
        for rest in (
            self.counts(ar=0) + self.QUESTION + b"\0",
            self.counts(ar=1) + self.QUESTION,
            self.counts(ar=1) + self.QUESTION + self.OPT[:-1],
            self.counts(ar=1) + self.QUESTION + self.OPT[:-1] + b"\x01",
            self.counts(ar=1) + self.QUESTION + b"\x40" + self.OPT,
            self.counts(ar=1) + self.QUESTION + b"\xc0",
            self.counts(ar=2) + self.QUESTION + self.OPT * 2,
            self.counts(an=1) + self.QUESTION + self.OPT,
            self.counts(ar=1) + self.QUESTION + b"\xc0\x0c" + self.OPT[1:],
            self.counts(ar=65535) + self.QUESTION + self.OPT,
        ):
            self.assert_formerr(index, rest, question=self.QUESTION)

    def assert_formerr(self, index: ZoneIndex, wire: bytes, *, question: bytes) -> None:
        given = answer(index, wire, udp=True)
        assert given.wire is not None
        assert given.wire[12:] == question
        reply = dns.message.from_wire(given.wire)
        assert (given.result, reply.rcode(), reply.id) == ("formerr", dns.rcode.FORMERR, 0x1234)

    def test_other_records_are_passed_over(self, index: ZoneIndex) -> None:
        record = b"\xc0\x0c\0\x06\0\x01\0\0\0\0\0\x02\xff\xff"
        wire = self.counts(ns=1, ar=1) + self.QUESTION + record + self.OPT
        given = answer(index, wire, udp=True)
        assert given.wire is not None
        assert given.result == "noerror"
        assert dns.message.from_wire(given.wire).edns == 0

    @pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 15])
    def test_opcode(self, index: ZoneIndex, opcode: int) -> None:
        wire = self.HEADER[:2] + bytes((opcode << 3 | 1, 0)) + self.HEADER[4:] + self.QUESTION
        given = answer(index, wire, udp=True)
        assert given.wire is not None
        reply = dns.message.from_wire(given.wire)
        assert (given.result, reply.rcode(), reply.opcode()) == ("notimp", dns.rcode.NOTIMP, opcode)
