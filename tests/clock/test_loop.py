"""What the loop's time does: exact durations, order at one instant, no drift."""

from __future__ import annotations

import asyncio
import contextvars
import select
import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from pytest_tta.clock import VirtualClock

TEN_YEARS = 10 * 365 * 86_400


def test_h01_sleep_takes_exactly_its_delay() -> None:
    """A sleep of 30 s ends 30 virtual seconds later, at once for the user."""

    async def body() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(30)
        return loop.time()

    clock = VirtualClock()
    assert clock.run(body()) == 30.0
    assert clock.elapsed == 30.0


def test_h01_wait_for_and_timeout_end_exactly() -> None:
    """Both ways of limiting a wait fire at their own instant."""

    async def body() -> list[float]:
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 2.5)
        first = loop.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.sleep(10)
        return [first, loop.time()]

    assert VirtualClock().run(body()) == [2.5, 2.6]


def test_h01_wait_returns_what_is_done_at_its_timeout() -> None:
    """asyncio.wait splits the tasks at the instant of its timeout."""

    async def body() -> tuple[set[str], set[str], float]:
        tasks = [
            asyncio.create_task(asyncio.sleep(delay), name=str(delay))
            for delay in (1, 2, 5)
        ]
        done, pending = await asyncio.wait(tasks, timeout=3)
        for task in pending:
            task.cancel()
        now = asyncio.get_running_loop().time()
        return {t.get_name() for t in done}, {t.get_name() for t in pending}, now

    assert VirtualClock().run(body()) == ({"1", "2"}, {"5"}, 3.0)


def test_h01_as_completed_yields_in_the_order_of_ends() -> None:
    """as_completed gives the results at 1, 2 and 3 s."""

    async def work(delay: int) -> int:
        await asyncio.sleep(delay)
        return delay

    async def body() -> list[tuple[int, float]]:
        loop = asyncio.get_running_loop()
        return [
            (await each, loop.time())
            for each in asyncio.as_completed([work(3), work(1), work(2)])
        ]

    assert VirtualClock().run(body()) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_h02_outer_timeout_wins_at_one_instant() -> None:
    """Of two timeouts that are due together the outer one is reported."""

    async def body() -> str:
        try:
            async with asyncio.timeout(5):
                try:
                    async with asyncio.timeout(5):
                        await asyncio.sleep(10)
                except TimeoutError:
                    return "inner"
        except TimeoutError:
            return "outer"
        return "none"

    assert VirtualClock().run(body()) == "outer"


def test_h03_sleeps_end_in_the_order_of_their_deadlines() -> None:
    """Three hundred sleeps started in a shuffled order end in order."""
    delays = [(7 * i) % 300 for i in range(300)]
    ended: list[int] = []

    async def work(delay: int) -> None:
        await asyncio.sleep(delay / 10)
        ended.append(delay)

    async def body() -> None:
        await asyncio.gather(*(work(delay) for delay in delays))

    clock = VirtualClock()
    clock.run(body())
    assert ended == sorted(delays)
    assert clock.elapsed == 29.9


def test_h03_timers_of_one_instant_fire_in_the_order_of_setting() -> None:
    """Forty timers at one instant fire first come, first served."""
    fired: list[int] = []

    async def body() -> None:
        loop = asyncio.get_running_loop()
        for number in range(40):
            loop.call_at(0.3, fired.append, number)
            await asyncio.sleep(0)
        await asyncio.sleep(1)

    VirtualClock().run(body())
    assert fired == list(range(40))


def test_timers_a_nanosecond_apart_keep_apart() -> None:
    """Timers that differ by one nanosecond fire at two instants."""
    seen: list[float] = []

    async def body() -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(1.000000001, lambda: seen.append(loop.time()))
        loop.call_at(1.0, lambda: seen.append(loop.time()))
        await asyncio.sleep(2)

    VirtualClock().run(body())
    assert seen == [1.0, 1.000000001]


def test_an_endless_timer_never_fires() -> None:
    """call_later(inf) is legal and does not keep the end of a run away."""

    async def body() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(float("inf"), pytest.fail, "fired")
        await asyncio.sleep(5)
        return loop.time()

    assert VirtualClock().run(body()) == 5.0


def test_what_was_due_before_all_time_is_called_at_once() -> None:
    """call_at(-inf) is legal as well, and comes before what is due now."""
    called: list[str] = []

    async def body() -> float:
        loop = asyncio.get_running_loop()
        loop.call_at(0, called.append, "now")
        loop.call_at(float("-inf"), called.append, "long ago")
        await asyncio.sleep(0.5)
        return loop.time()

    assert VirtualClock().run(body()) == 0.5
    assert called == ["long ago", "now"]


def test_a_task_runs_in_the_context_that_it_is_given() -> None:
    """And in a copy of its maker's without one, as on asyncio's own loop."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    async def read() -> str:
        return name.get()

    async def body() -> list[str]:
        loop = asyncio.get_running_loop()
        name.set("given")
        given = contextvars.copy_context()
        name.set("own")
        tasks = [loop.create_task(read(), context=given), loop.create_task(read())]
        name.set("later")
        return await asyncio.gather(*tasks)

    assert VirtualClock().run(body()) == ["given", "own"]


def test_h11_cancelled_sleep_ends_at_once() -> None:
    """Cancelling a sleeper takes no time and its timer is forgotten."""

    async def body() -> float:
        task = asyncio.create_task(asyncio.sleep(100))
        await asyncio.sleep(1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return asyncio.get_running_loop().time()

    clock = VirtualClock()
    assert clock.run(body()) == 1.0
    assert clock.elapsed == 1.0


def test_h11_async_generators_are_closed() -> None:
    """A generator left in the middle of a sleep runs its cleanup before the end."""
    closed: list[float] = []

    async def ticks(clock: VirtualClock):
        try:
            while True:
                await asyncio.sleep(1)
                yield clock.elapsed
        finally:
            await asyncio.sleep(0.5)
            closed.append(clock.elapsed)

    async def body(clock: VirtualClock) -> float:
        async for now in ticks(clock):
            if now == 3.0:
                break
        await asyncio.sleep(1)
        return now

    clock = VirtualClock()
    assert clock.run(body(clock)) == 3.0
    assert closed == [3.5]


def test_h17_a_hundred_thousand_sleeps_do_not_drift() -> None:
    """A hundred thousand sleeps of 0.1 s take exactly ten thousand seconds."""

    async def body() -> None:
        for _ in range(100_000):
            await asyncio.sleep(0.1)

    clock = VirtualClock()
    clock.run(body())
    assert clock.elapsed == 10_000.0


def test_h20_epoch_start_and_ten_years_of_sleep() -> None:
    """At times where a nanosecond is less than a float's step, sleeps still end."""

    async def body() -> float:
        async with asyncio.timeout(TEN_YEARS + 1):
            await asyncio.sleep(TEN_YEARS)
        await asyncio.sleep(0.1)
        return asyncio.get_running_loop().time()

    clock = VirtualClock(start="2026-11-22T00:00:00+00:00", loop_start=1_795_305_600.0)
    assert clock.run(body()) == 1_795_305_600.0 + TEN_YEARS + 0.1
    assert clock.elapsed == TEN_YEARS + 0.1
    assert clock.now == datetime(2036, 11, 19, 0, 0, 0, 100_000, tzinfo=UTC)


def test_h21_a_job_that_outlives_the_run_is_no_error() -> None:
    """Closing the loop waits for a running job in real time and stays silent."""
    done: list[str] = []

    def job() -> None:
        select.select([], [], [], 0.1)
        done.append("job")

    async def body() -> str:
        asyncio.get_running_loop().run_in_executor(None, job)
        return "body"

    clock = VirtualClock(hold_cap=0.02)
    assert clock.run(body()) == "body"
    assert done == ["job"]
    assert clock.elapsed == 0.0
    assert clock.sleeps == []


def test_clocks_agree_inside_the_loop() -> None:
    """loop.time, time.monotonic and the clock's own time are one."""

    async def body() -> tuple[float, float, float]:
        await asyncio.sleep(12.5)
        return asyncio.get_running_loop().time(), time.monotonic(), clock.time

    clock = VirtualClock()
    assert clock.run(body()) == (12.5, 12.5, 12.5)


def test_task_groups_cancel_in_the_order_of_making() -> None:
    """Siblings are cancelled first made, first cancelled, also in later groups."""

    async def work(number: int, log: list[int]) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            log.append(number)

    async def group(size: int) -> list[int]:
        log: list[int] = []
        with suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as tasks:
                for number in range(size):
                    tasks.create_task(work(number, log))
                await asyncio.sleep(1)
                raise ValueError
        return log

    async def body() -> list[list[int]]:
        return [await group(size) for size in (5, 13, 40, 7)]

    assert VirtualClock().run(body()) == [list(range(n)) for n in (5, 13, 40, 7)]


def test_default_task_names_start_anew_in_each_loop() -> None:
    """Names do not depend on how many tasks other tests have made."""

    async def body() -> list[str]:
        here = asyncio.current_task()
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        return ["" if here is None else here.get_name(), task.get_name()]

    assert VirtualClock().run(body()) == ["Task-1", "Task-2"]
    assert VirtualClock().run(body()) == ["Task-1", "Task-2"]


def test_a_foreign_task_factory_is_left_alone() -> None:
    """A task factory that was set makes the tasks."""
    made: list[str] = []

    def factory(loop, coro, **options):
        made.append(coro.__qualname__)
        return asyncio.Task(coro, loop=loop, **options)

    async def child() -> None:
        await asyncio.sleep(1)

    async def body() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await asyncio.create_task(child(), name="child")

    clock = VirtualClock()
    clock.run(body())
    assert [name.rpartition(".")[2] for name in made][:1] == ["child"]
    assert clock.elapsed == 1.0


def test_debug_mode_keeps_virtual_time() -> None:
    """The debug mode of asyncio changes nothing about time."""

    async def body() -> float:
        await asyncio.sleep(3)
        return asyncio.get_running_loop().time()

    clock = VirtualClock()
    with clock, asyncio.Runner(debug=True, loop_factory=clock.new_loop) as runner:
        assert runner.run(body()) == 3.0


def test_call_later_without_a_delay_is_refused() -> None:
    """None is no delay and no instant, as in asyncio."""

    async def body() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TypeError, match="delay must not be None"):
            loop.call_later(None, print)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="when cannot be None"):
            loop.call_at(None, print)  # type: ignore[arg-type]

    VirtualClock().run(body())


def test_run_returns_errors_of_the_body() -> None:
    """An exception of the coroutine is raised as it is."""

    async def body() -> None:
        await asyncio.sleep(1)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        VirtualClock().run(body())
