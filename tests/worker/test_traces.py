"""What a worker sends of what it has recorded: in lots, bounded, and counted where it is dropped."""

from __future__ import annotations

import asyncio

from nodeagent.control.messages import Message, Traces
from nodeagent.stats.identity import Identity
from nodeagent.worker.traces import LOT, MOST_UNREAD, TraceSender
from tests.recorded import recorded


def identify(address: str) -> Identity:
    assert address == recorded().source
    return Identity("deployment/web", "shop")


class FakeChannel:
    """The way to an agent that reads, or not."""

    def __init__(self) -> None:
        self.pending = 0
        self.sent: list[Traces] = []
        self.told = asyncio.Event()

    def send(self, message: Message) -> None:
        assert isinstance(message, Traces)
        self.sent.append(message)
        self.told.set()


async def test_a_lot_goes_by_itself() -> None:
    channel = FakeChannel()
    sender = TraceSender(asyncio.get_running_loop(), channel, identify)
    one, two = recorded(1), recorded(2)
    sender.keep(one)
    sender.keep(two)
    assert channel.sent == []
    await channel.told.wait()
    assert channel.sent == [Traces((one, two), 0, ("shop/deployment/web", "shop/deployment/web"))]


async def test_what_finds_a_full_lot_is_counted() -> None:
    channel = FakeChannel()
    sender = TraceSender(asyncio.get_running_loop(), channel, identify)
    for _ in range(LOT + 3):
        sender.keep(recorded())
    sender.flush()
    sender.flush()
    assert [(len(one.requests), one.dropped) for one in channel.sent] == [(LOT, 3)]


async def test_an_agent_that_does_not_read_costs_records_and_no_memory() -> None:
    channel = FakeChannel()
    sender = TraceSender(asyncio.get_running_loop(), channel, identify)
    channel.pending = MOST_UNREAD + 1
    sender.keep(recorded())
    sender.flush()
    assert channel.sent == []
    channel.pending = 0
    sender.keep(recorded(2))
    sender.flush()
    assert channel.sent == [Traces((recorded(2),), 1, ("shop/deployment/web",))]
