"""What cannot go on says so at once, names who waits, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from contextlib import suppress
from functools import partial

import pytest

from pytest_tta import Harness
from pytest_tta.clock import (
    ClockDeadlock,
    ClockHeld,
    ClockPaused,
    ClockRunaway,
    ClockSpin,
    VirtualClock,
    describe,
    policy,
)
from pytest_tta.clock.outside import Job
from pytest_tta.clock.threads import OwnedThreads
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive


async def _wait_for_nobody() -> None:
    await asyncio.Event().wait()


def test_h09_deadlock_names_tasks_and_lines() -> None:
    """When nobody can wake anybody each task is listed with its line."""

    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_wait_for_nobody(), name="worker")
            await asyncio.Queue().get()

    clock = VirtualClock()
    with pytest.raises(ClockDeadlock, match="every task waits") as caught:
        clock.run(body())
    text = str(caught.value)
    assert "nothing is left that could wake one, at 0 s of virtual time" in text
    here = __file__.rpartition("/")[2]
    line = _wait_for_nobody.__code__.co_firstlineno + 1
    assert f"{here}:{line} in _wait_for_nobody, waiting in Event.wait" in text
    assert "worker at " in text
    assert "body, waiting in Queue.get" in text


def test_h09_deadlock_names_primitive_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the primitive that waits is asked for in its own context."""
    from contextvars import ContextVar

    path: ContextVar[str | None] = ContextVar("path", default=None)
    monkeypatch.setattr(describe, "path_of_current", path.get)

    async def body() -> None:
        path.set("answer/retry/llm")
        await _wait_for_nobody()

    with pytest.raises(ClockDeadlock, match="in primitive 'answer/retry/llm' at "):
        VirtualClock().run(body())


def test_h09_deadlock_leaves_no_task_and_a_closable_loop() -> None:
    """After the error every task has cleaned up, in the order of their making."""
    cleaned: list[str] = []

    async def waits(name: str) -> None:
        try:
            await _wait_for_nobody()
        finally:
            await asyncio.sleep(1)
            cleaned.append(name)

    async def body() -> None:
        tasks = [asyncio.create_task(waits(name)) for name in ("a", "b", "c")]
        await asyncio.gather(*tasks)

    clock = VirtualClock()
    with clock:
        loop = clock.new_loop()
        with pytest.raises(ClockDeadlock, match="every task waits"):
            loop.run_until_complete(body())
        assert asyncio.all_tasks(loop) == set()
        assert cleaned == ["a", "b", "c"]
        assert loop.run_until_complete(asyncio.sleep(1, "goes on")) == "goes on"
        loop.close()
    gc.collect()


def test_h09_deadlock_spares_the_tasks_of_earlier_runs() -> None:
    """What a fixture started before the test is left to the fixture."""
    clock = VirtualClock()
    with clock, asyncio.Runner(loop_factory=clock.new_loop) as runner:

        async def fixture() -> asyncio.Task[None]:
            return asyncio.create_task(_wait_for_nobody(), name="fixture")

        background = runner.run(fixture())
        with pytest.raises(ClockDeadlock, match=r"fixture at .*Event\.wait"):
            runner.run(_wait_for_nobody())
        assert not background.done()
        background.cancel()
        with suppress(asyncio.CancelledError):
            runner.run(_join(background))
        assert background.cancelled()


async def _join(task: asyncio.Task[None]) -> None:
    await task


def test_h09_a_task_that_will_not_die_does_not_hide_the_deadlock() -> None:
    """A task that ignores being cancelled is given up after a few attempts."""

    async def stubborn() -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    clock = VirtualClock()
    with clock:
        loop = clock.new_loop()
        with pytest.raises(ClockDeadlock, match=r"stubborn, waiting in Event\.wait"):
            loop.run_until_complete(stubborn())
        loop.close()
    gc.collect()


def test_deadlock_behind_an_endless_timer_is_found() -> None:
    """call_later(inf) is no hope."""

    async def body() -> None:
        asyncio.get_running_loop().call_later(float("inf"), print)
        await _wait_for_nobody()

    with pytest.raises(ClockDeadlock, match="every task waits"):
        VirtualClock().run(body())


def test_h10_an_endless_heartbeat_is_a_runaway() -> None:
    """Time that moves for ever is stopped, and who moved it is named."""

    async def heartbeat() -> None:
        while True:
            await asyncio.sleep(1)

    async def body() -> None:
        beat = asyncio.create_task(heartbeat(), name="heartbeat")
        await _wait_for_nobody()
        beat.cancel()

    clock = VirtualClock(max_jumps=1000)
    with pytest.raises(ClockRunaway, match="without an end") as caught:
        clock.run(body())
    text = str(caught.value)
    assert text.startswith(
        "time was moved 1000 times without an end, now at 1000 s of virtual time"
    )
    assert "1001 x sleep by heartbeat at " in text
    assert "next timers:\n    in 1 s: sleep of heartbeat, set at " in text


def test_h10_a_busy_loop_is_a_spin() -> None:
    """sleep(0) in a loop never lets time move, and says so."""

    async def body() -> None:
        async with asyncio.timeout(5):
            while True:
                await asyncio.sleep(0)

    with pytest.raises(ClockSpin, match=r"callbacks ran 100000 times in a row at 0 s"):
        VirtualClock().run(body())


def test_a_busy_loop_without_any_timer_is_a_spin_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no timer waits, a loop of sleep(0) has ten times as many rounds."""
    monkeypatch.setattr(policy, "SPIN_ROUNDS", 100)
    monkeypatch.setattr(policy, "SPIN_ROUNDS_ALONE", 1000)

    async def body(rounds: int) -> int:
        for _ in range(rounds):
            await asyncio.sleep(0)
        return rounds

    assert VirtualClock().run(body(900)) == 900
    with pytest.raises(ClockSpin, match="callbacks ran 1000 times"):
        VirtualClock().run(body(1100))


def test_deadlock_beside_idle_threads_waits_for_a_last_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where threads are alive somebody might still wake a task, but not for ever."""
    monkeypatch.setattr(policy, "LAST_CHANCE_NS", 20_000_000)

    async def body() -> None:
        await asyncio.to_thread(len, "")
        await _wait_for_nobody()

    with pytest.raises(ClockDeadlock, match="every task waits"):
        VirtualClock().run(body())


def test_rounds_are_counted_for_one_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long run is no spin as long as time moves in between."""
    monkeypatch.setattr(policy, "SPIN_ROUNDS", 100)

    async def body() -> None:
        async with asyncio.timeout(1000):
            for _ in range(300):
                await asyncio.sleep(1)

    clock = VirtualClock()
    clock.run(body())
    assert clock.elapsed == 300.0


def test_held_clock_names_the_culprit() -> None:
    """Work that holds the clock beyond the cap is named."""

    async def body(clock: VirtualClock) -> None:
        with clock.hold("the test's own worker"):
            await asyncio.sleep(10)

    clock = VirtualClock(hold_cap=0.05)
    with pytest.raises(ClockHeld, match=r"own worker held the clock for 0\.05 s"):
        clock.run(body(clock))


def test_error_in_a_fixture_like_run_is_raised_there() -> None:
    """Each run of a runner fails for itself."""
    clock = VirtualClock()
    with clock, asyncio.Runner(loop_factory=clock.new_loop) as runner:
        with pytest.raises(ClockDeadlock, match="every task waits"):
            runner.run(_wait_for_nobody())
        assert runner.run(asyncio.sleep(2, "fine")) == "fine"


def test_a_thread_that_is_stuck_does_not_hide_the_deadlock() -> None:
    """Nobody waits for the executor of a loop whose clock gave up."""
    release = threading.Event()

    async def body() -> None:
        await asyncio.to_thread(release.wait)

    try:
        with pytest.raises(ClockDeadlock, match="body, waiting in to_thread"):
            VirtualClock().run(body())
    finally:
        release.set()


def test_a_job_is_named_by_its_function() -> None:
    """`to_thread` wraps what it calls, and a message names what was wrapped."""
    run = contextvars.copy_context().run
    threads = OwnedThreads(threading.current_thread())
    for function in (_crunch, partial(_crunch), partial(run, _crunch)):
        assert Job(function, None, threads).label == "_crunch"


def _crunch() -> None:
    pass


def test_a_wait_under_a_time_limit_is_told_by_the_users_line() -> None:
    """A limit stands between the task and the step, and is not what waits."""

    @step
    async def ask(question: str) -> str:
        await asyncio.Event().wait()
        return question

    limited = TimeoutPrimitive(ask, timeout_seconds=10)
    clock = VirtualClock(autojump=False)
    with pytest.raises(ClockPaused, match=r"ask, waiting in Event\.wait") as caught:
        clock.run(limited.execute("why", WorkflowContext()))
    assert "deadline.py" not in str(caught.value)


def test_our_own_frames_are_left_out() -> None:
    """A user finds neither the door nor the harness in the line of a task."""

    @step
    async def stuck(question: str) -> str:
        await asyncio.Event().wait()
        return question

    @step
    async def down(question: str) -> str:
        raise OSError(question)

    with Harness() as tta:
        with pytest.raises(ClockDeadlock, match="every task") as caught:
            tta.run(stuck | stuck, "x")
        lines = str(caught.value).splitlines()
        main = "    Task-1 in primitive 'parallel', waiting in TaskGroup.__aexit__"
        assert lines[2] == main
        tta.clock.max_jumps = 10
        with pytest.raises(ClockRunaway, match="moved 10 times") as runaway:
            tta.run(RetryPrimitive(down, max_retries=99), "x")
    text = str(runaway.value)
    assert "\n    11 x sleep by Task-1 in primitive 'retry'\n" in text
    assert "\n    Task-1 in primitive 'retry', waiting in sleep\n" in text
    assert text.endswith(": sleep of Task-1 in primitive 'retry'")
