"""Places in a pool: first come, first served, and none is ever lost."""

from __future__ import annotations

import asyncio

import pytest

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.wire.seats import Seats


def test_who_waits_longest_is_next() -> None:
    """Whatever comes back first."""

    async def run():
        seats, order = Seats(1), []
        first = await seats.take_in_task(None)

        async def take(name):
            seat = await seats.take_in_task(None)
            order.append(name)
            seat.leave()

        tasks = [asyncio.create_task(take(name)) for name in "abc"]
        await asyncio.sleep(1)
        first.leave()
        await asyncio.gather(*tasks)
        return order

    assert VirtualClock().run(run()) == ["a", "b", "c"]


def test_a_place_that_was_handed_to_somebody_who_leaves_goes_on() -> None:
    """He is cancelled in the very turn in which it became his."""

    async def run():
        seats = Seats(1)
        first = await seats.take_in_task(None)
        waiting = asyncio.create_task(seats.take_in_task(None))
        await asyncio.sleep(1)
        first.leave()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        (await seats.take_in_task(1)).leave()

    VirtualClock().run(run())


def test_who_gave_up_is_passed_over() -> None:
    """His turn comes, and the next one's with it."""

    async def run():
        seats = Seats(1)
        first = await seats.take_in_task(None)
        with pytest.raises(TimeoutError, match=r"^no place came free in time$"):
            await seats.take_in_task(1)
        patient = asyncio.create_task(seats.take_in_task(10))
        await asyncio.sleep(1)
        first.leave()
        first.leave()  # Twice is once.
        (await patient).leave()
        one = await seats.take_in_task(1)
        with pytest.raises(TimeoutError, match=r"^no place came free in time$"):
            await seats.take_in_task(1)
        one.leave()

    VirtualClock().run(run())


def test_a_thread_that_gave_up_is_passed_over() -> None:
    """As a task is."""
    seats = Seats(1)
    first = seats.take_in_thread(None)
    with pytest.raises(TimeoutError, match=r"^no place came free in time$"):
        seats.take_in_thread(0.001)
    first.leave()
    seats.take_in_thread(0.001).leave()
