"""Moving time by hand: in steps, in order, and only forward."""

from __future__ import annotations

import asyncio
import select
import time
from contextlib import suppress
from datetime import timedelta

import pytest

from pytest_tta.clock import ClockPaused, VirtualClock


def test_h18_advance_runs_timers_at_their_own_instants() -> None:
    """advance(5) runs what is due at 1, 2 and 3 s at 1, 2 and 3 s."""
    seen: list[float] = []

    async def body(clock: VirtualClock) -> float:
        for delay in (3, 1, 2):
            asyncio.get_running_loop().call_later(
                delay, lambda: seen.append(clock.elapsed)
            )
        await clock.advance(5)
        return clock.elapsed

    clock = VirtualClock(autojump=False)
    assert clock.run(body(clock)) == 5.0
    assert seen == [1.0, 2.0, 3.0]


def test_h18_advance_runs_chained_timers_too() -> None:
    """What a timer sets off in turn happens on the way as well."""
    beats: list[float] = []

    async def heartbeat(clock: VirtualClock) -> None:
        while True:
            await asyncio.sleep(1.5)
            beats.append(clock.elapsed)

    async def body(clock: VirtualClock) -> None:
        task = asyncio.create_task(heartbeat(clock))
        await clock.advance(4.5)
        task.cancel()

    clock = VirtualClock(autojump=False)
    clock.run(body(clock))
    assert beats == [1.5, 3.0, 4.5]


def test_h18_waiting_without_advance_is_paused() -> None:
    """A wait that nobody moves time for is an error that says how far it is."""

    async def body() -> None:
        await asyncio.sleep(5)

    with pytest.raises(ClockPaused, match=r"next timer in 5 s; call `await clock\.adv"):
        VirtualClock(autojump=False).run(body())


def test_advance_ends_after_everything_due_has_run() -> None:
    """Callbacks that the last instant sets off are done when advance returns."""
    done: list[str] = []

    async def chain() -> None:
        await asyncio.sleep(2)
        for _ in range(10):
            await asyncio.sleep(0)
        done.append("chain")

    async def body(clock: VirtualClock) -> list[str]:
        task = asyncio.create_task(chain())
        await clock.advance(2)
        assert task.done()
        return list(done)

    clock = VirtualClock(autojump=False)
    assert clock.run(body(clock)) == ["chain"]


def test_advance_beside_autojump_is_a_sleep_that_settles() -> None:
    """With autojump the same instants are kept."""
    seen: list[float] = []

    async def body(clock: VirtualClock) -> float:
        asyncio.get_running_loop().call_later(1, lambda: seen.append(clock.elapsed))
        await clock.advance(timedelta(seconds=2.5))
        return clock.elapsed

    clock = VirtualClock()
    assert clock.run(body(clock)) == 2.5
    assert seen == [1.0]


def test_two_advances_end_at_their_own_instants() -> None:
    """Two tasks may move time at once; neither overtakes the other."""
    ends: list[tuple[str, float]] = []

    async def mover(clock: VirtualClock, name: str, duration: float) -> None:
        await clock.advance(duration)
        ends.append((name, clock.elapsed))

    async def body(clock: VirtualClock) -> None:
        await asyncio.gather(mover(clock, "long", 5), mover(clock, "short", 2))

    clock = VirtualClock(autojump=False)
    clock.run(body(clock))
    assert ends == [("short", 2.0), ("long", 5.0)]


def test_a_cancelled_advance_moves_no_further() -> None:
    """Time stops where the advance was given up."""

    async def body(clock: VirtualClock) -> float:
        mover = asyncio.create_task(clock.advance(10))
        asyncio.get_running_loop().call_later(3, mover.cancel)
        with suppress(asyncio.CancelledError):
            await mover
        return clock.elapsed

    clock = VirtualClock(autojump=False)
    assert clock.run(body(clock)) == 3.0


def test_settle_runs_what_is_ready_without_moving_time() -> None:
    """After settle everything that could run has run, and no time has passed."""
    steps: list[int] = []

    async def worker() -> None:
        for step in range(5):
            await asyncio.sleep(0)
            steps.append(step)
        await asyncio.sleep(1)
        steps.append(99)

    async def body(clock: VirtualClock) -> float:
        task = asyncio.create_task(worker())
        await clock.settle()
        task.cancel()
        return clock.elapsed

    clock = VirtualClock()
    assert clock.run(body(clock)) == 0.0
    assert steps == [0, 1, 2, 3, 4]


def test_stall_makes_timers_late_and_keeps_their_order() -> None:
    """A process that was stopped fires what it missed afterwards, in order."""
    seen: list[tuple[int, float]] = []

    async def body(clock: VirtualClock) -> None:
        for delay in (2, 1, 3):
            asyncio.get_running_loop().call_later(
                delay, lambda d=delay: seen.append((d, clock.elapsed))
            )
        clock.stall(2.5)
        await asyncio.sleep(1)

    clock = VirtualClock()
    clock.run(body(clock))
    assert seen == [(1, 2.5), (2, 2.5), (3, 3.0)]


def test_freeze_stops_autojump_for_a_block() -> None:
    """Inside freeze time moves by hand only, afterwards by itself again."""

    async def body(clock: VirtualClock) -> list[bool]:
        task = asyncio.create_task(asyncio.sleep(1))
        with clock.freeze():
            await clock.settle()
            before = task.done()
            await clock.advance(1)
            after = task.done()
        await asyncio.sleep(3)
        return [before, after, clock.autojump]

    clock = VirtualClock()
    assert clock.run(body(clock)) == [False, True, True]
    assert clock.elapsed == 4.0


def test_hold_keeps_time_still_until_released() -> None:
    """A thread of somebody else can keep time still while it works."""

    async def body(clock: VirtualClock) -> float:
        loop = asyncio.get_running_loop()
        hold = clock.hold("the test's own worker")
        hold.__enter__()
        release = loop.create_future()

        def end() -> None:
            hold.__exit__(None, None, None)
            release.set_result(None)

        import _thread

        _thread.start_new_thread(_later, (0.05, loop, end))
        async with asyncio.timeout(30):
            await release
        return clock.elapsed

    clock = VirtualClock()
    assert clock.run(body(clock)) == 0.0


def _later(seconds: float, loop: asyncio.AbstractEventLoop, end) -> None:
    stop = time.clock_gettime(time.CLOCK_MONOTONIC) + seconds
    while time.clock_gettime(time.CLOCK_MONOTONIC) < stop:
        pass
    loop.call_soon_threadsafe(end)


def test_real_lets_time_pass_as_outside() -> None:
    """Inside real a sleep takes as long as it says, and no shorter."""

    async def body(clock: VirtualClock) -> float:
        before = time.clock_gettime(time.CLOCK_MONOTONIC)
        with clock.real():
            await asyncio.sleep(0.05)
        return time.clock_gettime(time.CLOCK_MONOTONIC) - before

    clock = VirtualClock()
    assert clock.run(body(clock)) >= 0.049
    assert clock.elapsed == 0.05


def test_time_is_real_until_the_outermost_block_ends() -> None:
    """And virtual from then on, until the next one begins."""
    clock = VirtualClock()
    seen: list[bool] = []
    with clock:
        for _ in range(2):
            with clock.real():
                with clock.real():
                    seen.append(clock.is_real)
                seen.append(clock.is_real)
            seen.append(clock.is_real)
    assert seen == [True, True, False] * 2


def test_real_work_inside_real_has_no_cap() -> None:
    """Inside real, work outside the loop may take longer than hold_cap."""

    async def body(clock: VirtualClock) -> None:
        with clock.real():
            async with asyncio.timeout(20):
                await asyncio.to_thread(select.select, [], [], [], 0.1)

    clock = VirtualClock(hold_cap=0.02)
    clock.run(body(clock))


def test_advance_outside_the_clock_is_refused() -> None:
    """A loop in another time cannot wait for this clock."""

    async def body(clock: VirtualClock) -> None:
        await clock.advance(1)

    with pytest.raises(RuntimeError, match="is not in the time of <VirtualClock"):
        VirtualClock().run(body(VirtualClock()))


@pytest.mark.parametrize("duration", [-1, float("nan"), float("inf")])
def test_bad_durations_are_refused(duration: float) -> None:
    """Time goes forward by a finite amount."""
    with pytest.raises(ValueError, match="duration must be finite and not negative"):
        VirtualClock().stall(duration)


@pytest.mark.parametrize("duration", ["5", True, None])
def test_durations_of_a_wrong_kind_are_refused(duration: object) -> None:
    """Text, truth and nothing are no durations."""
    with pytest.raises(TypeError, match="duration must be seconds or a timedelta"):
        VirtualClock().stall(duration)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"start": "soon"}, ValueError, "start must be an ISO 8601 date"),
        ({"start": []}, TypeError, "start must be a datetime"),
        ({"start": True}, TypeError, "start must be a datetime"),
        ({"start": float("nan")}, ValueError, "start must be a finite number"),
        ({"io": "wait"}, ValueError, "io must be one of 'hold', 'grace', 'jump'"),
        ({"hold_cap": 0}, ValueError, "hold_cap must be more than 0 seconds"),
        ({"max_jumps": 0}, ValueError, "max_jumps must be a whole number from 1"),
        ({"max_jumps": True}, ValueError, "max_jumps must be a whole number from 1"),
        ({"loop_start": -1}, ValueError, "loop_start must be finite"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message) -> None:
    """A wrong argument fails where it is written, with what is allowed."""
    with pytest.raises(error, match=message):
        VirtualClock(**arguments)


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        (None, "2000-01-01T00:00:00+00:00"),
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00+00:00"),
        (86_400, "1970-01-02T00:00:00+00:00"),
        (0.25, "1970-01-01T00:00:00.250000+00:00"),
    ],
)
def test_the_wall_starts_where_it_is_told(start, shown) -> None:
    """A start may be nothing, a date or seconds of the Unix epoch."""
    assert VirtualClock(start).now.isoformat() == shown
