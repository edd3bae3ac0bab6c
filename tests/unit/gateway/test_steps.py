"""A story's steps: each at once when a signal happens, in the loop's next turn for a future, and always to an end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from counterfoil.errors import GatewayFault
from counterfoil.gateway.steps import Signal, follow


def test_a_signal_is_heard_at_once() -> None:
    """Inside the call that makes it happen, without a loop."""
    first, second, heard = Signal(), Signal(), []

    async def story() -> None:
        heard.append("began")
        await first
        heard.append("first")
        await second
        heard.append("second")

    follow(story())
    assert heard == ["began"]
    second.set_result(None)  # before anybody waits for it
    assert heard == ["began"]
    first.set_result(None)
    assert heard == ["began", "first", "second"]
    assert first.done()


def test_a_signal_that_fails_is_raised_where_it_is_awaited() -> None:
    """Whether it failed before or while somebody waits."""
    early, late, caught = Signal(), Signal(), []
    early.set_exception(GatewayFault("overloaded"))

    async def story() -> None:
        for signal in (early, late):
            try:
                await signal
            except GatewayFault as fault:
                caught.append(fault.short_code)

    follow(story())
    late.set_exception(GatewayFault("ledger_unavailable"))
    assert caught == ["overloaded", "ledger_unavailable"]


def test_futures_can_be_awaited_as_well() -> None:
    """One that has a result, one that fails, one that comes later; the end is told."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        ready: asyncio.Future[int] = loop.create_future()
        broken: asyncio.Future[int] = loop.create_future()
        ready.set_result(1)
        broken.set_exception(ValueError("no"))
        seen: list[object] = []

        async def story() -> None:
            seen.append(await ready)
            with pytest.raises(ValueError, match="no"):
                await broken
            seen.append(await loop.create_task(asyncio.sleep(0, 2)))

        follow(story(), over)
        await over
        assert seen == [1, 2]

    asyncio.run(run())


def test_an_exception_nobody_expected_is_logged_and_the_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """It must not break what made the signal happen."""

    async def run() -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        signal = Signal()

        async def story() -> None:
            await signal
            raise LookupError("nobody expected this")

        follow(story(), over)
        with caplog.at_level(logging.ERROR):
            signal.set_result(None)
        await over
        assert "nobody expected this" in caplog.text

    asyncio.run(run())
