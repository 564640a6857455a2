"""The access log of a worker: a line for requests, or only for those that the mesh itself had to answer.

Bounded: past `LINES_PER_SECOND` lines are counted instead, and the next line says how many were left out.
Of the request target only the path is shown, a query may hold secrets. The client's pod is looked up for a
line that is written, when it is: of one that has gone by then there is the address alone.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Final

import structlog

from middleware.contract import Ended, ExchangeError
from nodeagent.log.budget import LineBudget
from nodeagent.settings import AccessLog
from nodeagent.worker.sources import SourcePods

LINES_PER_SECOND: Final = 50


class AccessLogger:
    """Writes the access log. Implements `nodeagent.proxy.runtime.Observer`."""

    def __init__(
        self, mode: AccessLog, worker: int, sources: SourcePods, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.wants_all = mode == "all"
        self._log = structlog.get_logger().bind(worker=worker)
        self._sources = sources
        self._budget = LineBudget(LINES_PER_SECOND)
        self._now = now

    def ended(self, ended: Ended) -> None:
        """Write a line for an exchange."""
        suppressed = self._budget.spend(self._now())
        if suppressed is None:
            return
        fields: dict[str, object] = {
            "service": ended.service,
            "port": ended.port,
            "method": ended.method,
            "path": ended.target.partition("?")[0],
            "status": ended.status,
            "endpoint": ended.endpoint,
            **self._describe(ended.source),
            "took_ms": round(ended.took * 1000, 2),
        }
        if ended.grpc_status is not None:
            fields["grpc_status"] = ended.grpc_status.name
        if suppressed:
            fields["lines_left_out"] = suppressed
        error = ended.error
        if error is None:
            self._log.info("request", **fields)
        else:
            self._log.warning("request_failed", reason=error.reason, detail=error.detail, **fields)

    def refused(self, service: str, port: int, source: str, error: ExchangeError) -> None:
        """Write a line for a request or connection that was refused."""
        suppressed = self._budget.spend(self._now())
        if suppressed is None:
            return
        fields = {"lines_left_out": suppressed} if suppressed else {}
        self._log.warning(
            "request_refused",
            service=service,
            port=port,
            **self._describe(source),
            status=error.status,
            reason=error.reason,
            detail=error.detail,
            **fields,
        )

    def _describe(self, source: str) -> dict[str, str]:
        """Return the keys that say who the client is: its address, and its pod if that is known."""
        pod = self._sources.find(source)
        if pod is None:
            return {"source": source}
        return {
            "source": source,
            "source_pod": f"{pod.namespace}/{pod.name}",
            "source_workload": f"{pod.namespace}/{pod.workload}",
        }

    def layer_failed(self, service: str, port: int, error: Exception) -> None:
        """Write the traceback of a middleware's bug."""
        if self._budget.spend(self._now()) is not None:
            self._log.error(
                "middleware_failed",
                service=service,
                port=port,
                traceback="".join(traceback.format_exception(error)),
            )
