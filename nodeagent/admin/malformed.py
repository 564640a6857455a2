"""Counts what the admin server's HTTP library says about broken requests, and says it in one line of ours.

The library would log a traceback for each, which contains what the client sent, perhaps a token.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import structlog
from aiohttp.http_exceptions import HttpProcessingError

from discovery.dns.malformed import MalformedTally

log = structlog.get_logger()


class MalformedRequests(logging.Handler):
    """Takes what the library logs. `count` is the number of requests that were not HTTP, or broke a limit."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.count = 0
        self._now = now
        self._tally = MalformedTally()

    def logger(self) -> logging.Logger:
        """Return a logger for the library that leads here and nowhere else."""
        logger = logging.Logger("svcmesh.admin")  # noqa: LOG001 below no other logger
        logger.addHandler(self)
        return logger

    def emit(self, record: logging.LogRecord) -> None:
        """Count a broken request; of any other message, log only the type of the error."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            self.count += 1
            source = record.args[0] if isinstance(record.args, tuple) and record.args else ""
            self._tally.add(str(source))
            if (report := self._tally.take(self._now())) is not None:
                log.warning("admin_malformed_request", count=report.count, source=report.source)
        elif record.levelno >= logging.WARNING:
            log.error("admin_request_failed", reason=type(error).__name__)
