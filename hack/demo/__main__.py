"""`python -m hack.demo`: the demo until Ctrl-C; with `--smoke`, its checks without a person."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Sequence
from typing import Any

from hack.demo.guide import describe
from hack.demo.processes import Child
from hack.demo.smoke import run_smoke
from hack.demo.stage import Stage, StageError
from hack.kit.ports import NothingFree


async def run_demo(stopped: asyncio.Event) -> int:
    """Run the demo until it is told to stop, or its agent dies; return the exit status.

    0 for a demo that was ended by Ctrl-C, SIGTERM or SIGHUP: that is how a demo ends.
    """
    stage = Stage("demo")
    status = 1
    watchers: list[asyncio.Task[None]] = []
    try:
        print("Starting the shop's servers and the agent ...", flush=True)
        opening = asyncio.create_task(stage.open())
        await _first(opening, stopped.wait())
        if stopped.is_set():
            opening.cancel()
            await asyncio.wait([opening])
            return 0
        await opening
        assert stage.agent is not None
        print(describe(stage, await stage.plan()), flush=True)
        watchers = [
            asyncio.create_task(_watch(child)) for child in stage.children if child is not stage.agent
        ]
        await _first(stage.agent.wait(), stopped.wait())
        if stopped.is_set():
            status = 0
        else:
            print(f"demo: the agent ended by itself: {await stage.agent.wait()}", flush=True)
    except (StageError, NothingFree) as error:
        print(f"demo: {error}", file=sys.stderr, flush=True)
    finally:
        for watcher in watchers:
            watcher.cancel()
        await _end(stage)
    return status


async def _end(stage: Stage) -> None:
    count = len(stage.children)
    if count:
        print("\nEnding the demo: what is in flight may finish ...", flush=True)
    awry = await stage.close()
    for what in awry:
        print(f"demo: {what}", flush=True)
    if count:
        print(f"All {count} processes have ended, {stage.directory} is removed.", flush=True)


async def _watch(child: Child) -> None:
    """Say it when a server ends, and how it is started again: people will try."""
    how = await child.wait()
    print(f"demo: {child.name} ended ({how}); to start it again: {' '.join(child.command)} &", flush=True)


async def _first(*awaitables: Awaitable[Any]) -> None:
    """Wait until the first of these is done; then cancel those that were not tasks before."""
    tasks = [asyncio.ensure_future(one) for one in awaitables]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task, given in zip(tasks, awaitables, strict=True):
        if task is not given:
            task.cancel()


async def _serve(smoke: bool) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return await (run_smoke(stopped) if smoke else run_demo(stopped))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo or its checks."""
    parser = argparse.ArgumentParser(prog="python -m hack.demo", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run the checks and print a table")
    given = parser.parse_args(arguments)
    if sys.platform != "linux":
        print("svc.mesh needs Linux: it uses inotify, memfd and the whole of 127.0.0.0/8", file=sys.stderr)
        return 1
    return asyncio.run(_serve(given.smoke))


if __name__ == "__main__":
    sys.exit(main())
