"""OTLP over gRPC on the wire: with gRPC's own library, and with servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import h2.errors
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from nodeagent.agent import grpc_sender, unary
from nodeagent.agent.delivery import Verdict
from nodeagent.agent.grpc_sender import GrpcSender
from nodeagent.agent.unary import MOST_ANSWER, CallBroken, ConnectionLost, UnaryConnection
from nodeagent.proxy.http2.frames import PING, frame, settings_frame
from nodeagent.proxy.http2.literals import literal
from tests.agent.collectors import (
    OK_HEAD,
    Answering,
    Peer,
    Refusal,
    Serving,
    answer_ok,
    grpc_collector,
)
from tests.certificates import NEEDS_OPENSSL, make_certificate, serve_tls

LARGE = 300_000
"""Bytes that need more than the windows with which a connection begins."""
VARIED = random.Random(1).randbytes(LARGE)
"""Bytes that gzip does not make fewer."""


@contextlib.asynccontextmanager
async def sending(port: int, scheme: str = "http") -> AsyncIterator[GrpcSender]:
    sender = GrpcSender(f"{scheme}://127.0.0.1:{port}", "svcmesh/1", 10.0)
    try:
        yield sender
    finally:
        await sender.close()


async def send(sender: GrpcSender, body: bytes = b"spans") -> Verdict:
    async with asyncio.timeout(30):
        return await sender.send(body)


async def test_a_call_as_grpc_servers_see_it() -> None:
    with grpc_collector() as collector:
        async with sending(collector.port) as sender:
            assert await send(sender, b"") == Verdict("taken")
        assert collector.metadata["user-agent"] == "svcmesh/1"
        assert collector.time_left is not None
        assert 0 < collector.time_left <= 10


async def test_what_a_server_of_grpc_refuses() -> None:
    with grpc_collector() as collector:
        collector.answers = [
            Refusal(grpc.StatusCode.UNAVAILABLE, "later: \N{SNOWMAN}", 3),
            Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full"),
            Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 0.25),
        ]
        async with sending(collector.port) as sender:
            assert [await send(sender, b"") for _ in range(3)] == [
                Verdict("later", "it answered UNAVAILABLE: later: \N{SNOWMAN}", pause=3.0),
                Verdict("refused", "it answered RESOURCE_EXHAUSTED: full"),
                Verdict("later", "it answered RESOURCE_EXHAUSTED: full", pause=0.25),
            ]


async def test_a_lot_is_compressed_if_that_makes_it_smaller() -> None:
    lot = ExportTraceServiceRequest()
    lot.resource_spans.add().schema_url = "x" * 1000
    with grpc_collector() as collector:
        async with sending(collector.port) as sender:
            assert await send(sender, lot.SerializeToString()) == Verdict("taken")
            assert await send(sender, b"") == Verdict("taken")
        assert collector.got == [lot, ExportTraceServiceRequest()]
    serving = Serving()
    async with serving.running() as port, sending(port) as sender:
        assert await send(sender, bytes(LARGE)) == Verdict("taken")
    assert serving.sizes[0] < LARGE / 100


async def test_an_answer_that_is_compressed() -> None:
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 3
    partial.partial_success.error_message = "x" * 1000
    with grpc_collector() as collector:
        collector.compression = grpc.Compression.Gzip
        collector.answers = [partial]
        async with sending(collector.port) as sender:
            assert await send(sender, b"") == Verdict("taken", "x" * 1000, 3)
            assert sender._connection is not None
            assert len(sender._connection._body) < 200, "it came as gzip"


async def test_a_server_without_gzip_is_sent_the_same_without_it() -> None:
    serving = Serving(answer_status((":status", "200"), ("grpc-status", "12")))
    async with serving.running() as port, sending(port) as sender:
        for _ in range(2):
            assert await send(sender, bytes(1000)) == Verdict("taken")
    assert serving.sizes[0] < 1000
    assert serving.sizes[1:] == [1005, 1005]


async def test_a_server_without_the_method() -> None:
    unknown = answer_status((":status", "200"), ("grpc-status", "12"))
    serving = Serving(unknown, unknown)
    async with serving.running() as port, sending(port) as sender:
        assert await send(sender, bytes(1000)) == Verdict("refused", "it answered UNIMPLEMENTED")
        assert await send(sender, bytes(1000)) == Verdict("taken")
    assert [size < 1000 for size in serving.sizes] == [True, False, True], "it was not gzip that it lacked"


async def test_a_lot_that_is_larger_than_the_windows() -> None:
    serving = Serving()
    async with serving.running() as port, sending(port) as sender:
        for _ in range(3):
            assert (await send(sender, VARIED)).fate == "taken"
    assert (serving.sizes, len(serving.peers)) == ([LARGE + 5] * 3, 1)


async def test_a_collector_that_reads_a_few_bytes_at_a_time() -> None:
    serving = Serving(settings={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 7})
    async with serving.running() as port, sending(port) as sender:
        assert (await send(sender, VARIED[:500])).fate == "taken"
    assert (serving.sizes, serving.faults) == ([505], [])


class Shrinking(Serving):
    """Makes windows smaller than what has been sent already, and then large."""

    def on_body(self, peer: Peer, event: h2.events.DataReceived) -> None:
        if len(self.sizes) == 0 and not self.resets:
            self.resets.append(0)
            peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1})
            peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100_000})
        super().on_body(peer, event)


async def test_windows_that_become_smaller_under_way() -> None:
    serving = Shrinking()
    async with serving.running() as port, sending(port) as sender:
        assert (await send(sender, VARIED)).fate == "taken"
    assert (serving.sizes, serving.faults) == ([LARGE + 5], [])


async def test_a_collector_that_hangs_and_who_gives_up_on_it() -> None:
    serving = Serving(lambda peer, stream: None)
    async with serving.running() as port, sending(port) as sender:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await sender.send(b"spans")
        assert (await send(sender)).fate == "taken"
        assert len(serving.peers) == 2, "nothing is sent on a connection whose call was given up"


def close_after(peer: Peer, stream: int) -> None:
    answer_ok(peer, stream)
    peer.flush()
    peer.transport.close()


def leave(peer: Peer, stream: int) -> None:
    peer.h2.close_connection(last_stream_id=0)
    peer.flush()


def drop(peer: Peer, stream: int) -> None:
    peer.transport.abort()


async def test_a_kept_connection_that_has_ended_costs_nothing() -> None:
    serving = Serving(close_after, answer_ok, leave, answer_ok, drop, answer_ok)
    async with serving.running() as port, sending(port) as sender:
        assert [await send(sender) for _ in range(4)] == [Verdict("taken")] * 4
    assert len(serving.peers) == 4


async def test_a_new_connection_that_ends_is_the_end_of_it() -> None:
    serving = Serving(drop, leave)
    async with serving.running() as port, sending(port) as sender:
        with pytest.raises(ConnectionLost, match=r"closed the connection|reset by peer"):
            await send(sender)
        with pytest.raises(ConnectionLost, match="took no call and said GOAWAY with code 0"):
            await send(sender)
        assert (await send(sender)).fate == "taken"


def reset_with(code: int) -> Answering:
    return lambda peer, stream: peer.h2.reset_stream(stream, code)


async def test_calls_that_are_broken_off() -> None:
    codes = h2.errors.ErrorCodes
    serving = Serving(
        *map(reset_with, (codes.REFUSED_STREAM, codes.CANCEL, codes.ENHANCE_YOUR_CALM, codes.INTERNAL_ERROR))
    )
    async with serving.running() as port, sending(port) as sender:
        assert [(await send(sender)).fate for _ in range(4)] == ["later", "later", "refused", "refused"]
        assert (await send(sender)).fate == "taken"
    assert len(serving.peers) == 1


def answer_enormous(peer: Peer, stream: int) -> None:
    peer.h2.send_headers(stream, OK_HEAD)
    while room := min(peer.h2.local_flow_control_window(stream), 16_384):
        peer.h2.send_data(stream, bytes(room))


async def test_an_enormous_answer_is_not_read() -> None:
    serving = Serving(answer_enormous)
    async with serving.running() as port, sending(port) as sender:
        assert await send(sender) == Verdict("refused", f"an answer of more than {MOST_ANSWER} bytes")
        assert (await send(sender)).fate == "taken"
    assert serving.resets == [1]


def answer_status(*fields: tuple[str, str]) -> Answering:
    return lambda peer, stream: peer.h2.send_headers(stream, list(fields), end_stream=True)


async def test_an_answer_before_the_lot_is_sent() -> None:
    serving = Serving(
        answer_status((":status", "200"), ("grpc-status", "8"), ("grpc-message", "too%20large")), whole=False
    )
    serving.settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100}
    async with serving.running() as port, sending(port) as sender:
        verdict = await send(sender, VARIED)
        assert verdict == Verdict("refused", "it answered RESOURCE_EXHAUSTED: too large")
        assert (await send(sender, b"")).fate == "taken"
    assert serving.resets == [1]


@pytest.mark.parametrize(
    ("status", "fate"), [(503, "later"), (429, "later"), (404, "refused"), (200, "refused"), (500, "refused")]
)
async def test_answers_that_are_none_of_grpc(status: int, fate: str) -> None:
    serving = Serving(answer_status((":status", str(status))))
    async with serving.running() as port, sending(port) as sender:
        verdict = await send(sender)
    assert (verdict.fate, verdict.words) == (fate, f"it answered {status} without a status of gRPC")


class Saying(asyncio.Protocol):
    """A server's side of a connection that says something when the first bytes have come."""

    def __init__(self, said: bytes, transports: list[asyncio.Transport]) -> None:
        self._said = said
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transports.append(transport)

    def data_received(self, data: bytes) -> None:
        said, self._said = self._said, b""
        if said:
            self._transports[-1].write(said)


@contextlib.asynccontextmanager
async def saying(said: bytes) -> AsyncIterator[int]:
    """Yield the port of a server that says these bytes to each connection."""
    transports: list[asyncio.Transport] = []
    server = await asyncio.get_running_loop().create_server(lambda: Saying(said, transports), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in transports:
            transport.abort()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1 here: is this its port for gRPC"),
        (b"\x15\x03\x03\0\x02\x02\x46", "TLS here: otlp.grpcs"),
        (b"+OK POP3 server ready\r\n", "does not speak HTTP/2"),
        (settings_frame({}) + frame(PING, 0, 0, bytes(8)) * 5000, "too many frames that mean nothing"),
        (settings_frame({}) + frame(0, 0, 7, bytes(8)) * 5000, "too many frames that mean nothing"),
        (settings_frame({}) + frame(1, 4, 1, b"\x88") + frame(9, 0, 1, b"") * 50, "CONTINUATION"),
        (settings_frame({}) + frame(8, 0, 0, b"\x7f\xff\xff\xff"), "a window of more than"),
        (settings_frame({}) + frame(1, 4, 9, b"\x88"), "nobody asked for"),
        (settings_frame({}) + frame(0, 0, 1, b"abc"), "a body before its head"),
    ],
)
async def test_what_is_no_collector(said: bytes, reason: str) -> None:
    async with saying(said) as port, sending(port) as sender:
        with pytest.raises(ConnectionLost, match=reason):
            await send(sender)


class Sink:
    """A transport that counts what it is given."""

    def __init__(self) -> None:
        self.size = 0
        self.ended = False

    def write(self, data: bytes) -> None:
        self.size += len(data)

    def close(self) -> None:
        self.ended = True

    abort = close


async def _fed(pieces: list[bytes]) -> None:
    connection, sink = UnaryConnection(b"http", b"h"), Sink()
    connection.connection_made(sink)  # type: ignore[arg-type]
    call = asyncio.create_task(connection.call(b"/x", (), b"spans"))
    await asyncio.sleep(0)
    for piece in pieces:
        if not sink.ended:
            connection.data_received(piece)
    connection.connection_lost(None)
    await asyncio.gather(call, return_exceptions=True)
    assert call.done()
    assert not connection.usable
    assert len(connection._body) < 2 * MOST_ANSWER


frames_of_any_kind = st.builds(
    frame, st.integers(0, 11), st.integers(0, 255), st.sampled_from([0, 1, 3]), st.binary(max_size=40)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(frames_of_any_kind | st.binary(max_size=30), max_size=12))
def test_whatever_comes_the_call_ends_with_the_connection(pieces: list[bytes]) -> None:
    asyncio.run(_fed(pieces))


@NEEDS_OPENSSL
async def test_tls_with_a_ca_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = make_certificate(tmp_path, "right"), make_certificate(tmp_path, "wrong")
    tls = serve_tls(right)
    tls.set_alpn_protocols(["h2"])
    serving = Serving()
    async with serving.running(tls) as port:
        trusted = tmp_path / "ca.crt"
        trusted.write_bytes(wrong[0].read_bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        async with sending(port, "https") as sender:
            with pytest.raises(OSError, match="certificate verify failed"):
                await send(sender)
            trusted.write_bytes(right[0].read_bytes())
            assert (await send(sender, VARIED)).fate == "taken"
    assert serving.sizes == [LARGE + 5]


@NEEDS_OPENSSL
async def test_a_server_that_does_not_offer_http2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_certificate(tmp_path, "right")
    monkeypatch.setenv("SSL_CERT_FILE", str(pair[0]))
    async with Serving().running(serve_tls(pair)) as port, sending(port, "https") as sender:
        with pytest.raises(OSError, match="does not offer HTTP/2"):
            await send(sender)


async def test_the_bytes_of_a_whole_answer_in_any_pieces() -> None:
    serving = Serving()
    async with serving.running() as port, sending(port) as sender:
        connection = await sender._connected()
        whole = connection.data_received

        def byte_by_byte(data: bytes) -> None:
            for at in range(len(data)):
                whole(data[at : at + 1])

        connection.data_received = byte_by_byte  # type: ignore[method-assign]
        assert await send(sender) == Verdict("taken")


class Thorough(Serving):
    """Makes the windows larger for each frame."""

    def on_body(self, peer: Peer, event: h2.events.DataReceived) -> None:
        size = event.flow_controlled_length or 0
        peer.h2.increment_flow_control_window(size)
        if not event.stream_ended:
            peer.h2.increment_flow_control_window(size, event.stream_id)


async def test_a_collector_that_makes_the_windows_larger_for_each_frame() -> None:
    serving = Thorough()
    async with serving.running() as port, sending(port) as sender:
        for _ in range(5):
            assert (await send(sender, 10 * VARIED)).fate == "taken"
    assert len(serving.peers) == 1


async def test_a_connection_that_ends_as_soon_as_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    async def connect(*_: object) -> UnaryConnection:
        connection = UnaryConnection(b"http", b"h")
        connection.connection_made(Sink())  # type: ignore[arg-type]
        connection.data_received(b"+OK POP3 server ready\r\n")
        made.append(connection)
        return connection

    monkeypatch.setattr(grpc_sender, "connect", connect)
    sender = GrpcSender("http://127.0.0.1:1", "svcmesh/1", 10.0)
    with pytest.raises(ConnectionLost, match="does not speak HTTP/2"):
        await sender.send(b"spans")
    assert len(made) == 1


async def test_the_late_end_of_an_answer_that_was_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unary, "MOST_ANSWER", 1000)
    connection = UnaryConnection(b"http", b"h")
    connection.connection_made(Sink())  # type: ignore[arg-type]
    first = asyncio.create_task(connection.call(b"/x", (), b"spans"))
    await asyncio.sleep(0)
    connection.data_received(settings_frame({}) + frame(1, 4, 1, b"\x88") + frame(0, 0, 1, bytes(1000)))
    with pytest.raises(CallBroken, match="an answer of more than"):
        await first
    second = asyncio.create_task(connection.call(b"/x", (), b"spans"))
    await asyncio.sleep(0)
    connection.data_received(frame(1, 5, 1, literal(b"grpc-status", b"0")))
    connection.data_received(frame(1, 5, 3, b"\x88" + literal(b"grpc-status", b"14")))
    assert (await second).fields["grpc-status"] == "14"
