"""`python -m hack.soak --minutes 60`: see docs/testing.md. Exit status 1 if there was a violation."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from hack.kit.ports import NothingFree
from hack.kit.processes import ProcessFailed
from hack.soak.report import Report
from hack.soak.run import Plan, soak
from hack.soak.trouble import Pace


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m hack.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long the traffic lasts (60)")
    parser.add_argument("--seed", type=int, help="of all randomness; by default one that is new, and printed")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the report there, too")
    parser.add_argument("--no-stop", action="store_true", help="no worker is made to hang")
    parser.add_argument("--pace", type=float, default=1.0, help="events come so many times as often (1)")
    return parser.parse_args(arguments)


def plan_of(given: argparse.Namespace) -> Plan:
    """Return what the command line asks for."""
    usual, seconds = Pace(), given.minutes * 60
    means = {name: getattr(usual, name) / given.pace for name in Pace.__struct_fields__}
    if given.no_stop:
        means["stop"] = 0.0
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    every, warm_up = min(5.0, max(0.5, seconds / 120)), min(60.0, seconds / 5)
    return Plan(seconds, seed, Pace(**means), every, warm_up)


async def run(plan: Plan, directory: Path) -> Report | None:
    """Run it until its end, or a signal."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)

    def say(text: str) -> None:
        print(text, flush=True)

    return await soak(plan, directory, stopped, say)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak; return the exit status."""
    given = parse_arguments(arguments)
    plan = plan_of(given)
    directory = Path(tempfile.mkdtemp(prefix="svcmesh-soak-"))
    print(f"Soaking for {given.minutes:g} minutes with seed {plan.seed}; files in {directory}", flush=True)
    good = stopped = False
    try:
        report = uvloop.run(run(plan, directory))
        good, stopped = report is not None and report.good, report is None
        if report is not None and given.json is not None:
            given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    except (ProcessFailed, NothingFree) as error:
        print(f"soak: {error}", file=sys.stderr)
    finally:
        if good or stopped:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            print(f"soak: the logs are in {directory}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
