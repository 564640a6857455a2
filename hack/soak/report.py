"""What a soak found: a line while it runs, a table and a JSON document at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from hack.soak.ledger import Ledger, Result, Verdict, tally
from hack.soak.series import MIB, Trend

MOST_SHOWN = 20
"""Violations of a kind that are listed one by one."""


class Violation(msgspec.Struct, frozen=True):
    """Something that may not be: what, `at` which second of the run, and by how much."""

    what: str
    at: float


class Report(msgspec.Struct, frozen=True):
    """Everything that is reported at the end."""

    seed: int
    seconds: float
    requests: Mapping[str, Mapping[str, int]]
    """By kind: how many were `ok`, `meant` and `failed`."""
    meant: Mapping[str, int]
    excused: Mapping[str, int]
    events: Mapping[str, int]
    trends: Sequence[Trend]
    descriptors: Mapping[str, tuple[int, int]]
    """By process: before the traffic and after it."""
    drained_in: float | None
    """Seconds from the end of the traffic until nothing was open; None if something is left."""
    cpu: Mapping[str, float]
    """Cores that were used, by what used them."""
    violations: Sequence[Violation]

    @property
    def good(self) -> bool:
        """Whether there was no violation."""
        return not self.violations


def requests_by_kind(ledger: Ledger) -> dict[str, dict[str, int]]:
    """Return the counts of a ledger by kind and result."""
    by_kind: dict[str, dict[str, int]] = {}
    for (kind, _, result), count in sorted(ledger.counts.items(), key=lambda item: item[0][0]):
        counts = by_kind.setdefault(kind, {one.value: 0 for one in Result})
        counts[result.value] += count
    return by_kind


def unexcused(verdicts: Iterable[Verdict], began: float) -> list[Violation]:
    """Return a violation for each failure that nothing excuses."""
    return [
        Violation(
            f"{verdict.outcome.kind} to {verdict.outcome.service} failed after"
            f" {verdict.outcome.ended - verdict.outcome.started:.2f} s: {verdict.outcome.why}",
            verdict.outcome.ended - began,
        )
        for verdict in verdicts
        if not verdict.excuse
    ]


def growing(trends: Iterable[Trend], at: float) -> list[Violation]:
    """Return a violation for each figure that has grown by more than it may."""
    return [
        Violation(
            f"{one.process}: {one.figure} grew from {_figure(one, one.first)} to {_figure(one, one.last)},"
            f" {_figure(one, one.growth)} in {one.seconds:.0f} s, and may by {_figure(one, one.allowance)}",
            at,
        )
        for one in trends
        if one.grows
    ]


def excused(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Return how many failures each excuse covers."""
    return {excuse: count for excuse, count in sorted(tally(verdicts).items()) if excuse}


def progress(
    elapsed: float,
    ledger: Ledger,
    verdicts: Sequence[Verdict],
    memory: Mapping[str, float],
    events: Mapping[str, int],
    violations: int,
) -> str:
    """Return the line of the moment."""
    without = tally(verdicts)[""]
    sizes = " ".join(f"{process.partition(' (')[0]} {value / MIB:.1f}" for process, value in memory.items())
    happened = ", ".join(f"{count} {kind}" for kind, count in sorted(events.items()))
    return (
        f"{_clock(elapsed)}  {ledger.total} requests, {ledger.failed} failed ({without} without excuse),"
        f" {violations} violations; MiB: {sizes}; {happened}"
    )


def render(report: Report) -> str:
    """Return the table."""
    lines = [
        f"\nSoak of {_clock(report.seconds)} with seed {report.seed}",
        "",
        _row("requests", "ok", "meant", "failed"),
    ]
    lines += [
        _row(kind, *(f"{counts[one.value]}" for one in Result)) for kind, counts in report.requests.items()
    ]
    lines += ["", "failed on purpose, as annotated:"]
    lines += [f"  {count:>8}  {why}" for why, count in report.meant.items()]
    lines += ["", "failed and excused:"]
    lines += [f"  {count:>8}  {why}" for why, count in report.excused.items()] or ["         0"]
    lines += ["", "events: " + ", ".join(f"{count} {kind}" for kind, count in sorted(report.events.items()))]
    lines += ["cores: " + ", ".join(f"{who} {used:.2f}" for who, used in report.cpu.items())]
    if report.trends:
        lines += [
            "",
            _row("over time (after the warm-up)", "first", "last", "may grow", "per hour", "samples"),
        ]
        lines += [
            _row(
                f"{one.process} {one.figure}",
                _figure(one, one.first),
                _figure(one, one.last),
                _figure(one, one.allowance),
                _figure(one, one.per_hour),
                str(one.samples),
            )
            for one in report.trends
        ]
    else:
        lines += ["", "too short to say anything of memory over time"]
    drained = "not all" if report.drained_in is None else f"all, within {report.drained_in:.1f} s"
    lines += ["", f"closed after the traffic: {drained}"]
    lines += [
        f"descriptors of {process}: {before} before, {after} after"
        for process, (before, after) in report.descriptors.items()
    ]
    if report.good:
        return "\n".join([*lines, "", "No violation."])
    count = len(report.violations)
    lines += ["", f"{count} VIOLATION{'S' if count > 1 else ''}"]
    lines += [f"  at {_clock(one.at)}: {one.what}" for one in report.violations[:MOST_SHOWN]]
    if len(report.violations) > MOST_SHOWN:
        lines.append(f"  and {len(report.violations) - MOST_SHOWN} more")
    return "\n".join(lines)


def _row(name: str, *cells: str) -> str:
    return f"{name:<34}" + "".join(f"{cell:>12}" for cell in cells)


def _figure(one: Trend, value: float) -> str:
    return f"{value / MIB:.2f} MiB" if one.figure == "memory" else f"{value:.1f}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"
