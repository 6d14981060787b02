"""One loop for many tests, some with the clock and some without."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from pytest_tta.clock import ClockDeadlock, VirtualClock, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """A runner whose loop can change between real and virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        yield runner


async def _heartbeat(period: float, beats: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(period)
        beats.append(loop.time())


def test_h25_a_shared_loop_lives_in_both_times(runner: asyncio.Runner) -> None:
    """A background beat follows virtual time in clocked tests, real time between."""
    beats: list[float] = []
    loop = runner.get_loop()

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(_heartbeat(5, beats))

    background = runner.run(start())
    counts = []
    for _ in range(3):
        clock = VirtualClock()
        with clock.on(loop):
            runner.run(asyncio.sleep(30))
        assert clock.elapsed == 30.0
        counts.append(len(beats))
        runner.run(asyncio.sleep(0.01))
        assert len(beats) == counts[-1]
    assert counts == [6, 12, 18]
    background.cancel()


def test_h25_the_clock_starts_at_the_loops_present_time(runner: asyncio.Runner) -> None:
    """loop.time() does not jump when a clock is entered."""
    loop = runner.get_loop()
    before = loop.time()
    clock = VirtualClock()
    with clock.on(loop):
        entered = loop.time()
        runner.run(asyncio.sleep(100))
        assert loop.time() == pytest.approx(entered + 100, abs=1e-6)
        assert clock.elapsed == 100.0
    assert 0 <= entered - before < 1
    assert loop.time() - entered < 1


def test_h25_what_is_left_waits_for_as_long_as_was_left(runner: asyncio.Runner) -> None:
    """Leaving the clock shifts pending timers into real time, in their order."""
    loop = runner.get_loop()
    fired: list[str] = []

    async def start() -> None:
        loop.call_later(10.03, fired.append, "late")
        loop.call_later(10.01, fired.append, "early")
        loop.call_later(float("inf"), fired.append, "never")
        await asyncio.sleep(10)

    with VirtualClock().on(loop):
        runner.run(start())
    assert fired == []
    began = time.monotonic()
    runner.run(asyncio.sleep(0.05))
    assert time.monotonic() - began >= 0.049
    assert fired == ["early", "late"]


def test_h25_a_deadlock_spares_the_background(runner: asyncio.Runner) -> None:
    """An error in one test leaves the tasks of the loop to the others."""
    beats: list[float] = []

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(asyncio.Event().wait(), name="background")

    background = runner.run(start())
    with (
        VirtualClock().on(runner.get_loop()),
        pytest.raises(ClockDeadlock, match="background at "),
    ):
        runner.run(asyncio.Event().wait())
    assert not background.done()
    assert runner.run(asyncio.sleep(0, "next test")) == "next test"
    background.cancel()
    assert beats == []


def test_a_loop_without_a_clock_keeps_real_time(runner: asyncio.Runner) -> None:
    """The loop is asyncio's own as long as no clock is attached."""
    loop = runner.get_loop()
    fired: list[int] = []

    async def body() -> float:
        before = loop.time()
        loop.call_at(before + 0.01, fired.append, 2)
        loop.call_later(0.005, fired.append, 1)
        await asyncio.to_thread(len, "")
        await asyncio.sleep(0.02)
        return loop.time() - before

    assert runner.run(body()) >= 0.019
    assert fired == [1, 2]


def test_a_loop_serves_one_clock_at_a_time(runner: asyncio.Runner) -> None:
    """A second clock on the same loop, or in the same process, is refused."""
    loop = runner.get_loop()
    with VirtualClock().on(loop):
        with (
            pytest.raises(RuntimeError, match="is in the time of <VirtualClock"),
            VirtualClock().on(loop),
        ):
            pass
        with pytest.raises(RuntimeError, match="is already active in this process"):
            VirtualClock().__enter__()


def test_tasks_begun_before_the_clock_follow_it(runner: asyncio.Runner) -> None:
    """A sleep that began in real time ends in virtual time."""
    loop = runner.get_loop()

    async def start() -> asyncio.Task[str]:
        return asyncio.create_task(asyncio.sleep(3600, "an hour"))

    async def join(task: asyncio.Task[str]) -> str:
        return await task

    task = runner.run(start())
    clock = VirtualClock()
    with clock.on(loop):
        assert runner.run(join(task)) == "an hour"
    assert 3599 < clock.elapsed <= 3600


def test_a_clock_can_be_entered_again(runner: asyncio.Runner) -> None:
    """Elapsed time goes on where it was."""
    clock = VirtualClock()
    for _ in range(2):
        with clock.on(runner.get_loop()):
            runner.run(asyncio.sleep(10))
    assert clock.elapsed == 20.0
    assert clock.sleeps.delays == [10, 10]
    assert [record.at for record in clock.sleeps] == [0.0, 10.0]
