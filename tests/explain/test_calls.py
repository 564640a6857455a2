"""The head of a gRPC call that is explained is what the decoder of HTTP/2 makes of the same fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.explain.asked import read_head, read_url
from nodeagent.explain.model import Question, Unexplained
from nodeagent.proxy.http2.headers import HeaderDecoder, StreamFault
from nodeagent.proxy.http2.literals import compact
from nodeagent.proxy.message import HeadError, TimedRequestHead
from nodeagent.settings import Limits

CALL = ("content-type", "application/grpc")
FIELDS = (
    ("te", "trailers"),
    ("te", "gzip"),
    ("grpc-timeout", "5S"),
    ("grpc-timeout", "soon"),
    ("cookie", "a=1"),
    ("cookie", "b=2"),
    ("connection", "close"),
    ("upgrade", "h2c"),
    ("max-forwards", "0"),
    ("max-forwards", "3"),
    ("content_length", "3"),
    ("x-forwarded-for", "10.0.0.9"),
    ("expect", "100-continue"),
    ("x-user", "ada"),
    ("user agent", "x"),
)


@given(st.sampled_from(["POST", "GET", "OPTIONS", "TRACE"]), st.lists(st.sampled_from(FIELDS), max_size=5))
def test_it_is_read_as_the_decoder_reads_it(method: str, fields: list[tuple[str, str]]) -> None:
    pairs = [(":method", method), (":scheme", "http"), (":path", "/a"), (":authority", "web.a.svc.mesh")]
    block = b"".join(compact(name.encode(), value.encode()) for name, value in (*pairs, *fields, CALL))
    url = "http://web.a.svc.mesh/a"
    question = Question(url, method, (*fields, CALL))
    fault = None
    try:
        expected = HeaderDecoder(Limits()).request(block, False)
    except StreamFault as error:
        fault = error
    if fault is not None:
        with pytest.raises((Unexplained, HeadError)) as caught:
            read_head(question, read_url(url))
        assert fault.detail in str(caught.value)
        assert isinstance(caught.value, Unexplained) == (fault.status == 400)
        return
    head = read_head(question, read_url(url))
    assert type(head) is type(expected)
    assert (head.method, head.target, head.fields, head.length) == (
        expected.method,
        expected.target,
        expected.fields,
        expected.length,
    )
    if isinstance(head, TimedRequestHead) and isinstance(expected, TimedRequestHead):
        assert head.timeout == expected.timeout
