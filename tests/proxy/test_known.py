"""What the memory of heads says is what the codec says, whatever came before."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from nodeagent.proxy.http1 import known, varying
from nodeagent.proxy.http1.head import parse_request, parse_response
from nodeagent.proxy.message import HeadError, RequestHead, ResponseHead
from tests.proxy.messages import random_wire

REQUEST = b"GET /a HTTP/1.1\r\nHost: a\r\nAuthorization: secret\r\n\r\n"


@pytest.fixture(autouse=True)
def forget() -> None:
    """Begin each test with empty memories."""
    memories: tuple[Any, ...] = (known._requests, known._responses, varying._templates)
    for memory in memories:
        memory.clear()
        memory._once.clear()


def said(read: Callable[..., RequestHead | ResponseHead | None], *args: Any) -> tuple[Any, ...]:
    """Return all that is said of a head: its fields, or why it is refused, or that it is not there."""
    try:
        head = read(*args)
    except HeadError as error:
        return error.reason, error.status, str(error)
    return () if head is None else tuple(getattr(head, name) for name in fields(head))


def fields(head: RequestHead | ResponseHead) -> list[str]:
    """Return the names of what a head holds; a compiled class has no `__slots__`."""
    return [name for name in dir(head) if name[0] != "_" and not callable(getattr(head, name))]


@pytest.mark.parametrize("request_side", [True, False])
def test_the_memory_and_the_codec_agree(request_side: bool) -> None:
    """Each message comes four times, the last two from the memory, among thousands of others."""
    chance = random.Random(9)
    requests, responses = known.RequestReader(), known.ResponseReader()
    recent: list[bytes] = []
    for _ in range(12_000):
        recent.append(random_wire(chance, request_side))
        data = chance.choice(recent[-20:])
        data = data[: chance.randrange(len(data) + 1)] if chance.random() < 0.1 else data
        if chance.random() < 0.05:
            requests, responses = known.RequestReader(), known.ResponseReader()
        for _ in range(4):
            if request_side:
                before = chance.choice((b"", b"x" * chance.randrange(50)))
                args: tuple[Any, ...] = (before + data, b"default", len(before))
                assert said(requests.read, *args) == said(parse_request, *args)
            else:
                args = (data, chance.random() < 0.2)
                assert said(responses.read, *args) == said(parse_response, *args)


def test_a_head_that_came_before_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        known.RequestReader().read(REQUEST)
    monkeypatch.setattr(known, "parse_request", None)
    assert known.RequestReader().read(REQUEST) is not None
    assert known.RequestReader().read(b"before" + REQUEST + b"behind", b"", 6) is not None


def test_what_a_layer_makes_of_a_head_is_not_remembered() -> None:
    for _ in range(4):
        head = known.RequestReader().read(REQUEST)
        assert head is not None
        assert head.target == b"/a"
        head.target = b"/changed"
        head.fields += b"X-Added: 1\r\n"


def test_a_host_that_is_the_listeners_is_not_remembered() -> None:
    for host in (b"one", b"one", b"one", b"two"):
        head = known.RequestReader().read(b"GET / HTTP/1.0\r\n\r\n", host)
        assert head is not None
        assert head.fields == b"Host: %b\r\n" % host


def test_an_answer_to_head_is_another_head() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    for to_head in (False, False, False, True, False):
        head = known.ResponseReader().read(data, to_head)
        assert head is not None
        assert head.length == (0 if to_head else 5)


def test_what_is_refused_is_never_remembered() -> None:
    bad = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n"
    for _ in range(4):
        with pytest.raises(HeadError):
            known.RequestReader().read(bad)


def is_its_own(head: Any, name: str) -> bool:
    """Whether a head has this field, and not its class for all of them."""
    try:
        setattr(head, name, getattr(head, name))
    except AttributeError:
        return False
    return True


@pytest.mark.parametrize(
    "head", [RequestHead(b"a", b"b", b"c", b"d", 1), ResponseHead(2, b"e", b"f", b"g", 3)], ids=type
)
def test_a_copy_has_all_that_the_original_has(head: Any) -> None:
    names = [one for one in fields(head) if is_its_own(head, one)]
    for number, name in enumerate(names):
        value = getattr(head, name)
        new: Any = not value if isinstance(value, bool) else 100 + number
        setattr(head, name, b"value %d" % number if isinstance(value, bytes) else new)
    copy = head.copy(7)
    assert len(names) > 5
    for name in names:
        assert getattr(copy, name) == (7 if name == "end" else getattr(head, name)), name


def test_who_says_something_new_each_time_is_hardly_looked_up() -> None:
    reader = known.RequestReader()
    for number in range(500):
        reader.read(b"GET / HTTP/1.1\r\nHost: a\r\nX-New: %d\r\n\r\n" % number)
    assert 20 < len(known._requests._once) + len(varying._templates._once) < 50
    for _ in range(200):  # and is, as soon as that has an end
        reader.read(REQUEST)
    assert reader._news == 0


TRACED = (
    b"traceparent: %b",
    b"Traceparent:%b",
    b"X-Request-Id: %b",
    b"x-request-id:\t%b ",
    b"b3: %b",
    b"Connection: traceparent, %b",
    b"Accept: %b",
)
VALUES = (b"00-%d-01", b"%d", b"\xff%d", b"", b"a\rb%d", b"a\nb%d", b"a\x00%d", b"%d\r\nHost: b", b"  %d\t")


def varied(chance: random.Random, pieces: list[bytes]) -> bytes:
    """Return what stands between the places of a head, with new values in these places."""
    likely = VALUES[:2] if chance.random() < 0.8 else VALUES
    out = [pieces[0]]
    for piece in pieces[1:]:
        value = chance.choice(likely)
        out += (value % chance.randrange(10**6) if b"%d" in value else value, piece)
    return b"".join(out)


def test_the_memory_and_the_codec_agree_on_heads_that_differ_in_their_identifiers() -> None:
    """Each comes twelve times, with other identifiers, and some with other targets, on a few connections."""
    chance = random.Random(4)
    readers = [known.RequestReader() for _ in range(3)]
    looked_up = 0
    for _ in range(2_000):
        lines = random_wire(chance, True).split(b"\r\n")
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(1, len(lines) + 1)
            lines.insert(at, chance.choice(TRACED) % b"PLACE")
        if chance.random() < 0.3:
            lines[0] = lines[0].replace(b"/", b"/PLACE", 1)
        pieces = b"\r\n".join(lines).split(b"PLACE")
        if chance.random() < 0.2:
            readers[chance.randrange(3)] = known.RequestReader()
        for _ in range(12):
            data = varied(chance, pieces)
            before = b"x" * chance.randrange(3)
            reader = chance.choice(readers)
            args = (before + data, b"default", len(before))
            assert said(reader.read, *args) == said(parse_request, *args), data
            looked_up += reader._news == 0 and reader._cuts is not None
    assert looked_up > 400


def read_all(reader: known.RequestReader, heads: Iterable[bytes]) -> None:
    """Have the reader say of each of these what the codec says."""
    for data in heads:
        assert said(reader.read, data) == said(parse_request, data)


HEAD = b"GET /a/%d HTTP/1.1\r\nHost: a\r\ntraceparent: 00-%d-01\r\nX-Request-Id: %d\r\nAccept: */*\r\n\r\n"


def test_a_head_with_another_identifier_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = known.RequestReader()
    read_all(reader, (HEAD % (1, number, number) for number in range(3)))
    monkeypatch.setattr(known, "parse_request", None)
    head = reader.read(HEAD % (1, 77, 78))
    assert head is not None
    assert head.fields == b"Host: a\r\ntraceparent: 00-77-01\r\nX-Request-Id: 78\r\nAccept: */*\r\n"


def test_one_with_another_target_is_not_either(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = known.RequestReader()
    read_all(reader, (HEAD % (number, number, number) for number in range(8)))
    monkeypatch.setattr(known, "parse_request", None)
    head = reader.read(HEAD % (77, 78, 79))
    assert head is not None
    assert (head.target, head.end) == (b"/a/77", len(HEAD % (77, 78, 79)))


@pytest.mark.parametrize(
    "value", [b"\x00", b"a\rb", b"a\nb", b"1\r\nContent-Length: 5", b"1\r\nHost: b", b"1\r\n folded"]
)
def test_an_identifier_is_no_way_past_the_codec(value: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nb3: %b\r\n\r\n"
    reader = known.RequestReader()
    read_all(reader, [head % b"1", head % b"2", head % b"3", head % value, head % b"4", head % value])


@pytest.mark.parametrize(
    "target", [b"/#x", b"/a\\b", b"http://b/", b"*", b"a", b"", b"/\xff", b"/ /", b"/\t"]
)
def test_a_target_is_no_way_past_the_codec(target: bytes) -> None:
    head = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"
    reader = known.RequestReader()
    read_all(reader, [head % (b"/%d" % number) for number in range(8)])
    assert reader._news == 0
    read_all(reader, [head % target, head % b"/9", head % target])


def test_identifiers_are_in_no_memory() -> None:
    reader = known.RequestReader()
    read_all(reader, (HEAD % (1, number, 987_654) for number in range(20)))
    kept = [b"".join((*parts, *template.pieces)) for parts, template in varying._templates.young.items()]
    assert kept
    assert not any(b"987654" in one for one in kept)
