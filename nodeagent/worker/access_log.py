"""The access log of a worker: a line for requests, or only for those that the mesh itself had to answer.

Bounded: past `LINES_PER_SECOND` lines are counted instead, and the next line says how many were left out.
Of the request target only the path is shown, a query may hold secrets.
"""

from __future__ import annotations

import traceback
from typing import Final

import structlog

from middleware.contract import ExchangeError
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.proxy import Proxy
from nodeagent.proxy.route import HttpRoute, TcpRoute
from nodeagent.settings import AccessLog

LINES_PER_SECOND: Final = 50


class LineBudget:
    """Lets so many lines a second through and counts the rest. Pure: time is an argument."""

    def __init__(self, per_second: int = LINES_PER_SECOND) -> None:
        self._per_second = per_second
        self._second = 0
        self._used = 0
        self._suppressed = 0

    def spend(self, now: float) -> int | None:
        """Return None if the line must be left out, else how many lines were before it."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._used = 0
        if self._used >= self._per_second:
            self._suppressed += 1
            return None
        self._used += 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


class AccessLogger:
    """Writes the access log. Implements `nodeagent.proxy.proxy.Observer`."""

    def __init__(self, mode: AccessLog, worker: int) -> None:
        self._all = mode == "all"
        self._log = structlog.get_logger().bind(worker=worker)
        self._budget = LineBudget()

    def exchange_ended(self, route: HttpRoute, exchange: Exchange, took: float) -> None:
        """Write a line for an exchange, if this kind is wanted."""
        error = exchange.error
        if error is None and not self._all:
            return
        suppressed = self._budget.spend(Proxy.now())
        if suppressed is None:
            return
        fields: dict[str, object] = {
            "service": route.service,
            "port": route.port,
            "method": exchange.method,
            "path": exchange.target.partition("?")[0],
            "status": exchange.status,
            "endpoint": str(exchange.endpoint) if exchange.endpoint else "",
            "source": exchange.source,
            "took_ms": round(took * 1000, 2),
        }
        if suppressed:
            fields["lines_left_out"] = suppressed
        if error is None:
            self._log.info("request", **fields)
        else:
            self._log.warning("request_failed", reason=error.reason, detail=error.detail, **fields)

    def refused(self, route: TcpRoute, source: str, error: ExchangeError) -> None:
        """Write a line for a request or connection that was refused."""
        suppressed = self._budget.spend(Proxy.now())
        if suppressed is None:
            return
        fields = {"lines_left_out": suppressed} if suppressed else {}
        self._log.warning(
            "request_refused",
            service=route.service,
            port=route.port,
            source=source,
            status=error.status,
            reason=error.reason,
            detail=error.detail,
            **fields,
        )

    def layer_failed(self, route: HttpRoute, error: Exception) -> None:
        """Write the traceback of a middleware's bug."""
        if self._budget.spend(Proxy.now()) is not None:
            self._log.error(
                "middleware_failed",
                service=route.service,
                port=route.port,
                traceback="".join(traceback.format_exception(error)),
            )
