"""Header blocks are followed as the `hpack` library follows them, and what passes as a head passes `h2`.

And whatever is made of a head, HTTP/1 reads the same of it: one message, with these fields, that ends where
the stream does. `FUZZ_EXAMPLES=100000` runs so many examples of each test, others every time; `-k many` runs
three times as many without hypothesis, and nine times as many on compiled code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

import hpack
import pytest
from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers
from hpack.exceptions import HPACKError
from hypothesis import HealthCheck, given, settings

from nodeagent.compiled import is_compiled
from nodeagent.proxy.body import LAST_CHUNK, chunk
from nodeagent.proxy.http1.head import parse_request, parse_response
from nodeagent.proxy.http2.decoding import BlockReader
from nodeagent.proxy.http2.headers import (
    CompressionFault,
    HeaderDecoder,
    HeaderEncoder,
    Shared,
    StreamFault,
)
from nodeagent.proxy.memory import Memory
from nodeagent.proxy.message import NO_BODY, UNTIL_CLOSE, RequestHead, ResponseHead
from nodeagent.settings import Limits
from tests.http2.blocks import SOURCE, FieldList, decoder, encode, never_indexed, value_of
from tests.http2.generated import METHODS, PATHS, SEEDS, random_block, random_fields
from tests.proxy.readers import Reading, fields_of, h11_request, h11_response, llhttp_request, llhttp_response

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "300"))
MANY: Final = EXAMPLES * (9 if is_compiled() else 3)
"""Without hypothesis more can be tried, and compiled code has more ways to fail."""
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
LIMITS: Final = Limits()
BODY: Final = b"abc"


# Blocks


def _more_than_two_resizes(block: bytes) -> bool:
    """The library does not count them."""
    position = resizes = 0
    while position < len(block) and block[position] & 0xE0 == 0x20:
        resizes += 1
        _, used = hpack.hpack.decode_integer(block[position:], 5)
        position += used
    return resizes > 2


def check_blocks(random: Random) -> int:
    """Read the blocks of a connection with both; return how many were right."""
    literals: Memory[bytes, Any] = Memory(1 << 20)
    ours, theirs = BlockReader(literals, 1 << 16, 4096), hpack.Decoder(max_header_list_size=1 << 30)
    sent: list[bytes] = []
    entries = 0
    for number in range(12):
        block = random.choice(sent) if sent and random.random() < 0.4 else random_block(random, entries)
        sent.append(block)
        try:
            wanted = [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)]
        except HPACKError as error:
            with pytest.raises(CompressionFault):
                pytest.fail(f"{block.hex()} is read, they say {error}: {ours.read(block)}")
            return number
        if _more_than_two_resizes(block):
            with pytest.raises(CompressionFault):
                ours.read(block)
            return number
        found = [(field.name, field.value) for field in ours.read(block)]
        assert found == wanted, block.hex()
        table = [(bytes(name), bytes(value)) for name, value in theirs.header_table.dynamic_entries]
        entries = len(table)
        in_table = [ours.table.at(index) for index in range(1, entries + 2)]
        assert [(one.name, one.value) for one in in_table if one] == table, block.hex()
        assert ours.size == sum(len(name) + len(value) + 32 for name, value in wanted)
    return 12


@fuzz
@given(SEEDS)
def test_blocks_are_followed_as_hpack_follows_them(seed: int) -> None:
    check_blocks(Random(seed))


# Heads


def _valid(fields: FieldList, request: bool) -> bool:
    """What h2 says; it does not know that authorities are equal in capitals (RFC 3986 section 3.2.2)."""
    fields = [(name, value.lower() if name in (b":authority", b"host") else value) for name, value in fields]
    flags = HeaderValidationFlags(
        is_client=not request, is_trailer=False, is_response_header=not request, is_push_promise=False
    )
    try:
        list(validate_headers(fields, flags))
    except ProtocolError:
        return False
    return True


def _rendered(head: RequestHead, end: bool) -> tuple[bytes, bytes]:
    """The message that HTTP/1 makes of a head and of DATA `abc`, and its body."""
    body = b"" if end else BODY[: head.length] if head.length >= 0 else BODY
    fields = head.fields
    if head.forwarded_for:
        fields += b"X-Forwarded-For: " + head.forwarded_for + b"\r\n"
    framed = body
    if head.length == UNTIL_CLOSE:
        fields += b"Transfer-Encoding: chunked\r\n"
        framed = chunk(body) + LAST_CHUNK
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (head.method, head.target, fields, framed), body


def _wanted_fields(fields: FieldList, head: RequestHead) -> FieldList:
    """The fields that an endpoint of HTTP/1 should see, found without the code that is tested."""
    values = dict(fields)
    wanted = [(b"host", values.get(b":authority", values.get(b"host", b"")))]
    crumbs = [value for name, value in fields if name == b"cookie"]
    for name, value in fields:
        if name[:1] == b":" or name in (b"host", b"x-forwarded-for"):
            continue
        if name == b"cookie" and len(crumbs) > 1:
            continue
        if name == b"expect" and head.length == NO_BODY:
            continue
        wanted.append((name, value))
    if len(crumbs) > 1:
        wanted.append((b"cookie", b"; ".join(crumbs)))
    forwarded = b", ".join(value for name, value in fields if name == b"x-forwarded-for" and value)
    if forwarded:
        wanted.append((b"x-forwarded-for", forwarded))
    return wanted


def check_request(random: Random) -> bool:
    """Read a request; return whether it was accepted."""
    fields, end = random_fields(random, request=True), random.random() < 0.5
    try:
        head = decoder().request(encode(fields), end)
    except StreamFault:
        return False
    assert _valid(fields, request=True), fields
    data, body = _rendered(head, end)
    if head.length > len(BODY):
        return True
    ours = parse_request(data)
    assert ours is not None, data
    assert ours.method == head.method
    assert ours.target == head.target
    assert ours.forwarded_for == head.forwarded_for
    assert ours.trailers == head.trailers
    assert ours.keep_alive
    added = [(b"content-length", b"0")] if b"content-length" not in dict(fields) and end else []
    for reader in (h11_request, llhttp_request):
        if reader is llhttp_request and head.method not in METHODS:
            continue  # RFC 9110 section 16.1.1 lets methods be extended; llhttp has a fixed list of them
        theirs = reader(data)
        assert theirs.start == (head.method, head.target), data
        found = [field for field in theirs.fields if field not in added and field[0] != b"transfer-encoding"]
        assert sorted(found) == sorted(_wanted_fields(fields, head)), data
        _is_one_message(reader, data, theirs, body)
    return True


def _is_one_message(reader: Callable[[bytes], Reading], data: bytes, theirs: Reading, body: bytes) -> None:
    assert theirs.complete, data
    assert theirs.body == body, data
    assert not reader(data[:-1]).complete, data


@fuzz
@given(SEEDS)
def test_a_request_passes_h2_and_is_one_request_of_http1(seed: int) -> None:
    check_request(Random(seed))


def check_response(random: Random) -> bool:
    """Read a response; return whether it was accepted."""
    fields, end = random_fields(random, request=False), random.random() < 0.5
    to_head = random.random() < 0.2
    try:
        head = decoder().response(encode(fields), end, to_head)
    except StreamFault:
        return False
    assert _valid(fields, request=False), fields
    body = b"" if end or head.length == NO_BODY else BODY[: head.length] if head.length >= 0 else BODY
    if head.length > len(BODY):
        return True
    lines, framed = head.fields, body
    if head.length == UNTIL_CLOSE:
        lines += b"Transfer-Encoding: chunked\r\n"
        framed = chunk(body) + LAST_CHUNK
    data = b"HTTP/1.1 %b\r\n%b\r\n%b" % (head.status_line, lines, framed)
    assert parse_response(data, to_head) is not None
    dropped = {b"content-length"} if head.status < 200 or head.status == 204 else set()
    wanted = [field for field in fields if field[0][:1] != b":" and field[0] not in dropped]
    added = [(b"content-length", b"0")] if b"content-length" not in dict(fields) and end else []
    readers: list[Callable[[bytes], Reading]] = [lambda data: h11_response(data, to_head)]
    if not to_head:
        readers.append(llhttp_response)
    for reader in readers:
        theirs = reader(data)
        assert theirs.start == (b"%d" % head.status,), data
        found = [field for field in theirs.fields if field not in added and field[0] != b"transfer-encoding"]
        assert found == wanted, data
        assert theirs.body == body
        assert theirs.complete
    return True


@fuzz
@given(SEEDS)
def test_a_response_passes_h2_and_is_one_response_of_http1(seed: int) -> None:
    check_response(Random(seed))


# Memories


def check_memories(random: Random) -> None:
    """What was read before makes no difference: not on the connection, not on others."""
    shared, request = Shared(), random.random() < 0.7
    heads = [random_fields(random, request) for _ in range(3)]
    for _ in range(4):
        encoder, warm, cold = hpack.Encoder(), HeaderDecoder(LIMITS, 4096, shared), decoder()
        for _ in range(6):
            fields: list[Any] = list(random.choice(heads))
            if random.random() < 0.3:
                fields = [never_indexed(*one) if random.random() < 0.3 else one for one in fields]
            if random.random() < 0.6:
                path = never_indexed(b":path", random.choice(PATHS))
                fields = [path if one[0] == b":path" else one for one in fields]
            if random.random() < 0.1:
                encoder.header_table_size = random.choice((0, 60, 200, 4096))
            block = encoder.encode(fields, huffman=random.random() < 0.5)
            kind = random.choice(("head", "head", "head", "trailers", "skipped"))
            end = random.random() < 0.6
            found = [_read(headers, block, kind, request, end) for headers in (warm, cold)]
            assert found[0] == found[1], (fields, block.hex())


def _read(headers: HeaderDecoder, block: bytes, kind: str, request: bool, end: bool) -> object:
    try:
        if kind == "skipped":
            headers.skip(block)
            return None
        if kind == "trailers":
            return headers.trailers(block)
        return value_of(headers.request(block, end) if request else headers.response(block, end))
    except StreamFault as fault:
        return (fault.reason, fault.detail, fault.status)


@fuzz
@given(SEEDS)
def test_what_is_remembered_makes_no_difference(seed: int) -> None:
    check_memories(Random(seed))


# The encoder


def check_encoder(random: Random) -> None:
    """Whatever is written, the library reads it, and we do; the tables of both stay alike."""
    encoder, theirs, again = HeaderEncoder(), hpack.Decoder(), decoder()
    heads: list[RequestHead] = []
    while len(heads) < 4:
        try:
            block = encode(random_fields(random, request=True))
            heads.append(decoder().request(block, random.random() < 0.5))
        except StreamFault:
            continue
    for _ in range(12):
        if random.random() < 0.15:
            for _ in range(random.choice((1, 1, 2, 3))):
                encoder.resize(random.choice((0, 50, 100, 300, 4096, 65536)))
        head = random.choice(heads)
        if random.random() < 0.3:
            head.target = b"/" + b"x" * random.randint(0, 200)
        if random.random() < 0.3:
            head.fields += b"x-new: %d\r\n" % random.randrange(5)
        kind = random.random()
        if kind < 0.6:
            block = encoder.request(head, SOURCE)
            first = [
                (b":method", head.method),
                (b":scheme", b"http"),
                (b":path", head.target),
                (b":authority", fields_of(head.fields)[0][1]),
            ]
            before = head.forwarded_for + b", " if head.forwarded_for else b""
            last = [(b"x-forwarded-for", before + SOURCE.address_bytes)]
            wanted = first + fields_of(head.fields)[1:] + last
            read = again.request(block, head.length == NO_BODY)
            assert (read.method, read.target, read.trailers) == (head.method, head.target, head.trailers)
            assert read.forwarded_for == before + SOURCE.address_bytes
            if head.length != NO_BODY:
                assert fields_of(read.fields) == fields_of(head.fields)
            never = {line for line in head.fields.split(b"\r\n") if b": " not in line}
            assert never <= set(read.fields.split(b"\r\n")), "what must never be indexed still must not"
        elif kind < 0.8:
            answer = ResponseHead(random.choice((200, 404, 299)), b"1", b"", head.fields, 0)
            answer.status_line = b"%d x" % answer.status
            block = encoder.response(answer)
            fields = [(name, value) for name, value in fields_of(head.fields) if name != b"host"]
            wanted = [(b":status", b"%d" % answer.status), *fields]
            wanted.insert(1, (b":authority", fields_of(head.fields)[0][1]))
            again.skip(block)
        else:
            block = encoder.trailers(b"a: b\r\nC: d\r\n")
            wanted = [(b"a", b"b"), (b"c", b"d")]
            assert again.trailers(block) == b"a: b\r\nc: d\r\n"
        found = [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)]
        assert found == wanted, block.hex()


@fuzz
@given(SEEDS)
def test_what_is_written_is_read(seed: int) -> None:
    check_encoder(Random(seed))


# More


@pytest.mark.timeout(0 if "FUZZ_EXAMPLES" in os.environ else 120)
@pytest.mark.parametrize(
    "check", [check_blocks, check_request, check_response, check_memories, check_encoder]
)
def test_many_more(check: Callable[[Random], object]) -> None:
    random = Random(f"{datetime.now(UTC)}" if "FUZZ_EXAMPLES" in os.environ else 1)
    for _ in range(MANY):
        seed = random.getrandbits(64)
        try:
            check(Random(seed))
        except BaseException:
            print(f"{check.__name__}(Random({seed}))")
            raise


def test_most_of_what_is_generated_is_compared() -> None:
    """The fuzzing is worth something only if a good part of it is accepted, and a good part refused."""
    for check in (check_request, check_response):
        accepted = sum(check(Random(seed)) for seed in range(400))
        assert 80 < accepted < 360
    assert sum(check_blocks(Random(seed)) for seed in range(100)) > 200
