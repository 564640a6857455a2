"""The simulation of outlier detection in several workers: what must be so whatever its figures are."""

from __future__ import annotations

import pytest

from hack.bench.outlier_simulation import SECONDS, failed_requests
from nodeagent.plan.model import OutlierDetection


def test_a_seed_gives_the_same_figures() -> None:
    assert failed_requests(4, 50, 0.6, 3) == failed_requests(4, 50, 0.6, 3)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_every_ejection_costs_some_failures_in_a_row_in_each_worker(workers: int) -> None:
    """With enough requests: the second ejection begins when the first one is over, and outlasts the run."""
    options = OutlierDetection(("5xx",))
    assert options.ejection < SECONDS < 3 * options.ejection
    assert failed_requests(workers, 200, 1.0, 1) == 2 * options.consecutive * workers


def test_without_failures_nothing_fails() -> None:
    assert failed_requests(2, 50, 0.0, 1) == 0
