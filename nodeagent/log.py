"""Logging: structlog, one line an event, for a person on a terminal and as JSON in a pod.

Events are stable snake_case names; keys are `service` (namespace/name), `port`, `endpoint`, `source`
and `source_pod` (the client), `reason`. Nothing secret is ever logged: no header values, no bodies.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(level: str, log_format: Literal["console", "json"]) -> None:
    """Set up structlog for this process; lines go to standard error, unbuffered."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
    ]
    if log_format == "json":
        chain: list[structlog.typing.Processor] = [
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _first_things_first,
            structlog.processors.JSONRenderer(),
        ]
    else:
        chain = [
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False, key="timestamp"),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=26),
        ]
    structlog.configure(
        processors=[*shared, *chain],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        # One write for a line with its end: agent and workers share the descriptor.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _first_things_first(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Put time, level and event in front: people read JSON lines too."""
    first = {name: event.pop(name) for name in ("time", "level", "event")}
    return {**first, **event}
