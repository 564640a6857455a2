from __future__ import annotations

import asyncio

from discovery.kube.mailbox import Mailbox
from discovery.source import Event, Malformed


def events(count: int) -> list[Event]:
    return [Malformed(str(index)) for index in range(count)]


async def test_what_came_meanwhile_goes_out_together_and_in_order() -> None:
    mailbox = Mailbox(batch=5)
    await mailbox.put(events(2))
    mailbox.post([Malformed("last")])
    assert await mailbox.take(None) == (Malformed("0"), Malformed("1"), Malformed("last"))


async def test_a_batch_is_bounded() -> None:
    mailbox = Mailbox(batch=2)
    await mailbox.put(events(5))
    assert [len(await mailbox.take(None)) for _ in range(3)] == [2, 2, 1]
    assert await mailbox.take(0) == ()


async def test_a_producer_waits_for_room() -> None:
    mailbox = Mailbox(batch=2, capacity=3)
    producer = asyncio.create_task(mailbox.put(events(6)))
    await asyncio.sleep(0)
    assert [len(await mailbox.take(None)), producer.done()] == [2, False]
    await mailbox.take(None)
    await producer


async def test_a_consumer_can_be_woken_with_nothing() -> None:
    mailbox = Mailbox()
    consumer = asyncio.create_task(mailbox.take(None))
    await asyncio.sleep(0)
    mailbox.wake()
    assert await consumer == ()
    assert await mailbox.take(0) == ()
