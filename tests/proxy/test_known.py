"""What the memory of heads says is what the codec says, whatever came before."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from nodeagent.proxy.http1 import known
from nodeagent.proxy.http1.head import parse_request, parse_response
from nodeagent.proxy.message import HeadError, RequestHead, ResponseHead
from tests.proxy.messages import random_wire

REQUEST = b"GET /a HTTP/1.1\r\nHost: a\r\nAuthorization: secret\r\n\r\n"


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
    memory = known._requests
    before = len(memory._once)
    reader = known.RequestReader()
    for number in range(500):
        reader.read(b"GET /new/%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
    assert 20 < len(memory._once) - before < 50
    for _ in range(200):  # and is, as soon as that has an end
        reader.read(REQUEST)
    assert reader._news == 0
    assert REQUEST in memory.young
