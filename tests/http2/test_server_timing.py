"""`Server-Timing` on the wire, to the hundredth of a millisecond: the clock is moved by hand."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.exchange.http1 import get, got, http, ok, put
from tests.exchange.script import a, a1, b, b1, client, client2, passes
from tests.http2.wire import BACK, HELLO, Http2Stage, answers, asks, data, head

Wires = Callable[..., Http2Stage]
ON = {"svc.mesh/server-timing": "on"}
ON_REQUEST = {"svc.mesh/server-timing": "on-request"}
ASKS = "X-SvcMesh-Timing: 1"
RETRY = {
    "svc.mesh/retry-attempts": "2",
    "svc.mesh/retry-on": "5xx",
    "svc.mesh/retry-backoff": "20ms max=20ms",
}
SHORT = "Server-Timing: mesh;dur=0.00, endpoint;dur=500.00, total;dur=500.00"
LONG = "Server-Timing: mesh;dur=0.00, connect;dur=250.00, endpoint;dur=500.00, total;dur=750.00"
BOTH = "client endpoint"
GRPC = ("content-type", "application/grpc")


def timing(said: dict[str, list[object]]) -> str:
    """Return the field in a head of HTTP/2 that the client got."""
    start = str(said["client"][0])
    assert "server-timing=" in start, said
    return start.partition("server-timing=")[2].removesuffix(" end")


def test_a_conversation_of_http1(wires: Wires) -> None:
    stage = wires(http1=BOTH, annotations=ON)
    stage.play(
        client >> get("/1"),
        a << "dialled",
        passes(0.25),
        a >> "accepts",
        a1 << got("/1"),
        passes(0.5),
        a1 >> ok(b"one", "X: y"),
        client << ok(b"one", "X: y", LONG),
        client >> get("/2"),
        a1 << got("/2"),
        passes(0.5),
        a1 >> ok(b"two"),
        client << ok(b"two", SHORT),
    )


def test_only_on_request(wires: Wires) -> None:
    stage = wires(http1=BOTH, annotations=ON_REQUEST)
    stage.play(
        client >> get("/1"),
        a << "dialled",
        a >> "accepts",
        a1 << got("/1"),
        a1 >> ok(),
        client << ok(),
        client >> get("/2", ASKS),
        a1 << got("/2", ASKS),
        passes(0.5),
        a1 >> ok(),
        client << ok(b"", SHORT),
    )


def test_a_header_alone_turns_nothing_on(wires: Wires) -> None:
    stage = wires(http1=BOTH)
    stage.play(client >> get("/", ASKS), a << "dialled", a >> "accepts", a1 << got("/", ASKS))
    stage.play(a1 >> ok(), client << ok())


def test_as_many_fields_that_ask_as_a_head_may_have(wires: Wires) -> None:
    stage = wires(http1=BOTH, annotations=ON_REQUEST)
    many = ["x-svcmesh-timing: 1"] * 120
    stage.play(client >> get("/", *many), a << "dialled", a >> "accepts", a1 << got("/", *many))
    stage.play(
        passes(0.5),
        a1 >> ok(),
        client << ok(b"", SHORT.replace("mesh;dur=0.00,", "mesh;dur=0.00, connect;dur=0.00,")),
    )


@pytest.mark.parametrize(
    "said", ["cache;dur=2", 'db;desc="never ends', ";;,=", "x" * 9000], ids=lambda said: said[:8]
)
def test_what_the_endpoint_says_is_passed_on_beside_it(wires: Wires, said: str) -> None:
    stage = wires(http1=BOTH, annotations=ON)
    stage.does(client >> get(), a >> "accepts", passes(0.5))
    came = b"".join(stage.does(a1 >> ok(b"", f"server-timing: {said}"))["client"])
    ours = SHORT.replace("mesh;dur=0.00,", "mesh;dur=0.00, connect;dur=0.00,")
    assert came == ok(b"", f"server-timing: {said}", ours)


def test_a_slow_upload_is_the_clients(wires: Wires) -> None:
    stage = wires(http1=BOTH, annotations=ON)
    stage.does(client >> put(b"ab", length=4), a >> "accepts", passes(0.25), client >> b"cd", passes(0.5))
    said = b"".join(stage.does(a1 >> ok())["client"])
    assert (
        b"mesh;dur=0.00, connect;dur=0.00, client;dur=250.00, endpoint;dur=500.00, total;dur=750.00" in said
    )


def test_trailers_are_left_alone(wires: Wires) -> None:
    stage = wires(http1=BOTH, annotations=ON, trailers=True)
    stage.does(client >> get("/", "TE: trailers", "Connection: te"), a >> "accepts")
    said = b"".join(
        stage.does(
            a1
            >> http(
                "HTTP/1.1 200 OK",
                "Transfer-Encoding: chunked",
                body=b"2\r\nhi\r\n0\r\nServer-Timing: db;dur=1\r\n\r\n",
            )
        )["client"]
    )
    start, _, body = said.partition(b"\r\n\r\n")
    assert start.count(b"Server-Timing: mesh;") == 1
    assert body == b"2\r\nhi\r\n0\r\nServer-Timing: db;dur=1\r\n\r\n"


def test_a_conversation_of_http2(wires: Wires) -> None:
    stage = wires(annotations=ON_REQUEST, upstream="http2")
    ask = ("x-svcmesh-timing", "1")
    stage.does(client >> HELLO + asks(1, "GET", "/", ask) + asks(3), passes(0.25), a >> "accepts", a1 >> BACK)
    said = stage.does(passes(0.5), a1 >> answers(1, 200, ("server-timing", "db;dur=1")) + answers(3, 200))
    assert said["client"] == [
        f"1: 200 server-timing=db;dur=1 content-length=0 {LONG.replace(': ', '=').lower()} end",
        "3: 200 content-length=0 end",
    ]


def test_a_request_that_was_sent_twice(wires: Wires) -> None:
    stage = wires(endpoints="ab", http1="endpoint", annotations={**ON, **RETRY})
    no = http("HTTP/1.1 503 No", "Content-Length: 0")
    stage.does(client >> HELLO + asks(1), a >> "accepts", passes(0.1), a1 >> no, passes(1.0))
    said = stage.does(b >> "accepts", passes(0.3), b1 >> ok())
    told = re.fullmatch(
        r'mesh;dur=0.00, connect;dur=0.00;desc="try 1 of 2", endpoint;dur=100.00;desc="try 1 of 2: 503",'
        r' retry;dur=(\S+);desc="before try 2", connect;dur=(\S+);desc="try 2 of 2",'
        r' endpoint;dur=300.00;desc="try 2 of 2: 200", total;dur=1400.00',
        timing(said),
    )
    assert told, timing(said)
    pause, connect = map(float, told.groups())
    assert pause <= 20
    assert pause + connect == pytest.approx(1000.0)


def test_a_request_that_waits_for_another(wires: Wires) -> None:
    stage = wires(http1=BOTH, annotations={**ON, "svc.mesh/max-requests": "1"})
    stage.does(client >> get("/1"), a >> "accepts", client2 >> get("/2"), passes(0.25), a1 >> ok())
    said = b"".join(stage.does(passes(0.5), a1 >> ok())["client2"])
    assert b"mesh;dur=0.00, queue;dur=250.00, endpoint;dur=500.00, total;dur=750.00\r\n" in said


def test_answers_of_the_mesh_tell_why(wires: Wires) -> None:
    stage = wires(http1=BOTH, annotations={**ON, "svc.mesh/timeout": "1s"})
    said = stage.does(client >> get(), a >> "accepts", passes(1.5))
    assert re.search(
        rb'Server-Timing: mesh;dur=0.00;desc="request_timeout", connect;dur=0.00,'
        rb' endpoint;dur=(100.\.00);desc="try 1 of 1: request_timeout", total;dur=\1\r\n',
        b"".join(said["client"]),
    )


def test_a_refusal_tells_why(wires: Wires) -> None:
    stage = wires(http1=BOTH, annotations={**ON, "svc.mesh/rate-limit": "1/h burst=1"})
    stage.does(client >> get(), a >> "accepts", a1 >> ok())
    said = b"".join(stage.does(client >> get())["client"])
    assert b'Server-Timing: mesh;dur=0.00;desc="rate_limited", total;dur=0.00\r\n' in said
    assert said.startswith(b"HTTP/1.1 429 ")


def test_what_is_kept_has_no_times_of_the_mesh(wires: Wires) -> None:
    stage = wires(http1=BOTH, annotations={**ON, "svc.mesh/cache": "on"})
    kept = ok(b"hi", "Cache-Control: max-age=60", "Server-Timing: db;dur=1")
    stage.does(client >> get(), a >> "accepts", passes(0.5), a1 >> kept)
    for _ in range(2):
        said = b"".join(stage.does(client >> get())["client"])
        assert said.count(b"Server-Timing: ") == 2
        assert b"Server-Timing: db;dur=1\r\n" in said
        assert b'Server-Timing: mesh;dur=0.00;desc="cached", total;dur=0.00\r\n' in said


def test_an_equal_request_waits_for_the_first(wires: Wires) -> None:
    stage = wires(http1="endpoint", annotations={**ON, "svc.mesh/cache": "on"})
    stage.does(client >> HELLO + asks(1), a >> "accepts", passes(0.1), client >> asks(3), passes(0.4))
    said = stage.does(a1 >> ok(b"hi", "Cache-Control: max-age=60"))
    second = next(str(what) for what in said["client"] if str(what).startswith("3: 200"))
    assert 'mesh;dur=0.00;desc="cached", queue;dur=400.00, total;dur=400.00' in second


def test_a_response_that_the_cache_reads_first_is_held(wires: Wires) -> None:
    stage = wires(http1=BOTH, annotations={**ON, "svc.mesh/cache": "on"})
    begun = ok(b"a", "Cache-Control: max-age=60", length=2)
    stage.does(client >> get(), a >> "accepts", passes(0.1), a1 >> begun, passes(0.3))
    said = b"".join(stage.does(a1 >> b"b")["client"])
    assert b"mesh;dur=0.00, connect;dur=0.00, endpoint;dur=100.00, held;dur=300.00, total;dur=400.00" in said


def test_a_call_of_grpc(wires: Wires) -> None:
    stage = wires(annotations=ON, upstream="http2")
    ask = asks(1, "POST", "/shop.Cart/Add", GRPC, ("te", "trailers"), end=False) + data(1, b"\0\0\0\0\2hi")
    stage.does(client >> HELLO + ask, a >> "accepts", a1 >> BACK, passes(0.5))
    said = stage.does(a1 >> answers(1, 200, GRPC, end=False) + data(1, b"\0\0\0\0\0", end=False))
    assert timing(said) == "mesh;dur=0.00, connect;dur=0.00, endpoint;dur=500.00, total;dur=500.00"
    said = stage.does(a1 >> head(1, ("grpc-status", "0"), ("server-timing", "db;dur=1")))
    assert said["client"] == ["1: trailers grpc-status=0 server-timing=db;dur=1 end"]


def test_a_call_of_grpc_that_fails(wires: Wires) -> None:
    stage = wires(annotations=ON, upstream="http2")
    stage.does(client >> HELLO + asks(1, "POST", "/shop.Cart/Add", GRPC, ("te", "trailers")), passes(0.5))
    said = stage.does(a >> "refuses")
    (only,) = said["client"]
    assert "grpc-status=14" in str(only)
    assert (
        'server-timing=mesh;dur=0.00;desc="connect_failed",'
        ' connect;dur=500.00;desc="try 1 of 1: connect_failed", total;dur=500.00' in str(only)
    )


def test_what_is_off_adds_nothing(wires: Wires) -> None:
    stage = wires(http1=BOTH, annotations={"svc.mesh/server-timing": "off"})
    stage.play(client >> get("/", ASKS), a << "dialled", a >> "accepts", a1 << got("/", ASKS))
    stage.play(a1 >> ok(), client << ok())
