"""Control planes for tests: one for all that leave it whole, and one for each test that breaks it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hack.kube.assets import Assets, AssetsMissing, find_assets
from hack.kube.control_plane import ControlPlane


@pytest.fixture(scope="session")
def assets() -> Assets:
    """The programs; skips where they are not there."""
    if os.environ.get("SVCMESH_SKIP_KUBE"):
        pytest.skip("SVCMESH_SKIP_KUBE is set")
    try:
        return find_assets()
    except AssetsMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_cluster(assets: Assets) -> Iterator[ControlPlane]:
    """One control plane for every test that only adds objects of names of its own."""
    with ControlPlane(assets=assets) as cluster:
        yield cluster


@pytest.fixture
def cluster(assets: Assets) -> Iterator[ControlPlane]:
    """A control plane that the test may stop, break and restore; without controllers, which it would lose."""
    with ControlPlane(assets=assets, controllers=()) as cluster:
        yield cluster
