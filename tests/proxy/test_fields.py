"""All fields of a head at once, as layers read them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from middleware.contract import ReplyHeaders
from nodeagent.proxy.message import Fields, RequestHead, ResponseHead

NAMES = st.sampled_from(["A", "a", "Ab", "B", "X-Forwarded-For", "a-b"])
VALUES = st.text(st.sampled_from("ab: ,;"), max_size=8).map(str.strip)


@given(st.lists(st.tuples(NAMES, VALUES)), st.frozensets(st.sampled_from(["a", "ab", "b", "c"]), min_size=1))
def test_those_of_a_response_are_as_in_a_reply(lines: list[tuple[str, str]], names: frozenset[str]) -> None:
    raw = "".join(f"{name}: {value}\r\n" for name, value in lines).encode()
    fields, reply = Fields(ResponseHead(200, b"1", b"200 OK", raw, 0)), ReplyHeaders(lines)
    assert list(fields) == list(reply) == lines
    assert fields.has_any(names) == reply.has_any(names) == any(name.lower() in names for name, _ in lines)


def test_the_clients_own_x_forwarded_for_is_among_those_of_a_request() -> None:
    head = RequestHead(b"GET", b"/", b"1", b"Host: web\r\n", 0)
    assert list(Fields(head)) == [("Host", "web")]
    head.forwarded_for = b"10.1.0.7"
    assert list(Fields(head)) == [("Host", "web"), ("X-Forwarded-For", "10.1.0.7")]
    assert Fields(head).has_any(frozenset({"x-forwarded-for"}))
