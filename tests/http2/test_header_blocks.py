"""Header blocks: the examples of RFC 7541, and every way in which they cannot be followed."""

from __future__ import annotations

import hpack
import pytest

from nodeagent.proxy.http2.decoding import BlockReader, CompressionFault
from nodeagent.proxy.http2.field import Field
from nodeagent.proxy.http2.integers import IntegerError, integer, read_integer
from nodeagent.proxy.memory import Memory
from tests.http2.blocks import FieldList, encode, plain

ROOM = 64 * 1024


def reader(table_size: int = 4096) -> BlockReader:
    return BlockReader(Memory(ROOM), ROOM, table_size)


def read(blocks: BlockReader, block: bytes) -> FieldList:
    return [(field.name, field.value) for field in blocks.read(block)]


def table_of(blocks: BlockReader) -> FieldList:
    """What is in the table, the newest first."""
    found: FieldList = []
    while (field := blocks.table.at(len(found) + 1)) is not None:
        found.append((field.name, field.value))
    return found


def fields(text: str) -> FieldList:
    """Fields from `name: value` lines."""
    lines = [line.strip().rpartition(": ") for line in text.strip().splitlines()]
    return [(name.encode(), value.encode()) for name, _, value in lines]


# RFC 7541, appendix C


@pytest.mark.parametrize(
    ("value", "mask", "wire"), [(10, 0x1F, "0a"), (1337, 0x1F, "1f9a0a"), (42, 0xFF, "2a")]
)
def test_c1_integers(value: int, mask: int, wire: str) -> None:
    assert integer(value, mask, 0).hex() == wire
    assert read_integer(bytes.fromhex(wire), 0, mask) == (value, len(wire) // 2)


@pytest.mark.parametrize(
    ("wire", "field", "added"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header"), True),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), False),
        ("100870617373776f726406736563726574", (b"password", b"secret"), False),
        ("82", (b":method", b"GET"), False),
    ],
)
def test_c2_fields(wire: str, field: tuple[bytes, bytes], added: bool) -> None:
    blocks = reader()
    assert read(blocks, bytes.fromhex(wire)) == [field]
    assert table_of(blocks) == ([field] if added else [])


REQUESTS = (
    fields(
        """
        :method: GET
        :scheme: http
        :path: /
        :authority: www.example.com
        """
    ),
    fields(
        """
        :method: GET
        :scheme: http
        :path: /
        :authority: www.example.com
        cache-control: no-cache
        """
    ),
    fields(
        """
        :method: GET
        :scheme: https
        :path: /index.html
        :authority: www.example.com
        custom-key: custom-value
        """
    ),
)
RESPONSES = (
    [
        (b":status", b"302"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        (b"location", b"https://www.example.com"),
    ],
    [
        (b":status", b"307"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        (b"location", b"https://www.example.com"),
    ],
    [
        (b":status", b"200"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
        (b"location", b"https://www.example.com"),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
)
EXAMPLES = {
    "C.3": (
        4096,
        REQUESTS,
        """
            828684410f7777772e6578616d706c652e636f6d

            828684be58086e6f2d6361636865

            828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565
        """,
    ),
    "C.4": (
        4096,
        REQUESTS,
        """
            828684418cf1e3c2e5f23a6ba0ab90f4ff

            828684be5886a8eb10649cbf

            828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf
        """,
    ),
    "C.5": (
        256,
        RESPONSES,
        """
            4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768
            747470733a2f2f7777772e6578616d706c652e636f6d

            4803333037c1c0bf

            88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153
            444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e
            3d31
        """,
    ),
    "C.6": (
        256,
        RESPONSES,
        """
            488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8
            e9ae82ae43d3

            4883640effc1c0bf

            88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b
            3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007
        """,
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_the_rfc(name: str) -> None:
    size, expected, text = EXAMPLES[name]
    blocks = reader()
    if size != 4096:  # what the example presupposes
        blocks.read(integer(size, 0x1F, 0x20))
    theirs = hpack.Decoder()
    theirs.header_table_size = size
    for wanted, wire in zip(expected, text.split("\n\n"), strict=True):
        assert read(blocks, bytes.fromhex(wire)) == wanted
        theirs.decode(bytes.fromhex(wire))
        assert table_of(blocks) == [(bytes(n), bytes(v)) for n, v in theirs.header_table.dynamic_entries]


# What cannot be followed

GOOD = bytes.fromhex("828684410f7777772e6578616d706c652e636f6d")

BROKEN = {
    "index 0": b"\x80",
    "an index behind the static table": b"\xbe",
    "an index far behind it": b"\xff\x80\x01",
    "a name behind the static table": b"\x7e\x01a",
    "an endless index": b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "a padded index": b"\xff\x80\x80\x80\x80\x00",
    "an endless length": b"\x00\x7f\xff\xff\xff\xff\xff\xff\x7f",
    "a length that wraps around in 32 bits": b"\x00\x01a\x7f\x81\xff\xff\xff\x0f",
    "a value longer than the block": b"\x00\x01a\x05abc",
    "a name longer than the block": b"\x00\x7eabc",
    "no value": b"\x41",
    "no value behind a name": b"\x40\x01a",
    "badly padded": b"\x00\x01a\x81\x00",
    "the end's symbol in a value": b"\x00\x01a\x84\xff\xff\xff\xff",
    "the end's symbol in a name": b"\x00\x84\xff\xff\xff\xff\x01a",
    "a resize behind a field": b"\x82\x20",
    "a third resize": b"\x20\x20\x20",
    "a table larger than ours": b"\x3f\xe2\x1f",
    "an endless table": b"\x3f\xff\xff\xff\xff\xff\x7f",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_followed(name: str) -> None:
    with pytest.raises(CompressionFault) as fault:
        reader().read(BROKEN[name])
    assert not fault.value.excessive


@pytest.mark.parametrize("name", [name for name in BROKEN if not name.endswith("behind the static table")])
def test_nor_behind_another_block(name: str) -> None:
    blocks = reader()
    blocks.read(GOOD)
    with pytest.raises(CompressionFault):
        blocks.read(BROKEN[name])


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_block_that_is_cut_short_has_its_first_fields_or_is_refused(name: str) -> None:
    block = bytes.fromhex(EXAMPLES[name][2].split("\n\n")[0])
    whole = read(reader(), block)
    for cut in range(len(block)):
        try:
            found = read(reader(), block[:cut])
        except CompressionFault:
            continue
        assert found == whole[: len(found)]


def test_a_block_that_is_far_too_large_is_not_read() -> None:
    with pytest.raises(CompressionFault) as fault:
        reader().read(b"\x82" * (ROOM + 1))
    assert fault.value.excessive


# The table


def test_a_table_of_another_size() -> None:
    blocks = reader()
    read(blocks, encode([(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]))
    blocks.read(integer(70, 0x1F, 0x20))
    assert table_of(blocks) == [(b"c", b"3"), (b"b", b"2")]
    blocks.read(b"\x3f\xe1\x1f")
    assert table_of(blocks) == [(b"c", b"3"), (b"b", b"2")], "what had fallen out is back"
    blocks.read(b"\x20\x3f\xe1\x1f")
    assert table_of(blocks) == []


def test_a_field_larger_than_the_table_empties_it() -> None:
    blocks = reader()
    read(blocks, encode([(b"a", b"1")]))
    read(blocks, encode([(b"b", b"x" * 5000)]))
    assert table_of(blocks) == []
    read(blocks, encode([(b"c", b"3")]))
    assert table_of(blocks) == [(b"c", b"3")]


def test_a_field_may_be_named_after_one_that_it_pushes_out() -> None:
    blocks = reader()
    name, value = b"n" * 2000, b"v" * 2000
    read(blocks, plain([]) + b"\x40" + integer(2000, 0x7F, 0) + name + integer(2000, 0x7F, 0) + value)
    assert read(blocks, b"\x7e" + integer(2000, 0x7F, 0) + value) == [(name, value)]
    assert table_of(blocks) == [(name, value)]


def test_a_log_that_nobody_refers_to_stays_small() -> None:
    blocks = reader()
    for number in range(10_000):
        read(blocks, b"\x40\x01a\x08%08d" % number)
    table = blocks.table
    assert len(table.fields) * 41 < 3 * 4096
    assert table_of(blocks) == [(b"a", b"%08d" % number) for number in range(9999, 9999 - 4096 // 41, -1)]


def test_a_bomb_is_not_read_to_its_end() -> None:
    """CVE-2016-6581: 64 KiB of references to a field of 4 KB are a head of 256 MB."""
    blocks = reader()
    read(blocks, encode([(b"a", b"x" * 4000)]))
    found = blocks.read(b"\xbe" * 20)
    assert len({id(field) for field in found}) == 1, "references, no copies"
    with pytest.raises(CompressionFault) as fault:
        blocks.read(b"\xbe" * (ROOM - 1))
    assert fault.value.excessive


def test_a_literal_is_checked_once() -> None:
    literals: Memory[bytes, Field] = Memory(ROOM)
    found = []
    for _ in range(4):
        blocks = BlockReader(literals, ROOM, 4096)
        found += blocks.read(plain([(b"x-name", b"value")]))
    assert found[0] is not found[1], "of what comes once nothing is kept"
    assert found[2] is found[1] or found[3] is found[2]


@pytest.mark.parametrize("name", [b"authorization", b"cookie", b"x-token"])
def test_a_secret_is_not_shared(name: bytes) -> None:
    literals: Memory[bytes, Field] = Memory(ROOM)
    found = []
    for _ in range(4):
        found += BlockReader(literals, ROOM, 4096).read(plain([(name, b"value")], never=name == b"x-token"))
    assert len({id(field) for field in found}) == 4
    assert not literals.young


@pytest.mark.parametrize(
    "block",
    [
        b"\x00\x01a" + integer(200, 0x7F, 0) + b"x" * 200,
        b"\x00" + integer(200, 0x7F, 0) + b"n" * 200 + b"\x01x",
        b"\x0f\x2b\x03abc",
        b"\x1f\x2b\x03abc",
        b"\x7a\x03abc",
        b"\x0f\x80\x00\x03abc",
    ],
)
def test_lengths_and_indices_of_every_form(block: bytes) -> None:
    theirs = [(bytes(name), bytes(value)) for name, value in hpack.Decoder().decode(block, raw=True)]
    blocks = reader()
    for _ in range(4):
        assert read(blocks, block) == theirs
        assert read(blocks, block + block) == theirs * 2


def test_an_integer_is_bounded() -> None:
    with pytest.raises(IntegerError):
        read_integer(b"\x1f" + b"\x80" * 4 + b"\x01", 0, 0x1F)
    assert read_integer(b"\x1f\xff\xff\xff\x7f", 0, 0x1F) == (0x1F + 0xFFFFFFF, 5)
