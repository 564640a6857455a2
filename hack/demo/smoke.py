"""`make smoke`: the demo without a person, as a table of checks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import dns.exception

from hack.demo import checks_changes, checks_traffic
from hack.demo.exchange import fetch
from hack.demo.guide import lines_to_paste
from hack.demo.stage import Stage, StageError
from hack.demo.visitor import Visitor, Wrong, expect
from hack.kit.ports import NothingFree
from nodeagent.cli.flags import LOCALHOST

Check = Callable[[Visitor], Awaitable[str]]
CHECK_TIME = 30.0
LOG = "agent.log"
LOG_LINES = 40


async def pasted(visitor: Visitor) -> str:
    """The lines that the demo prints work as printed."""
    lines = lines_to_paste(visitor.stage, await visitor.stage.plan())
    missing = sorted({tool for line in lines for tool in line.missing})
    runnable = [line for line in lines if not line.missing]
    for line in runnable:
        shell = await asyncio.create_subprocess_shell(
            line.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await shell.communicate()
        text = output.decode(errors="replace")
        right = shell.returncode == line.status and all(part in text for part in line.expected)
        expect(right, f"`{line.command}`: status {shell.returncode}, {text[:300]!r}")
    without = f"; not installed: {', '.join(missing)}" if missing else ""
    return f"{len(runnable)} of {len(lines)} lines{without}"


CHECKS: tuple[tuple[str, Check], ...] = (
    ("names resolve", checks_traffic.names),
    ("unannotated Service untouched", checks_traffic.invisible),
    ("HTTP, every endpoint in turn", checks_traffic.in_turn),
    ("TCP, both ways", checks_traffic.echoes),
    ("rate limit", checks_traffic.rate_limited),
    ("endpoint killed, retry", checks_traffic.retries),
    ("endpoints rolled under load", checks_changes.rolled),
    ("annotation off and on", checks_changes.toggled),
    ("bad annotation", checks_changes.mistaken),
    ("rate limit changed", checks_changes.slowed),
    ("circuit breaker", checks_traffic.circuit_opens),
    ("metrics", checks_traffic.counted),
    ("lines to paste", pasted),
)
"""In this order: the breaker stays open for a while, and the pasted requests are not counted by us."""
WIDTH = max(len(title) for title, _ in CHECKS)


async def run_smoke(stopped: asyncio.Event) -> int:
    """Run every check against a demo of its own; return the exit status: 0 if all was right."""
    started = time.monotonic()
    stage = Stage("smoke", agent_log=LOG)
    good = True
    try:
        await stage.open()
        _print("start", f"{len(stage.children) - 1} servers and the agent", started, ok=True)
        for note in stage.notes:
            print(f"note: {note}")
        visitor = Visitor(stage)
        for title, check in CHECKS:
            if stopped.is_set():
                print("smoke: stopped before its end")
                good = False
                break
            good &= await _run(title, check, visitor)
        if not good and (log := stage.directory / LOG).exists():
            print("The agent's last lines:", *log.read_text().splitlines()[-LOG_LINES:], sep="\n  ")
    except (StageError, NothingFree) as error:
        print(f"smoke: {error}")
        good = False
    finally:
        good &= await _clean_up(stage)
    print("smoke: everything was right" if good else "smoke: FAILED", f"({time.monotonic() - started:.0f} s)")
    return 0 if good else 1


async def _run(title: str, check: Check, visitor: Visitor) -> bool:
    started = time.monotonic()
    try:
        async with asyncio.timeout(CHECK_TIME):
            seen = await check(visitor)
    except Wrong as wrong:
        _print(title, str(wrong), started, ok=False)
    except (OSError, dns.exception.DNSException, ValueError, LookupError) as error:
        _print(title, f"{type(error).__name__}: {error}", started, ok=False)
    else:
        _print(title, seen, started, ok=True)
        return True
    return False


async def _clean_up(stage: Stage) -> bool:
    """End the stage and look whether anything is left of it."""
    started = time.monotonic()
    children = stage.children
    left = await stage.close()
    left += [child.name for child in children if not child.ended]
    if stage.directory.name and stage.directory.exists():
        left.append(str(stage.directory))
    try:
        await fetch(LOCALHOST, stage.admin_port, "/healthz")
        left.append("the admin server")
    except OSError:
        pass
    _print("clean-up", f"left: {', '.join(left)}" if left else "no process, no file", started, ok=not left)
    return not left


def _print(title: str, seen: str, started: float, *, ok: bool) -> None:
    verdict = "ok    " if ok else "FAILED"
    print(f"{verdict} {title.ljust(WIDTH)} {time.monotonic() - started:5.1f} s  {seen}", flush=True)
