"""The responses that the mesh itself makes: valid to others, honest, and closed to injection."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.contract import (
    ConnectFailed,
    ExchangeError,
    NoEndpoint,
    Rejected,
    Reply,
    UpstreamProtocolError,
    UpstreamReset,
)
from nodeagent.proxy.errors import (
    BadRequest,
    BodyTimeout,
    HeadTimeout,
    IdleTimeout,
    NoRoute,
    NoRule,
    NoWebSockets,
    PoolFull,
    PoolTimeout,
    ResponseTimeout,
    UpstreamStalled,
    reply_to,
    signed,
)
from nodeagent.proxy.http1.render import render_reply
from nodeagent.proxy.message import HeadError
from tests.proxy.readers import Reading, ResponseDriver, drive, h11_response, llhttp_response

KINDS = (
    ConnectFailed,
    ExchangeError,
    NoEndpoint,
    Rejected,
    UpstreamProtocolError,
    UpstreamReset,
    HeadTimeout,
    NoRoute,
    NoRule,
    NoWebSockets,
    BodyTimeout,
    IdleTimeout,
    PoolFull,
    PoolTimeout,
    ResponseTimeout,
    UpstreamStalled,
)

# RFC 9209 section 2 with the tokens and strings of RFC 8941 section 3.3.
STATUS_FIELD = re.compile(
    r'svc\.mesh; error=([a-z_]+); details="((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"'
)
REGISTERED = {
    "connection_limit_reached", "connection_read_timeout", "connection_refused", "connection_terminated",
    "connection_write_timeout", "http_response_timeout", "destination_not_found", "destination_unavailable",
    "http_protocol_error", "http_request_denied", "http_request_error", "http_upgrade_failed",
    "proxy_internal_error",
}  # fmt: skip


def render_error(error: ExchangeError, keep_alive: bool, to_head: bool) -> bytes:
    return render_reply(reply_to(error), keep_alive, to_head)


def read(wire: bytes, to_head: bool = False) -> Reading:
    """Read the response with all three parsers, which must agree."""
    reading = h11_response(wire, to_head)
    assert reading.complete
    if not to_head:
        assert llhttp_response(wire) == reading
    ours = drive(ResponseDriver(to_head), [wire])
    assert ours.refused is None
    assert ours.messages[0].payload == reading.body
    assert ours.messages[0].original_fields == reading.fields
    return reading


def details(reading: Reading) -> tuple[str, str]:
    """Return (error type, details) of Proxy-Status, read as a structured field."""
    match = STATUS_FIELD.fullmatch(dict(reading.fields)[b"proxy-status"].decode("ascii"))
    assert match is not None
    return match[1], re.sub(r"\\(.)", r"\1", match[2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep_alive", [True, False])
def test_an_error_is_a_whole_response(kind: type[ExchangeError], keep_alive: bool) -> None:
    error = kind('it "fell" over\\')
    reading = read(render_error(error, keep_alive, to_head=False))
    assert reading.start == (b"%d" % error.status,)
    assert reading.keep_alive is keep_alive
    assert reading.body == f'svc.mesh: it "fell" over\\ ({error.reason})\n'.encode()
    assert details(reading) == (error.proxy_error, f'{error.reason}: it "fell" over\\')
    assert error.proxy_error in REGISTERED


@pytest.mark.parametrize("status", [400, 431, 501, 505])
def test_a_refused_request(status: int) -> None:
    reading = read(
        render_error(BadRequest(HeadError("host", "no Host", status)), keep_alive=False, to_head=False)
    )
    assert reading.start == (b"%d" % status,)
    assert details(reading) == ("http_request_error", "host: no Host")


def test_the_answer_to_head_has_no_body_but_its_length() -> None:
    error = NoEndpoint("none")
    wire = render_error(error, keep_alive=True, to_head=True)
    assert read(wire, to_head=True).body == b""
    assert wire + b"svc.mesh: none (no_endpoint)\n" == render_error(error, keep_alive=True, to_head=False)


def test_further_headers() -> None:
    error = Rejected("too many", headers=(("Retry-After", "1"),))
    assert (b"retry-after", b"1") in read(render_error(error, keep_alive=True, to_head=False)).fields


def test_an_unusual_status_has_a_phrase() -> None:
    class Odd(ExchangeError):
        status = 599

    assert render_error(Odd("x"), keep_alive=True, to_head=False).startswith(b"HTTP/1.1 599 Error\r\n")


@given(
    text=st.text(st.characters(exclude_categories=()))
    | st.text(st.sampled_from('\r\n\0\t"\\: aX\x7f\xe9\u2028'))
)
def test_no_text_breaks_out_of_its_place(text: str) -> None:
    usual = read(render_error(Rejected("x", headers=(("A", "b"),)), keep_alive=True, to_head=False))
    reading = read(render_error(Rejected(text, headers=(("A", "b" + text),)), keep_alive=True, to_head=False))
    assert [name for name, _ in reading.fields] == [name for name, _ in usual.fields]
    assert details(reading)[1] == "rejected: " + re.sub(r"[^ -~]", "?", text)
    assert reading.body.count(b"\n") == 1


@pytest.mark.parametrize("status", [200, 204, 304, 404])
def test_a_layers_own_reply(status: int) -> None:
    reply = signed(
        Reply(status, [("X-Who", "layer")], b"" if status in (204, 304) else b"body", 'why "this"')
    )
    reading = read(render_reply(reply, keep_alive=True, to_head=False))
    assert reading.start == (b"%d" % status,)
    assert dict(reading.fields)[b"proxy-status"] == rb'svc.mesh; details="why \"this\""'
    assert reading.body == reply.body
