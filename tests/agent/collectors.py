"""Collectors of OTLP: for HTTP, for gRPC with its own library, and one over HTTP/2 that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
DETAILS = "grpc-status-details-bin"


def status_details(seconds: float, message: str = "busy") -> bytes:
    """Return a google.rpc.Status that says when to come back, made of its numbers in the definitions."""
    delay: bytes = Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9)).SerializeToString()
    info = b"\x0a" + bytes((len(delay),)) + delay
    kind = "type.googleapis.com/google.rpc.RetryInfo"
    detail: bytes = AnyMessage(type_url=kind, value=info).SerializeToString()
    text = message.encode()
    return b"\x08\x08\x12" + bytes((len(text),)) + text + b"\x1a" + bytes((len(detail),)) + detail


class Refusal(Exception):
    """What a collector answers in place of a response."""

    def __init__(self, code: grpc.StatusCode, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after = code, message, retry_after


class Received:
    """The messages that a collector has taken, and their spans."""

    def __init__(self) -> None:
        self.got: list[ExportTraceServiceRequest] = []

    @property
    def spans(self) -> Sequence[Span]:
        return [
            span
            for request in list(self.got)
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    def of_kind(self, kind: int) -> list[Span]:
        return [span for span in self.spans if span.kind == kind]


class HttpCollector(Received):
    """Answers with one of `statuses` after the other, and with 200 when there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: list[int] = []
        collector = self

        class Receive(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                status = collector.statuses.pop(0) if collector.statuses else 200
                if status == 200:
                    collector.got.append(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                if status != 200:
                    self.send_header("Retry-After", "3")
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Receive)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"otlp+http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def http_collector() -> Iterator[HttpCollector]:
    collector = HttpCollector()
    try:
        yield collector
    finally:
        collector.stop()


class GrpcCollector(Received):
    """Answers as it is told, and takes all when it is told nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Refusal | ExportTraceServiceResponse] = []
        self.metadata: dict[str, str] = {}
        self.time_left: float | None = None
        self.compression = grpc.Compression.NoCompression
        """Of answers, if the client accepts it."""
        handler = grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
        self.server = grpc.server(ThreadPoolExecutor(2))
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),)
        )
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def _export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:
        call: grpc.ServicerContext = context
        self.metadata = dict(call.invocation_metadata())
        self.time_left = call.time_remaining()
        call.set_compression(self.compression)
        answer: Refusal | ExportTraceServiceResponse = ExportTraceServiceResponse()
        if self.answers:
            answer = self.answers.pop(0)
        if isinstance(answer, Refusal):
            if answer.retry_after is not None:
                call.set_trailing_metadata(((DETAILS, status_details(answer.retry_after)),))
            call.abort(answer.code, answer.message)  # raises
            raise answer
        self.got.append(request)
        return answer

    @property
    def url(self) -> str:
        return f"otlp+grpc://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.server.stop(0).wait()


@contextlib.contextmanager
def grpc_collector() -> Iterator[GrpcCollector]:
    collector = GrpcCollector()
    try:
        yield collector
    finally:
        collector.stop()


Answering = Callable[["Peer", int], None]
OK_HEAD = [(":status", "200"), ("content-type", "application/grpc")]


def answer_ok(peer: Peer, stream: int) -> None:
    """Take all."""
    peer.h2.send_headers(stream, OK_HEAD)
    peer.h2.send_data(stream, b"\0\0\0\0\0")
    peer.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)


class Peer(asyncio.Protocol):
    """One connection to a server made with h2."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.bodies: dict[int, int] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.serving.peers.append(self)
        self.h2.update_settings(self.serving.settings)
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self.serving.faults.append(str(error))
            self.transport.abort()
            return
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                self.bodies[event.stream_id or 0] = 0
                self.serving.heads.append(event.headers or [])
                if not self.serving.whole:
                    self.answer(event.stream_id or 0)
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id or 0] += len(event.data or b"")
                self.serving.on_body(self, event)
            elif isinstance(event, h2.events.StreamEnded) and self.serving.whole:
                self.serving.sizes.append(self.bodies[event.stream_id or 0])
                self.answer(event.stream_id or 0)
            elif isinstance(event, h2.events.StreamReset):
                self.serving.resets.append(event.stream_id or 0)
        self.flush()

    def answer(self, stream: int) -> None:
        answering = self.serving.answers.pop(0) if self.serving.answers else answer_ok
        answering(self, stream)

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())


class Serving:
    """A server made with h2. Its requests get one of `answers` after the other, and then `answer_ok`.

    `whole`: only when all of a request has come; else when its head has.
    """

    def __init__(
        self, *answers: Answering, whole: bool = True, settings: dict[int, int] | None = None
    ) -> None:
        self.answers = list(answers)
        self.whole = whole
        self.settings = settings or {}
        self.peers: list[Peer] = []
        self.sizes: list[int] = []
        """Bytes of the bodies that have come whole."""
        self.heads: list[list[Any]] = []
        """Fields of h2, one list for each request."""
        self.resets: list[int] = []
        self.faults: list[str] = []
        """Where the client broke the protocol."""
        self.port = 0

    def on_body(self, peer: Peer, event: h2.events.DataReceived) -> None:
        """Take part of a body."""
        peer.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        """Yield the port."""
        server = await asyncio.get_running_loop().create_server(
            lambda: Peer(self), "127.0.0.1", self.port, ssl=tls
        )
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self.port
        finally:
            server.close()
            for peer in self.peers:
                peer.transport.abort()
