from __future__ import annotations

from collections.abc import Iterator

import pytest

from hack.lab.lab import Lab


@pytest.fixture
def lab(lab_possible: None) -> Iterator[Lab]:
    """One node with two pods."""
    with Lab(nodes=1, pods=2) as lab:
        yield lab
