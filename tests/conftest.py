"""What tests in network namespaces share: whether they can be built here at all."""

from __future__ import annotations

import pytest

from hack.lab.sandbox import SandboxError, find_mode


@pytest.fixture(scope="session")
def lab_possible() -> None:
    """Skip where neither root nor user namespaces nor nft are to be had."""
    try:
        find_mode()
    except SandboxError as error:
        pytest.skip(str(error))
