"""What is measured alone: requests that pass the data plane leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Mapping

import pytest

from hack.bench.python_case import LAYERS, REQUEST, one_request

REPEATS = 50


@pytest.mark.parametrize("asked", LAYERS.values(), ids=LAYERS)
def test_a_request_leaves_no_work_for_the_collector(asked: Mapping[str, str]) -> None:
    """A cycle in each request would cost a tenth of a worker's time."""
    loop = asyncio.new_event_loop()
    pass_on = one_request(loop, asked, itertools.repeat(REQUEST))
    pass_on()
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(REPEATS):
            pass_on()
        assert gc.collect() < REPEATS
    finally:
        if enabled:
            gc.enable()
        loop.close()
