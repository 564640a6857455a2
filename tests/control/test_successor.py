"""How an orphaned worker hears of the next agent, and by whom it is not fooled."""

from __future__ import annotations

import asyncio
import os

import pytest

from hack.kit.waiting import until_async
from nodeagent.control import successor
from nodeagent.control.successor import Presence, successor_address, wait_for_successor


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(successor, "RETRY", 0.01)
    return successor_address(f"test-{os.getpid()}")


async def test_it_waits_until_there_is_one(address: str) -> None:
    waiting = asyncio.create_task(wait_for_successor(address))
    presence = Presence(address)
    presence.announce()
    async with asyncio.timeout(20):
        await waiting
    await presence.close()


async def test_another_user_is_no_successor(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []
    original = successor._is_ours

    def look(probe: object) -> bool:
        looks.append(original(probe))  # type: ignore[arg-type]
        return looks[-1]

    monkeypatch.setattr(successor, "_is_ours", look)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    presence = Presence(address)
    presence.announce()
    waiting = asyncio.create_task(wait_for_successor(address))
    await until_async(lambda: len(looks) > 2)
    assert not waiting.done()
    monkeypatch.setattr(os, "geteuid", lambda: mine)
    async with asyncio.timeout(20):
        await waiting
    assert looks[-1]
    await presence.close()
