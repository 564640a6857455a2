"""What a collector answers in OTLP: spans that it rejects, errors, and when it wants to be asked again. Pure.

https://opentelemetry.io/docs/specs/otlp/#otlpgrpc-response and google/rpc/error_details.proto. An answer that
cannot be read says nothing.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from middleware.grpc import GrpcStatus
from nodeagent.agent.delivery import Verdict
from nodeagent.agent.gzipped import decompressed

RETRYABLE: Final = frozenset(
    {
        GrpcStatus.CANCELLED,
        GrpcStatus.DEADLINE_EXCEEDED,
        GrpcStatus.ABORTED,
        GrpcStatus.OUT_OF_RANGE,
        GrpcStatus.UNAVAILABLE,
        GrpcStatus.DATA_LOSS,
    }
)
"""After which the same is to be sent again; also RESOURCE_EXHAUSTED, if the collector says when."""
LONGEST_DETAILS: Final = 32 * 1024
LONGEST_MESSAGE: Final = 64 * 1024
"""Bytes that a compressed answer may become."""
_STATUSES: Final = {str(int(status)): status for status in GrpcStatus}
_RETRY_INFO: Final = "/google.rpc.RetryInfo"
_PREFIX: Final = 5
"""Bytes in front of a message: whether it is compressed, and its length."""


def _status_messages() -> tuple[Any, Any]:
    """Return google.rpc's Status and RetryInfo: two messages, for which a whole package would be much."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="svcmesh/status.proto",
        package="svcmesh",
        syntax="proto3",
        dependency=[any_pb2.DESCRIPTOR.name, duration_pb2.DESCRIPTOR.name],
    )
    status = file.message_type.add(name="Status")
    status.field.add(name="message", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    status.field.add(
        name="details",
        number=3,
        type=field.TYPE_MESSAGE,
        label=field.LABEL_REPEATED,
        type_name=".google.protobuf.Any",
    )
    file.message_type.add(name="RetryInfo").field.add(
        name="retry_delay",
        number=1,
        type=field.TYPE_MESSAGE,
        label=field.LABEL_OPTIONAL,
        type_name=".google.protobuf.Duration",
    )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    status_type, retry_type = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"svcmesh.{name}"))
        for name in ("Status", "RetryInfo")
    )
    return status_type, retry_type


_Status, _RetryInfo = _status_messages()


def taken(message: bytes) -> Verdict:
    """Return what it means that a collector has answered with this ExportTraceServiceResponse."""
    try:
        partial = ExportTraceServiceResponse.FromString(message).partial_success
    except DecodeError:
        return Verdict("taken")
    return Verdict("taken", partial.error_message, max(0, partial.rejected_spans))


def of_call(status: str, message: str, details: str, body: bytes) -> Verdict:
    """Return what an answer means, by its `grpc-status`, `grpc-message` and `grpc-status-details-bin`."""
    code = _STATUSES.get(status, GrpcStatus.UNKNOWN)
    if code is GrpcStatus.OK:
        return taken(_message(body))
    asked = _retry_delay(details)
    words = f"it answered {code.name}" + (f": {message}" if message else "")
    if code in RETRYABLE or (code is GrpcStatus.RESOURCE_EXHAUSTED and asked is not None):
        return Verdict("later", words, pause=asked or 0.0)
    return Verdict("refused", words)


def error_message(body: bytes) -> str:
    """Return what the body of an error over HTTP says, which is a google.rpc.Status; empty: nothing."""
    try:
        said: str = _Status.FromString(body).message
    except DecodeError:
        return ""
    return said


def _message(body: bytes) -> bytes:
    """Return the one message in a body; empty: there is none that can be read."""
    if len(body) < _PREFIX or len(body) - _PREFIX != int.from_bytes(body[1:_PREFIX], "big"):
        return b""
    # Go's servers compress an answer as they got the request.
    return decompressed(body[_PREFIX:], LONGEST_MESSAGE) if body[0] else body[_PREFIX:]


def _retry_delay(details: str) -> float | None:
    """Return the seconds of the RetryInfo in the details of a status; None: there is none."""
    if not details or len(details) > LONGEST_DETAILS:
        return None
    try:
        padded = details + "=" * (-len(details) % 4)
        status = _Status.FromString(base64.b64decode(padded, validate=True))
        for detail in status.details:
            if detail.type_url.endswith(_RETRY_INFO):
                delay = _RetryInfo.FromString(detail.value).retry_delay
                return float(max(0.0, delay.seconds + delay.nanos / 1e9))
    except (DecodeError, binascii.Error, ValueError):
        pass
    return None
