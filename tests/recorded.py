"""A request as the layer of `svc.mesh/tracing` records it."""

from __future__ import annotations

from typing import Any

import msgspec

from middleware.contract import Stage, TracedRequest

HERE, THERE = "10.1.0.1:8080", "10.1.0.2:8080"


def recorded(number: int = 1, **changes: Any) -> TracedRequest:
    """Return a request that needed two tries."""
    request = TracedRequest(
        trace_id=(1000 + number).to_bytes(16),
        span_id=number.to_bytes(8),
        parent_id=b"",
        sampled=True,
        service="shop/cart",
        port=80,
        source="10.1.0.7",
        source_port=40_000,
        method="GET",
        path="/items",
        status=200,
        grpc_status=None,
        failure="",
        detail="",
        start=100.0,
        end=101.0,
        received=100,
        sent=200,
        stages=(
            Stage("connect", 100.0, 100.1, HERE, 1),
            Stage("try", 100.1, 100.4, HERE, 1, "503", 100.3),
            Stage("backoff", 100.4, 100.5),
            Stage("try", 100.5, 101.0, THERE, 2, "200", 100.9),
        ),
    )
    return msgspec.structs.replace(request, **changes)
