"""HTTP/1: nothing that a client or an endpoint says makes the mesh hold, or do, a hundred times as much.

Memory is counted exactly, as Python's allocator knows it; work in calls of functions, because time is not the
same twice. `tests/interop/test_amplification.py` measures real memory and CPU of a whole agent.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.exchange.floods import ENDPOINT_FLOODS, FLOODS
from tests.exchange.http1 import Http1Stage, get
from tests.exchange.script import a, client
from tests.http2.attacks import Attack
from tests.http2.measure import check_calls, check_memory

Wires = Callable[..., Http1Stage]
ENDPOINTS = {"one that answers nothing": "a", "none": ""}
"""Without one, the mesh answers all requests itself."""


def attacked(wires: Wires, endpoints: str) -> Http1Stage:
    stage = wires(high=64 * 1024, endpoints=endpoints)
    stage.connects("client")
    return stage


def answering(wires: Wires) -> Http1Stage:
    """Have an endpoint owe a response."""
    stage = wires(high=64 * 1024)
    stage.does(client >> get(), a >> "accepts")
    return stage


@pytest.mark.parametrize("attack", FLOODS, ids=[attack.name for attack in FLOODS])
class TestAClient:
    def test_memory(self, wires: Wires, attack: Attack) -> None:
        """Where requests are answered, the stage keeps notes of them: the whole agent shows that."""
        check_memory(attacked(wires, "a"), attack)

    @pytest.mark.parametrize("endpoints", ENDPOINTS.values(), ids=list(ENDPOINTS))
    def test_calls(self, wires: Wires, attack: Attack, endpoints: str) -> None:
        check_calls(attacked(wires, endpoints), attack)


@pytest.mark.parametrize("attack", ENDPOINT_FLOODS, ids=[attack.name for attack in ENDPOINT_FLOODS])
class TestAnEndpoint:
    def test_memory(self, wires: Wires, attack: Attack) -> None:
        check_memory(answering(wires), attack, "a1")

    def test_calls(self, wires: Wires, attack: Attack) -> None:
        check_calls(answering(wires), attack, "a1")
