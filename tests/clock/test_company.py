"""Loops in several threads share one clock, and one of them moves it."""

from __future__ import annotations

import asyncio
import threading
from time import perf_counter

import pytest

from pytest_tta.clock import ClockDeadlock, VirtualClock
from pytest_tta.clock.functions import REAL
from pytest_tta.loops import LoopSource


async def _beat(log: list[tuple[str, float]], name: str, every: float) -> None:
    for _ in range(3):
        await asyncio.sleep(every)
        log.append((name, asyncio.get_running_loop().time()))


def test_a_loop_in_a_thread_is_virtual_while_the_test_waits() -> None:
    """So do the test clients of web frameworks run an application."""
    log: list[tuple[str, float]] = []
    with LoopSource().in_virtual_time(VirtualClock()) as _:
        thread = threading.Thread(target=lambda: asyncio.run(_beat(log, "app", 30)))
        thread.start()
        thread.join()
    assert log == [("app", 30.0), ("app", 60.0), ("app", 90.0)]


def test_a_loop_inside_a_job_does_not_hold_its_own_clock() -> None:
    """The job of one loop may run another."""
    log: list[tuple[str, float]] = []

    async def body() -> None:
        await asyncio.to_thread(lambda: asyncio.run(_beat(log, "inner", 30)))

    clock = VirtualClock()
    with LoopSource().in_virtual_time(clock):
        asyncio.run(body())
    assert clock.elapsed == 90.0
    assert [name for name, _ in log] == ["inner"] * 3


def test_timers_of_several_loops_fire_in_order() -> None:
    """Time goes to whatever is due next in any of them."""
    log: list[tuple[str, float]] = []

    def run(name: str, every: float) -> None:
        asyncio.run(_beat(log, name, every))

    async def body() -> None:
        fast = asyncio.to_thread(run, "fast", 3)
        slow = asyncio.to_thread(run, "slow", 5)
        await asyncio.gather(_beat(log, "main", 4), fast, slow)

    clock = VirtualClock()
    with LoopSource().in_virtual_time(clock):
        asyncio.run(body())
    assert log == [
        ("fast", 3.0),
        ("main", 4.0),
        ("slow", 5.0),
        ("fast", 6.0),
        ("main", 8.0),
        ("fast", 9.0),
        ("slow", 10.0),
        ("main", 12.0),
        ("slow", 15.0),
    ]


def test_work_of_the_tests_own_thread_costs_no_time() -> None:
    """A loop in another thread leaves time alone while the test is at work."""
    log: list[tuple[str, float]] = []
    real: float = REAL["perf_counter"]()
    with LoopSource().in_virtual_time(VirtualClock()):
        thread = threading.Thread(target=lambda: asyncio.run(_beat(log, "app", 30)))
        thread.start()
        while REAL["perf_counter"]() - real < 0.05:
            assert perf_counter() == 0.0
        thread.join()
    assert len(log) == 3


def test_a_deadlock_of_several_loops_names_the_tasks_of_all() -> None:
    """What waits in another thread's loop is in the message as well."""

    async def app() -> None:
        await asyncio.Event().wait()

    async def body() -> None:
        await asyncio.to_thread(lambda: asyncio.run(app()))

    with (
        LoopSource().in_virtual_time(VirtualClock()),
        pytest.raises(ClockDeadlock, match="every task waits") as caught,
    ):
        asyncio.run(body())
    assert "body, waiting in to_thread" in str(caught.value)
    assert "app, waiting in Event.wait" in str(caught.value)
