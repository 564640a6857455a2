"""Listening on ports that may be taken: reported once each, tried again, and free when nobody wants them."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from hack.kit.ports import free_port
from nodeagent.worker.listening import LoopbackListeners

HERE = "127.9.8.7"


async def serve(listener: socket.socket) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(asyncio.Protocol, sock=listener)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HERE, port)) == 0


async def test_a_port_that_is_taken_harms_no_other_and_is_served_once_it_is_free() -> None:
    taken, free = free_port(), free_port()
    listeners = LoopbackListeners(serve)
    with socket.create_server(("0.0.0.0", taken)):
        await listeners.follow([(HERE, taken), (HERE, free)], [])
        assert answers(free)
        (failure,) = listeners.failures
        assert failure.key == (HERE, taken)
        assert failure.reason.startswith(
            f"a worker cannot listen on {HERE}:{taken}: Address already in use ("
        )
        assert failure.reason.endswith(f"(process {os.getpid()}) listens on 0.0.0.0:{taken})")
        assert not await listeners.retry(), "nothing has changed"
        assert [*listeners.failures] == [failure]
    assert await listeners.retry()
    assert [*listeners.failures] == []
    assert answers(taken)
    await listeners.follow([], [(HERE, taken)])
    assert not answers(taken)
    assert answers(free)
    listeners.close()
    assert not answers(free)


@pytest.mark.parametrize("closed", [False, True], ids=["unwanted", "closed"])
async def test_what_nobody_wants_is_not_tried_again(closed: bool) -> None:
    port = free_port()
    listeners = LoopbackListeners(serve)
    with socket.create_server((HERE, port)):
        await listeners.follow([(HERE, port)], [])
        assert listeners.failures
        if closed:
            listeners.close()
        else:
            await listeners.follow([], [(HERE, port)])
        assert listeners.failures == ()
    assert not await listeners.retry()
    assert not answers(port)


async def test_an_address_that_is_not_ours_is_said_in_the_system_s_words() -> None:
    listeners = LoopbackListeners(serve)
    await listeners.follow([("192.0.2.1", 80)], [])
    (failure,) = listeners.failures
    assert failure.reason.endswith("Cannot assign requested address")
