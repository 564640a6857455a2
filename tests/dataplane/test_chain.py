"""A chain of layers is stepped by hand: what it awaits, returns and raises reaches its owner."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from middleware.contract import ExchangeError, NoEndpoint
from nodeagent.proxy.chain import Chain, Outcome
from tests.dataplane.harness import until


class Owner:
    """Notes how the chain ended."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    def chain_returned(self, response: Any) -> None:
        self.ended.append(response)

    def chain_raised(self, error: ExchangeError) -> None:
        self.ended.append(error)

    def chain_broke(self, error: Exception) -> None:
        self.ended.append(error)


def start(coroutine: Coroutine[Any, Any, Any]) -> tuple[Chain, Owner]:
    owner = Owner()
    chain = Chain(coroutine, owner, asyncio.get_running_loop())
    chain.step(None)
    return chain, owner


async def test_it_waits_for_its_exchange() -> None:
    async def forward() -> Any:
        return await Outcome()

    chain, owner = start(forward())
    assert owner.ended == []
    chain.step("response")
    assert owner.ended == ["response"]


async def test_an_error_is_raised_where_it_waits() -> None:
    async def forward() -> Any:
        try:
            return await Outcome()
        except NoEndpoint:
            return await Outcome()

    chain, owner = start(forward())
    chain.step(NoEndpoint("none"))
    assert owner.ended == []
    failure = NoEndpoint("none again")
    chain.step(failure)
    assert owner.ended == [failure]


async def test_asyncio_futures_and_sleep_work_as_in_a_task() -> None:
    future = asyncio.get_running_loop().create_future()

    async def wait() -> Any:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return await future

    _, owner = start(wait())
    asyncio.get_running_loop().call_later(0.005, future.set_result, "done")
    await until(lambda: owner.ended)
    assert owner.ended == ["done"]


async def test_a_failed_future_raises_in_the_layer() -> None:
    future = asyncio.get_running_loop().create_future()

    async def wait() -> Any:
        return await future

    _, owner = start(wait())
    problem = ValueError("no")
    future.set_exception(problem)
    await until(lambda: owner.ended)
    assert owner.ended == [problem]


async def test_awaiting_something_else_is_a_bug_that_says_so() -> None:
    class Odd:
        def __await__(self) -> Any:
            yield 42

    async def wait() -> Any:
        await Odd()

    _, owner = start(wait())
    assert "not an asyncio future" in str(owner.ended[0])


async def test_closing_runs_finally_and_ends_it() -> None:
    cleaned: list[bool] = []

    async def wait() -> Any:
        try:
            await asyncio.sleep(0.001)
        finally:
            cleaned.append(True)

    chain, owner = start(wait())
    chain.close()
    chain.close()
    await asyncio.sleep(0.01)
    assert cleaned == [True]
    assert owner.ended == []
