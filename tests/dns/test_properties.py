"""Whatever bytes come: no exception, and an answer is well-formed and to this question, cached or not."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from discovery.dns.answer import EDNS_PAYLOAD, answer
from discovery.dns.cache import AnswerCache
from discovery.dns.index import ZoneIndex
from discovery.dns.query import QueryRejected, parse_query
from discovery.dns.responder import Responder
from discovery.dns.zone import Zone

SOURCE = ("192.0.2.1", 5353)
LABELS = [
    "whoami",
    "default",
    "plain",
    "shop",
    "db",
    "svc",
    "mesh",
    "local",
    "_http",
    "_tcp",
    "_udp",
    "ns",
    "dns",
]
LABELS += ["10", "0", "96", "250", "in-addr", "arpa", "WHOAMI", "Default", "nobody", "org", "K", "@["]
SUFFIXES = [
    (),
    ("svc", "mesh"),
    ("SVC", "Mesh"),
    ("mesh", "local"),
    ("default", "svc", "mesh"),
    ("in-addr", "arpa"),
]
COOKIE: dns.edns.Option = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A query as a client might send it."""
    labels = draw(st.lists(st.sampled_from(LABELS), max_size=5)) + list(draw(st.sampled_from(SUFFIXES)))
    name = dns.name.Name([label.encode() for label in labels] + [b""])
    rtype = draw(st.sampled_from(["A", "AAAA", "SRV", "PTR", "NS", "SOA", "ANY", "TYPE65", "TYPE97", "AXFR"]))
    edns = draw(st.sampled_from([False, 0, 0, 1]))
    query = dns.message.make_query(
        name,
        rtype,
        draw(st.sampled_from(["IN", "IN", "IN", "CH"])),
        use_edns=edns,
        payload=draw(st.sampled_from([512, 1232, 4096])) if edns is not False else None,
        options=draw(st.sampled_from([[], [], [COOKIE]])) if edns is not False else None,
        flags=draw(st.sampled_from([0, dns.flags.RD, dns.flags.RD | dns.flags.AD, dns.flags.CD])),
    )
    return query.to_wire()


@st.composite
def mutated_messages(draw: st.DrawFn) -> bytes:
    """A query with bytes changed, cut off, doubled or put in."""
    wire = bytearray(draw(messages()))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(wire)))
        match draw(st.sampled_from(["set", "set", "cut", "insert", "double"])):
            case "set" if at < len(wire):
                wire[at] = draw(st.integers(0, 255))
            case "cut":
                del wire[at:]
            case "insert":
                wire[at:at] = draw(st.binary(max_size=12))
            case "double":
                wire += wire[at:]
    return bytes(wire)


packets = st.one_of(messages(), mutated_messages(), st.binary(max_size=600))


def assert_answers(wire: bytes, reply: bytes, limit: int) -> None:
    assert len(reply) <= limit
    assert reply[:2] == wire[:2]
    message = dns.message.from_wire(reply)
    assert message.flags & dns.flags.QR
    assert not message.flags & dns.flags.RA
    assert message.flags & dns.flags.RD == int.from_bytes(wire[2:4], "big") & dns.flags.RD
    assert reply[2] & 0x78 == wire[2] & 0x78
    try:
        end = parse_query(wire).question_end
    except QueryRejected as rejected:
        end = rejected.question_end
    assert reply[12:end] == wire[12:end]
    assert bool(message.question) == bool(end)


@settings(max_examples=500)
@given(packets)
def test_every_answer_is_sound(index: ZoneIndex, wire: bytes) -> None:
    for udp, limit in ((True, EDNS_PAYLOAD), (False, 65535)):
        reply = answer(index, wire, udp=udp).wire
        if reply is None:
            assert len(wire) < 12 or wire[2] & 0x80
        else:
            assert_answers(wire, reply, limit)


@settings(max_examples=300)
@given(messages())
def test_what_a_client_makes_is_never_malformed(index: ZoneIndex, wire: bytes) -> None:
    result = answer(index, wire, udp=True).result
    assert result in ("noerror", "nodata", "nxdomain", "refused", "badvers")
    assert (result == "badvers") == (dns.message.from_wire(wire).edns == 1)


# Type 0x41 is a capital A in the bytes of the query, 0x61 the small one: not one question in two cases.
@example(
    [
        b"\0\1\1\0\0\1\0\0\0\0\0\0\x06whoami\x07default\x03svc\x04mesh\0" + t
        for t in (b"\0\x41\0\1", b"\0\x61\0\1")
    ]
)
@example([b"\0\1\1\0\0\1\0\0\0\0\0\0\x04mesh\0" + t for t in (b"\x41\x01\0\1", b"\x61\x01\0\1")])
@settings(max_examples=300)
@given(st.lists(packets, min_size=1, max_size=12))
def test_the_cache_changes_nothing(index: ZoneIndex, wires: list[bytes]) -> None:
    cached, plain = Responder(index, AnswerCache(3)), Responder(index, None)
    for wire in [*wires, *(wire.swapcase() for wire in wires), *wires, *wires]:
        expected = answer(index, wire, udp=True).wire
        assert cached.respond_udp(wire, SOURCE) == expected
        assert plain.respond_udp(wire, SOURCE) == expected
        assert cached.counters == plain.counters


def query(name: str, rtype: str = "A") -> bytes:
    return dns.message.make_query(name, rtype, id=1).to_wire()


def test_cached_answers_are_in_the_case_asked(index: ZoneIndex) -> None:
    responder = Responder(index, AnswerCache())
    for name in ("whoami.default.svc.mesh", "WHOAMI.default.SVC.mesh", "whoami.default.svc.mesh"):
        reply = responder.respond_udp(query(name), SOURCE)
        assert reply is not None
        assert dns.message.from_wire(reply).answer[0].name.to_text() == f"{name}."


@pytest.mark.parametrize(
    ("name", "rtype", "kept"),
    [
        ("whoami.default.svc.mesh", "A", True),
        ("whoami.default.svc.mesh", "AAAA", True),
        ("_http._tcp.whoami.default.svc.mesh", "SRV", True),
        ("10.0.96.250.in-addr.arpa", "PTR", True),
        ("whoami.default.svc.mesh", "TYPE4242", False),
        ("nobody.default.svc.mesh", "A", False),
        ("example.org", "A", False),
    ],
)
def test_what_is_cached(index: ZoneIndex, name: str, rtype: str, kept: bool) -> None:
    cache = AnswerCache()
    Responder(index, cache).respond_udp(query(name, rtype), SOURCE)
    assert len(cache) == kept


def test_options_are_not_cached(index: ZoneIndex) -> None:
    cache = AnswerCache()
    responder = Responder(index, cache)
    with_cookie = dns.message.make_query("whoami.default.svc.mesh", "A", use_edns=0, options=[COOKIE])
    for _ in range(2):
        assert (
            responder.respond_udp(with_cookie.to_wire(), SOURCE)
            == answer(index, with_cookie.to_wire(), udp=True).wire
        )
    assert len(cache) == 0


def test_another_zone_empties_the_cache(zone: Zone, index: ZoneIndex) -> None:
    cache = AnswerCache()
    responder = Responder(index, cache)
    first = responder.respond_udp(query("whoami.default.svc.mesh"), SOURCE)
    responder.use(ZoneIndex(Zone("svc.mesh", (), 8, zone.network, zone.nameserver, {})))
    assert len(cache) == 0
    second = responder.respond_udp(query("whoami.default.svc.mesh"), SOURCE)
    assert first is not None
    assert second is not None
    assert dns.message.from_wire(first).answer
    assert not dns.message.from_wire(second).answer
