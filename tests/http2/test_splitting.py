"""No request of HTTP/2 becomes two of HTTP/1, and none becomes another than it was (H2.CL, H2.TE, CRLF)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.exchange.http1 import http, ok
from tests.exchange.script import a, a1, client
from tests.http2.corpus import HEADS, SECOND_TEXT, TRAILERS
from tests.http2.wire import BACK, HELLO, Http2Stage, asks, data, head

Wires = Callable[..., Http2Stage]


@pytest.mark.parametrize("fields", HEADS.values(), ids=HEADS.keys())
def test_not_a_byte_of_it_reaches_the_endpoint(wires: Wires, fields: list[tuple[str, str]]) -> None:
    stage = wires(http1="endpoint")
    said = stage.does(client >> HELLO + head(1, *fields, end=False), client >> data(1, b"0\r\n\r\n"))
    assert list(said) == ["client"]
    assert str(said["client"][0]).startswith(("1: reset 1", "1: 501"))
    stage.play(client >> asks(3), a << "dialled")


@pytest.mark.parametrize(
    ("length", "pieces"),
    [
        ("0", [SECOND_TEXT.encode()]),
        ("3", [b"abc", SECOND_TEXT.encode()]),
        ("3", [b"abcd"]),
        ("9", [b"abc"]),
    ],
)
def test_a_length_is_kept(wires: Wires, length: str, pieces: list[bytes]) -> None:
    """H2.CL: nothing after it is passed on, and a request that is cut short does not look complete."""
    stage = wires(http1="endpoint")
    stage.does(client >> HELLO + asks(1, "POST", "/", ("content-length", length), end=False), a >> "accepts")
    said = stage.does(*(client >> data(1, piece, end=piece is pieces[-1]) for piece in pieces))
    assert "1: reset 1" in said["client"]
    assert said["a1"][-1] == "end"
    assert SECOND_TEXT.encode() not in bytes(stage.wire("a1").received)


def test_chunks_in_data_are_data(wires: Wires) -> None:
    stage = wires(http1="endpoint")
    stage.does(client >> HELLO + asks(1, "POST", end=False), a >> "accepts")
    body = b"0\r\n\r\n" + SECOND_TEXT.encode()
    stage.play(client >> data(1, body), a1 << b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


@pytest.mark.parametrize("fields", TRAILERS.values(), ids=TRAILERS.keys())
def test_trailers_are_no_head(wires: Wires, fields: list[tuple[str, str]]) -> None:
    stage = wires(http1="endpoint", trailers=True)
    request = asks(1, "POST", "/", ("te", "trailers"), end=False) + data(1, b"a", end=False)
    stage.does(client >> HELLO + request, a >> "accepts")
    stage.play(client >> head(1, *fields), a1 << "end", client << "1: reset 1")


@pytest.mark.parametrize(
    "fields",
    [
        [(":status", "200"), ("x", "y\r\nz: a")],
        [(":status", "200"), ("transfer-encoding", "chunked")],
        [(":status", "200"), ("connection", "close")],
        [(":status", "200"), ("content-length", "1"), ("content-length", "2")],
        [(":status", "2000")],
        [(":status", "200\r\nx: y")],
        [(":status", "200"), (":path", "/")],
        [("x", "y")],
    ],
)
def test_a_response_is_one_response(wires: Wires, fields: list[tuple[str, str]]) -> None:
    stage = wires(http1="client")
    stage.does(client >> http("GET / HTTP/1.1", "Host: web"), a >> "accepts")
    said = stage.does(a1 >> BACK + head(1, *fields))
    assert "1: reset 1" in said["a1"]
    assert b"".join(said["client"]).startswith(b"HTTP/1.1 502 ")
    assert b"".join(said["client"]).count(b"HTTP/1.1") == 1


def test_a_response_is_as_long_as_it_says(wires: Wires) -> None:
    stage = wires(http1="client")
    stage.does(client >> http("GET / HTTP/1.1", "Host: web"), a >> "accepts")
    long = head(1, (":status", "200"), ("content-length", "2"), end=False) + data(1, b"ab", end=False)
    said = stage.does(a1 >> BACK + long + data(1, ok(b"forged")))
    assert b"forged" not in b"".join(what for what in said["client"] if isinstance(what, bytes))
    assert said["client"][-1] == "reset"
