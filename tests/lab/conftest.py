from __future__ import annotations

from collections.abc import Iterator

import pytest

from hack.lab.lab import Lab
from hack.lab.sandbox import SandboxError, find_mode


@pytest.fixture(scope="session")
def lab_possible() -> None:
    """Skip where neither root nor user namespaces nor nft are to be had."""
    try:
        find_mode()
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.fixture
def lab(lab_possible: None) -> Iterator[Lab]:
    """One node with two pods."""
    with Lab(nodes=1, pods=2) as lab:
        yield lab
