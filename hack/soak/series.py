"""Whether a figure that was sampled over time stays flat. Pure.

Each process has its own series: a process that replaces another begins a new one. A series is judged by the
medians of its first and its last quarter after the warm-up, which a spike does not move; the slope
(Theil-Sen: the median of the slopes of all pairs) is reported too, because people think in growth per hour.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import msgspec

LEAST_SAMPLES = 16
"""Four in each quarter: of fewer the median says little."""
MOST_PAIRS_OF = 200
"""Samples that the slope is made of; of more, evenly spread ones."""


class Bound(msgspec.Struct, frozen=True):
    """How much a figure may grow from the first quarter to the last: the greater of the two."""

    absolute: float
    share: float
    unit: str
    why: str

    def allowance(self, first: float) -> float:
        """Return what it may grow by, from there."""
        return max(self.absolute, self.share * first)


MIB = 1024 * 1024
BOUNDS: Mapping[str, Bound] = {
    "memory": Bound(
        6 * MIB,
        0.08,
        "bytes",
        "Python's allocator grows by arenas of 1 MiB, and the number of buffers of 64 KiB in use varies;"
        " a leak of 100 bytes a request passes this after some 60,000 requests",
    ),
    "descriptors": Bound(
        24, 0.25, "", "the number of open connections varies with the traffic, around the same mean"
    ),
    "threads": Bound(2, 0.0, "", "a pool of threads may not have been used up in the first quarter"),
    "tasks": Bound(16, 0.25, "", "a task is a connection that is being made, or a message that is awaited"),
}
"""By figure."""


class Trend(msgspec.Struct, frozen=True):
    """The result for one figure of one process."""

    process: str
    figure: str
    samples: int
    seconds: float
    first: float
    """Median of the first quarter."""
    last: float
    """Median of the last quarter."""
    per_hour: float
    """The slope."""
    allowance: float
    growth: float
    """From the first quarter to the last."""

    @property
    def grows(self) -> bool:
        """Whether it has grown by more than it may."""
        return self.growth > self.allowance


def trend(
    process: str, figure: str, samples: Sequence[tuple[float, float]], warm_up: float, bound: Bound
) -> Trend | None:
    """Judge a series of (time, value); samples before the time `warm_up` are left out.

    None: there are too few to say anything.
    """
    kept = [sample for sample in samples if sample[0] >= warm_up]
    if len(kept) < LEAST_SAMPLES:
        return None
    quarter = len(kept) // 4
    first = statistics.median(value for _, value in kept[:quarter])
    last = statistics.median(value for _, value in kept[-quarter:])
    seconds = kept[-1][0] - kept[0][0]
    per_hour = slope(kept) * 3600
    allowance = bound.allowance(first)
    return Trend(process, figure, len(kept), seconds, first, last, per_hour, allowance, last - first)


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Return the Theil-Sen slope of (time, value), per unit of time."""
    step = max(1, len(samples) // MOST_PAIRS_OF)
    points = samples[::step]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for index, earlier in enumerate(points)
        for later in points[index + 1 :]
        if later[0] > earlier[0]
    ]
    return statistics.median(slopes) if slopes else 0.0


class Samples:
    """The series of all processes, by process and figure."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], list[tuple[float, float]]] = {}

    def add(self, process: str, figure: str, now: float, value: float) -> None:
        """Take a sample."""
        self.series.setdefault((process, figure), []).append((now, value))

    def latest(self, figure: str) -> dict[str, float]:
        """Return the last value of a figure, by process."""
        return {process: values[-1][1] for (process, name), values in self.series.items() if name == figure}

    def trends(self, warm_up: float) -> list[Trend]:
        """Judge every series by `BOUNDS`. The warm-up is in seconds after each series' first sample."""
        judged = []
        for (process, figure), samples in self.series.items():
            bound = BOUNDS.get(figure)
            if bound is None:
                continue
            verdict = trend(process, figure, samples, samples[0][0] + warm_up, bound)
            if verdict is not None:
                judged.append(verdict)
        return judged
