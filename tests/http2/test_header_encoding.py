"""Heads as header blocks: what is indexed and what never is, and how little is written the second time."""

from __future__ import annotations

from collections.abc import Callable

import hpack
import pytest
from hpack.struct import HeaderTuple, NeverIndexedHeaderTuple

from nodeagent.proxy.http2.headers import HeaderEncoder
from nodeagent.proxy.message import RequestHead, ResponseHead
from nodeagent.proxy.streams import Source
from tests.http2.blocks import SOURCE, FieldList, decoder

TABLE_SIZE = 4096


class Peer:
    """An encoder, and the library's decoder at the other end."""

    def __init__(self) -> None:
        self.encoder = HeaderEncoder()
        self.decoder = hpack.Decoder()

    def read(self, block: bytes) -> FieldList:
        return [(bytes(name), bytes(value)) for name, value in self.read_tuples(block)]

    def read_tuples(self, block: bytes) -> list[HeaderTuple]:
        return list(self.decoder.decode(block, raw=True))

    def request(
        self, lines: bytes, path: bytes = b"/", forwarded_for: bytes = b"", source: Source = SOURCE
    ) -> bytes:
        return self.encoder.request(request_head(lines, path, forwarded_for), source)

    def response(self, lines: bytes, status: int = 200) -> bytes:
        return self.encoder.response(ResponseHead(status, b"1", b"%d OK" % status, lines, 0))

    @property
    def table(self) -> FieldList:
        return [(bytes(name), bytes(value)) for name, value in self.decoder.header_table.dynamic_entries]


def request_head(lines: bytes, path: bytes = b"/", forwarded_for: bytes = b"") -> RequestHead:
    head = RequestHead(b"GET", path, b"1", b"Host: a\r\n" + lines, 0)
    head.forwarded_for = forwarded_for
    return head


FIRST = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
LAST = [(b"x-forwarded-for", b"10.0.0.7")]


@pytest.fixture
def peer() -> Peer:
    return Peer()


def test_a_request(peer: Peer) -> None:
    lines = b"User-Agent: curl/8\r\nX-Empty:\r\nx-tab:\t\ta b\t \r\nACCEPT:*/*\r\n"
    wanted = [(b"user-agent", b"curl/8"), (b"x-empty", b""), (b"x-tab", b"a b"), (b"accept", b"*/*")]
    for _ in range(4):
        assert peer.read(peer.request(lines)) == FIRST + wanted + LAST


def test_the_client_is_added_to_those_it_was_forwarded_for(peer: Peer) -> None:
    for _ in range(4):
        assert peer.read(peer.request(b""))[-1] == (b"x-forwarded-for", b"10.0.0.7")
        head = request_head(b"", forwarded_for=b"1.2.3.4, b")
        found = peer.read(peer.encoder.request(head, Source("10.0.0.8")))
        assert found[-1] == (b"x-forwarded-for", b"1.2.3.4, b, 10.0.0.8")


def test_the_authority_comes_before_all_fields(peer: Peer) -> None:
    """A client of HTTP/1 may name its Host last."""
    head = RequestHead(b"OPTIONS", b"*", b"1", b"X: y\r\nZ: z\r\nhOST: a\r\nY: y\r\n", 0)
    first = [(b":method", b"OPTIONS"), (b":scheme", b"http"), (b":path", b"*"), (b":authority", b"a")]
    for _ in range(4):
        found = peer.read(peer.encoder.request(head, SOURCE))
        assert found == [*first, (b"x", b"y"), (b"z", b"z"), (b"y", b"y"), *LAST]


def test_an_empty_host_is_no_authority(peer: Peer) -> None:
    head = RequestHead(b"GET", b"/", b"1", b"Host:\r\nX: y\r\n", 0)
    for _ in range(4):
        assert peer.read(peer.encoder.request(head, SOURCE)) == [*FIRST[:3], (b"x", b"y"), *LAST]


@pytest.mark.parametrize(
    "line", [b"Transfer-Encoding: chunked", b"Connection: x", b"Upgrade: h2c", b"keep-alive: 1"]
)
def test_what_http2_does_not_have_is_left_out(peer: Peer, line: bytes) -> None:
    for _ in range(4):
        assert peer.read(peer.request(b"A: b\r\n" + line + b"\r\nC: d\r\n")) == [
            *FIRST,
            (b"a", b"b"),
            (b"c", b"d"),
            *LAST,
        ]
        assert peer.read(peer.response(line + b"\r\n")) == [(b":status", b"200")]


@pytest.mark.parametrize("size", [1, 2, 126, 127, 128, 300, 20_000])
def test_paths_of_every_length(peer: Peer, size: int) -> None:
    path = b"/" + b"x" * (size - 1)
    for _ in range(3):
        assert peer.read(peer.request(b"", path)) == [*FIRST[:2], (b":path", path), FIRST[3], *LAST]
        assert (b":path", path) not in peer.table


@pytest.mark.parametrize("status", [100, 103, 200, 201, 204, 304, 404, 503, 599])
def test_responses(peer: Peer, status: int) -> None:
    for _ in range(4):
        found = peer.read(peer.response(b"Server: x\r\nSet-Cookie: a=b; path=/\r\nset-cookie: c\r\n", status))
        assert found == [
            (b":status", b"%d" % status),
            (b"server", b"x"),
            (b"set-cookie", b"a=b; path=/"),
            (b"set-cookie", b"c"),
        ]


def test_trailers(peer: Peer) -> None:
    for _ in range(4):
        block = peer.encoder.trailers(b"grpc-status: 0\r\nGrpc-Message:\r\n")
        assert peer.read(block) == [(b"grpc-status", b"0"), (b"grpc-message", b"")]
    assert len(block) == 2
    assert peer.encoder.trailers(b"") == b""


def test_what_comes_again_is_a_byte_or_two(peer: Peer) -> None:
    lines = b"User-Agent: Mozilla/5.0 (X11)\r\nX-Class: batch\r\nAccept-Encoding: gzip, deflate\r\n"
    sizes = []
    for _ in range(4):
        block = peer.request(lines)
        peer.read(block)
        sizes.append(len(block))
    assert sizes[3] == sizes[2] < 15
    assert peer.request(lines) == block


@pytest.mark.parametrize(
    "name",
    [b"date", b"traceparent", b"etag", b"content-length", b"set-cookie", b"grpc-timeout"],
)
def test_what_changes_is_not_indexed(peer: Peer, name: bytes) -> None:
    for _ in range(4):
        peer.read(peer.request(name.title() + b": 0123456789012345678901234567890\r\n"))
    assert name not in dict(peer.table)


@pytest.mark.parametrize(
    ("line", "never"),
    [
        (b"Authorization: Basic YTpi", True),
        (b"Proxy-Authorization: Basic YTpi", True),
        (b"Cookie: a=b", True),
        (b"Set-Cookie: a=b", True),
        (b"x-token:secret", True),
        (b"authorization:Bearer 0123456789abcdef0123456789abcdef", True),
        (b"Authorization: Bearer 0123456789abcdef0123456789abcdef", False),
        (b"Cookie: session=0123456789abcdef0123456789abcdef", False),
        (b"x-token: secret", False),
        (b"x-empty:", False),
    ],
)
def test_what_is_never_indexed(peer: Peer, line: bytes, never: bool) -> None:
    for _ in range(6):
        found = peer.read_tuples(peer.request(line + b"\r\n"))[-2]
    assert isinstance(found, NeverIndexedHeaderTuple) is never
    assert (tuple(found) in peer.table) is not never


def test_never_indexed_stays_so_on_its_way_through(peer: Peer) -> None:
    block = hpack.Encoder().encode([*FIRST, NeverIndexedHeaderTuple(b"x-token", b"secret"), (b"x", b"y")])
    for _ in range(4):
        head = decoder().request(block, True)
        found = peer.read_tuples(peer.encoder.request(head, SOURCE))
        assert [type(field) is NeverIndexedHeaderTuple for field in found[4:6]] == [True, False]


def test_a_secret_is_indexed_by_what_its_own_connection_has_seen() -> None:
    line = b"Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n"
    for _ in range(3):
        peer = Peer()
        peer.read(peer.request(line))
        assert b"authorization" not in dict(peer.table)
        peer.read(peer.request(line))
        assert b"authorization" in dict(peer.table)


def test_a_large_field_is_not_indexed(peer: Peer) -> None:
    for _ in range(6):
        peer.read(peer.request(b"x-large: " + b"x" * 1100 + b"\r\nx-small: " + b"x" * 900 + b"\r\n"))
    assert b"x-small" in dict(peer.table)
    assert b"x-large" not in dict(peer.table)


def test_more_values_than_the_table_holds_do_not_go_round_in_it(peer: Peer) -> None:
    lines = [b"x-user: %060d\r\n" % number for number in range(200)]
    for _ in range(3):
        for line in lines:
            peer.read(peer.request(line))
    before = peer.table
    for line in lines:
        assert peer.read(peer.request(line))[4] == (b"x-user", line[8:-2])
    pushed_out = sum(field not in peer.table for field in before)
    assert 0 < pushed_out <= len(lines) // 64 + 1


class TestResizing:
    """SETTINGS_HEADER_TABLE_SIZE of the peer."""

    LINES = b"X-A: 0123456789\r\nX-B: 0123456789\r\nX-C: 0123456789\r\n"

    @pytest.fixture
    def used(self, peer: Peer) -> Peer:
        for _ in range(4):
            peer.read(peer.request(self.LINES))
        assert len(peer.table) >= 3
        return peer

    def resize(self, peer: Peer, *sizes: int) -> bytes:
        """Resize, and check that what follows is read; the library refuses a table that has not shrunk."""
        for size in sizes:
            peer.encoder.resize(size)
            peer.decoder.max_allowed_table_size = min(size, TABLE_SIZE)
        block = peer.request(self.LINES)
        wanted = [(b"x-a", b"0123456789"), (b"x-b", b"0123456789"), (b"x-c", b"0123456789")]
        assert peer.read(block) == [*FIRST, *wanted, *LAST]
        for _ in range(4):
            again = peer.request(self.LINES)
            assert peer.read(again) == [*FIRST, *wanted, *LAST]
        assert again[0] & 0xE0 != 0x20, "said once"
        return block

    def test_to_nothing(self, used: Peer) -> None:
        assert self.resize(used, 0)[:1] == b"\x20"
        assert used.table == []

    def test_to_less(self, used: Peer) -> None:
        assert self.resize(used, 100).startswith(b"\x3f\x45")
        assert sum(len(name) + len(value) + 32 for name, value in used.table) <= 100

    def test_to_more_than_we_use(self, used: Peer) -> None:
        assert self.resize(used, 65536)[0] & 0xE0 != 0x20
        assert len(used.table) >= 3

    def test_to_nothing_and_back(self, used: Peer) -> None:
        assert self.resize(used, 0, 4096).startswith(b"\x20\x3f\xe1\x1f")

    def test_up_and_down_the_least_is_told_and_the_last(self, used: Peer) -> None:
        assert self.resize(used, 1000, 200, 3000, 500).startswith(b"\x3f\xa9\x01\x3f\xd5\x03")

    def test_to_the_same(self, used: Peer) -> None:
        assert self.resize(used, 4096)[0] & 0xE0 != 0x20

    def test_a_block_of_any_kind_tells(self, peer: Peer) -> None:
        writers: list[Callable[[], bytes]] = [
            lambda: peer.response(b""),
            lambda: peer.encoder.trailers(b"a: b\r\n"),
        ]
        for write in writers:
            write()
            write()
            write()
            for size in (0, 4096):
                peer.encoder.resize(size)
                peer.decoder.max_allowed_table_size = size
                assert write()[0] & 0xE0 == 0x20
                assert write()[0] & 0xE0 != 0x20
