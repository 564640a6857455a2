"""Control planes for tests that break them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hack.kube.control_plane import ControlPlane


@pytest.fixture
def cluster() -> Iterator[ControlPlane]:
    """A control plane that the test may stop, break and restore; without controllers, which it would lose."""
    with ControlPlane(controllers=()) as cluster:
        yield cluster
