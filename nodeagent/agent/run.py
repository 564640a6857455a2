"""Runs an agent as a process: its loop, its signals, and its signs of life to process 1 of a container."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys

import msgspec
import structlog

from discovery.source import SourceError
from nodeagent.agent.app import Agent
from nodeagent.agent.preflight import StartError
from nodeagent.control.listener import NoWorkerPortError, free_worker_port
from nodeagent.init import Kept
from nodeagent.log.configure import configure_logging
from nodeagent.settings import Settings

log = structlog.get_logger()

PULSE = 1.0
"""Seconds between two signs of life to process 1."""
SWITCH_INTERVAL = 0.001
"""Seconds that a thread computes before another thread may: the longest that a DNS answer waits for one."""
COLLECTOR = (700, 10, 1000)
"""Python's own thresholds, except the last: a full collection takes 50 ms and more, in which nothing else
runs, so it comes after millions of allocations and not after tens of thousands."""


def with_worker_port(settings: Settings) -> Settings:
    """Return the settings with a port for the workers that no other agent on this node uses.

    Raises:
        StartError: there is none.
    """
    if settings.capture != "nftables":
        return settings
    try:
        return msgspec.structs.replace(settings, worker_port=free_worker_port(settings))
    except NoWorkerPortError as error:
        raise StartError(str(error)) from error


async def _beat(pulse: int) -> None:
    """Write a byte every second, so that process 1 knows that this loop is running."""
    while True:
        # The pipe is full: process 1 does not look at present, so it misses nothing.
        with contextlib.suppress(OSError):
            os.write(pulse, b".")
        await asyncio.sleep(PULSE)


def run_agent(settings: Settings, kept: Kept | None = None) -> int:
    """Run an agent until SIGINT or SIGTERM; return the exit status. `kept` is given if process 1 of a
    container keeps the agent running.
    """
    import uvloop

    configure_logging(settings.log_level, settings.log_format)
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.set_threshold(*COLLECTOR)
    if kept is not None and kept.died:
        log.error("agent_died", reason=kept.died, serving="its workers, until this one is ready")

    async def serve() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        pulse = loop.create_task(_beat(kept.pulse)) if kept is not None else None
        try:
            await Agent(with_worker_port(settings)).run(stop)
        except (StartError, SourceError) as error:
            log.error("agent_failed", reason=str(error))  # noqa: TRY400 the message is for people
            return 1
        finally:
            if pulse is not None:
                pulse.cancel()
        return 0

    return uvloop.run(serve())
