"""The table for people and `build/bench.json` for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hack.bench.figures import AGENT, Sample, Target, middle, ratio

HTTP_COLUMNS = (("CPU us/request", "cpu_us_per_request", 1), ("requests/s", "per_second", 0))
SIZED_COLUMNS = (("CPU us/request", "cpu_us_per_request", 0), ("MiB/s", "mib_per_second", 0))
SIZE_COLUMNS = (
    ("ready s", "ready_s", 2),
    ("CPU s", "cpu_s", 2),
    ("PSS MiB", "pss_mib", 1),
    ("RSS MiB", "rss_mib", 1),
)
SCRAPE_COLUMNS = (("CPU ms", "cpu_ms", 0), ("longest piece ms", "piece_ms", 1), ("series", "series", 0))
CHANGE_COLUMNS = (("p50 ms", "p50_ms", 1), ("p99 ms", "p99_ms", 1), ("most ms", "most_ms", 1))
IDLE_COLUMNS = (
    ("RSS MiB", "rss_mib", 1),
    ("PSS MiB", "pss_mib", 1),
    ("RSS grew MiB", "rss_grown_mib", 1),
    ("PSS grew MiB", "pss_grown_mib", 1),
)
COLUMNS: Mapping[str, tuple[tuple[str, str, int], ...]] = {
    "python": (("us/request", "python_us", 2), ("by reference", "by_reference", 3)),
    "small": HTTP_COLUMNS,
    "browser": HTTP_COLUMNS,
    "traced": HTTP_COLUMNS,
    "browser traced": HTTP_COLUMNS,
    "10k": HTTP_COLUMNS,
    "1m": SIZED_COLUMNS,
    "latency": (
        ("CPU us/request", "cpu_us_per_request", 1),
        ("p50 us", "p50_us", 0),
        ("p99 us", "p99_us", 0),
    ),
    "tcp": (("CPU ms/MiB", "cpu_ms_per_mib", 3), ("MiB/s", "mib_per_second", 0)),
    **dict.fromkeys(
        (
            "http2 8x10",
            "http2 1x100",
            "http2 32x1",
            "http2 10k",
            "http2 post",
            "http2 paths",
            "http2 unique",
            "http2 literal",
            "http2 to http1",
            "http1 to http2",
        ),
        HTTP_COLUMNS,
    ),
    "http2 1m": SIZED_COLUMNS,
    "grpc": (
        ("CPU us/call", "cpu_us_per_request", 1),
        ("p50 us", "p50_us", 0),
        ("p99 us", "p99_us", 0),
        ("calls/s", "per_second", 0),
    ),
    "idle http1": IDLE_COLUMNS,
    "idle connections": IDLE_COLUMNS,
    "observed": HTTP_COLUMNS,
    "dns": (("queries/s", "per_second", 0), ("CPU us/query", "cpu_us_per_query", 2)),
    "stepping": HTTP_COLUMNS,
    "stepping, one": (("CPU us/request", "cpu_us_per_request", 1), ("p50 us", "p50_us", 0)),
    "balance": (("p99 ms", "p99_ms", 1), ("p50 ms", "p50_ms", 1), ("requests/s", "per_second", 0)),
    "balance: pick": (("us at 10", "pick_us_10", 2), ("us at 1,000", "pick_us_1000", 2)),
    "balance: workers": tuple((f"{count} workers", f"p99_ms_{count}", 1) for count in (1, 2, 4, 8)),
    "10 services": SIZE_COLUMNS,
    "1000 services": SIZE_COLUMNS,
    "scrape": SCRAPE_COLUMNS,
    "scrape, all busy": SCRAPE_COLUMNS,
    "scrape, all busy, OpenMetrics": SCRAPE_COLUMNS,
    "endpoint added": CHANGE_COLUMNS,
    "10000 services": (
        ("ready s", "ready_s", 2),
        ("CPU s", "cpu_s", 2),
        ("agent RSS MiB", "agent_rss_mib", 1),
        ("worker RSS MiB", "worker_rss_mib", 1),
    ),
    "one change in 10000 services": CHANGE_COLUMNS,
    "a new one beside 10000 services": CHANGE_COLUMNS,
    "100 changes a second": (("cores", "core_share", 2), ("agent RSS MiB", "agent_rss_mib", 1)),
}
"""What the table shows of each case: heading, figure, decimals."""
COMPARED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "grpc": (("CPU ratio", "cpu_us_per_request"), ("p99 ratio", "p99_us")),
    "idle http1": (("RSS ratio", "rss_mib"), ("growth ratio", "rss_grown_mib")),
    "idle connections": (("RSS ratio", "rss_mib"), ("growth ratio", "rss_grown_mib")),
}
"""The figures that are compared, with headings; of other cases it is the first column."""


class Report(msgspec.Struct, frozen=True):
    """All that a run found out."""

    machine: Mapping[str, str]
    versions: Mapping[str, str]
    rounds: int
    seconds: float
    cores: Mapping[str, int]
    commands: Mapping[str, str]
    notes: Sequence[str]
    titles: Mapping[str, str]
    samples: Sequence[Sample]
    targets: Sequence[Target]


def write_report(report: Report, path: Path) -> None:
    """Write the report as JSON."""
    document = msgspec.to_builtins(report)
    for target, values in zip(report.targets, document["targets"], strict=True):
        values["reached"] = target.reached
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def render_report(report: Report) -> str:
    """Return the report as tables."""
    lines = [
        "",
        "  ".join(f"{name} {value}" for name, value in report.versions.items()),
        "  ".join(f"{name} {value}" for name, value in report.machine.items()),
        _conditions(report),
        "medians over the rounds; ratio: the median of svc.mesh / this one in a round, of the first column",
    ]
    for case in dict.fromkeys(sample.case for sample in report.samples):
        lines += ["", report.titles.get(case, case), *_table(case, report.samples)]
    lines += ["", "Figures to reach", *(_verdict(target) for target in report.targets)]
    lines += ["", *(f"note: {note}" for note in report.notes)] if report.notes else []
    return "\n".join(lines)


def _conditions(report: Report) -> str:
    proxy, load = report.cores["proxy"], report.cores["load"]
    measured = f"{report.rounds} rounds of {report.seconds:g} s"
    return f"{measured}; the proxy on core {proxy}, load and back end on core {load}"


def _table(case: str, samples: Sequence[Sample]) -> list[str]:
    columns = COLUMNS[case]
    peers = list(dict.fromkeys(sample.peer for sample in samples if sample.case == case))
    compared = COMPARED.get(case, (("ratio", columns[0][1]),)) if len(peers) > 1 else ()
    rows = [["", *(heading for heading, _, _ in columns), *(heading for heading, _ in compared)]]
    for peer in peers:
        row = [peer]
        for _, figure, decimals in columns:
            value = middle(samples, case, peer, figure)
            row.append("" if value is None else f"{value:,.{decimals}f}")
        ours = AGENT if AGENT in peers else peers[0]
        for _, figure in compared:
            times = ratio(samples, case, figure, ours, peer)
            row.append("" if times is None or peer == ours else f"{times:.2f}")
        rows.append(row)
    return ["  " + _aligned(row) for row in rows]


def _aligned(row: Sequence[str]) -> str:
    return row[0].ljust(32) + "".join(cell.rjust(16) for cell in row[1:])


def _verdict(target: Target) -> str:
    word = {True: "reached", False: "NOT REACHED", None: "not measured"}[target.reached]
    value = "" if target.value is None else f"{target.value:.2f}"
    unit = f" {target.unit}" if target.unit else ""
    return f"  {target.name.ljust(76)}{value.rjust(8)}  {target.relation} {target.bound:g}{unit}: {word}"
