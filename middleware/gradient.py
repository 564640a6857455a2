"""A limit of requests at once that follows latency: the gradient controller of Envoy's adaptive concurrency
filter (https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/adaptive_concurrency_filter).
Pure.

After each window the limit becomes `limit * gradient + sqrt(limit)`, with

    gradient = base latency * (1 + 25 %) / median latency of the window, from 0.5 to 1

The base latency is what the Service takes with few requests in progress. It is measured by letting only
`least` requests in for a moment: at first, once a minute while the limit is in use, and when the limit has
been at its minimum for five windows.

Not as in Envoy:

- A window takes only requests that have begun since it did. Otherwise a limit would be judged by the latency
  under the one before, and on slow Services it would swing from one end to the other.
- The gradient does not exceed 1 (as in Netflix's Gradient2; 2 in Envoy): a queue that is empty for a moment,
  as it is after a measurement, does not double the limit.
- While less than half of the limit is in use, the latency is not that of a queue. So it is taken for the base
  latency, the limit stays, and nothing is held back to measure.
- A measurement takes 10 requests instead of 50, so that it is short on slow Services.

Netflix's Gradient2, the alternative, compares with a long average of the latency itself, which an overload
that lasts raises, and with it the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Final

WINDOW: Final = 0.1
"""Seconds that a window has at least."""
WINDOW_SAMPLES: Final = 10
"""Samples that it has at least."""
MOST_SAMPLES: Final = 256
"""Samples that are kept of a window: its first ones."""
BUFFER: Final = 1.25
GRADIENT_BOUNDS: Final = (0.5, 1.0)
INITIAL: Final = 20
MEASURED_EVERY: Final = 60.0
"""Seconds."""
JITTER: Final = 0.15
"""Of that time: so that workers and nodes do not all measure at once."""
MEASURE_SAMPLES: Final = 10
WINDOWS_AT_LEAST: Final = 5
LEARNED: Final = 0.1
"""The share of a window's latency in the base latency, if it is higher than that was."""


class Gradient:
    """Chooses the limit, from `least` to `most`; `draw` returns random numbers from 0 to 1."""

    def __init__(self, least: int, most: int, now: float, draw: Callable[[], float]) -> None:
        self.limit = least
        """What is in force."""
        self.base: float | None = None
        """The latency with few requests in progress, in seconds; None until it is known."""
        self._least = least
        self._most = most
        self._draw = draw
        self._settled = float(min(max(INITIAL, least), most))
        """The limit outside of measurements."""
        self._measuring_since: float | None = now
        self._measure_at = 0.0
        self._at_least = 0
        self._samples: list[float] = []
        self._busiest = 0
        self._window_began = now

    def sample(self, began: float, now: float, in_progress: int) -> bool:
        """Take the times of a request that was answered; return whether the limit is another one now.

        `in_progress` is how many there are at this moment, this one included.
        """
        before = self.limit
        if self._measuring_since is not None:
            if began >= self._measuring_since:
                self._samples.append(now - began)
                if len(self._samples) >= MEASURE_SAMPLES:
                    self._measured(now)
            return self.limit != before
        if began >= self._window_began and len(self._samples) < MOST_SAMPLES:
            self._samples.append(now - began)
        self._busiest = max(self._busiest, in_progress)
        if now - self._window_began >= WINDOW and len(self._samples) >= WINDOW_SAMPLES:
            self._window_ended(now)
        return self.limit != before

    def _measured(self, now: float) -> None:
        self.base = _median(self._samples)
        self._measuring_since = None
        self._at_least = 0
        self._set_due(now)
        self.limit = int(self._settled)
        self._begin_window(now)

    def _window_ended(self, now: float) -> None:
        latency = _median(self._samples)
        base = self.base
        assert base is not None
        if self._busiest * 2 < self.limit:
            self.base = latency if latency < base else base + (latency - base) * LEARNED
            self._set_due(now)
        else:
            low, high = GRADIENT_BOUNDS
            gradient = max(low, min(high, base * BUFFER / latency)) if latency > 0 else high
            limit = self._settled * gradient
            self._settled = max(self._least, min(self._most, limit + sqrt(limit)))
            self.limit = int(self._settled)
            self._at_least = self._at_least + 1 if self.limit == self._least < self._most else 0
            if now >= self._measure_at or self._at_least >= WINDOWS_AT_LEAST:
                self._measuring_since = now
                self.limit = self._least
        self._begin_window(now)

    def _set_due(self, now: float) -> None:
        self._measure_at = now + MEASURED_EVERY * (1 + JITTER * self._draw())

    def _begin_window(self, now: float) -> None:
        self._samples = []
        self._busiest = 0
        self._window_began = now


def _median(samples: list[float]) -> float:
    return sorted(samples)[len(samples) // 2]
