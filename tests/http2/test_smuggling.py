"""No HTTP/2 request becomes two of HTTP/1, or another than it was: what others have fallen for, by name.

Each is refused, or rendered as HTTP/1 it is one request that h11, llhttp and our own parser read alike.
"""

from __future__ import annotations

import pytest

from nodeagent.proxy.body import LAST_CHUNK, chunk
from nodeagent.proxy.http1.head import parse_request
from nodeagent.proxy.http2.headers import StreamFault
from nodeagent.proxy.message import UNTIL_CLOSE, RequestHead
from tests.http2.blocks import FieldList, decoder, encode
from tests.http2.corpus import PASSED, REFUSED, SECOND
from tests.proxy.readers import h11_request, llhttp_request


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    fields, end = REFUSED[name]
    headers = decoder()
    for _ in range(3):
        with pytest.raises(StreamFault):
            headers.request(encode(fields), end)


def rendered(head: RequestHead, body: bytes) -> bytes:
    """What goes to an endpoint of HTTP/1."""
    fields = head.fields + b"X-Forwarded-For: 10.0.0.7\r\n"
    if head.length == UNTIL_CLOSE:
        fields, body = fields + b"Transfer-Encoding: chunked\r\n", chunk(body) + LAST_CHUNK
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (head.method, head.target, fields, body)


@pytest.mark.parametrize("name", PASSED)
def test_one_request_for_everybody(name: str) -> None:
    fields, end, body = PASSED[name]
    head = decoder().request(encode(fields), end)
    data = rendered(head, body)
    ours = parse_request(data)
    assert ours is not None
    assert (ours.method, ours.target) == (head.method, head.target)
    for reader in (h11_request, llhttp_request):
        theirs = reader(data)
        assert theirs.start == (head.method, head.target)
        assert theirs.complete
        assert theirs.body == body
        assert not reader(data[:-1]).complete


@pytest.mark.parametrize(
    "fields",
    [
        [(b"x", b"y\r\n\r\n" + SECOND)],
        [(b"x: y\r\n\r\n" + SECOND + b"z", b"")],
        [(b"x", b"y\n\n" + SECOND)],
        [(b"transfer-encoding", b"chunked")],
        [(b"content-length", b"0")],
        [(b"host", b"b")],
        [(b":path", b"/admin")],
        [(b"X", b"y")],
    ],
)
def test_trailers_are_no_request(fields: FieldList) -> None:
    with pytest.raises(StreamFault):
        decoder().trailers(encode(fields))
