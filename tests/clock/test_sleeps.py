"""What was waited for: how long, of what kind, by whom, where, and how it ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
import tenacity

from pytest_tta.clock import SleepRecord, VirtualClock, describe


def test_h19_tenacity_backoff_is_in_the_log() -> None:
    """Another library's backoff appears as it was asked for, with task and line."""

    @tenacity.retry(
        wait=tenacity.wait_exponential(), stop=tenacity.stop_after_attempt(5)
    )
    async def flaky() -> None:
        raise ConnectionError("again")

    async def caller() -> None:
        with suppress(tenacity.RetryError):
            await flaky()

    async def body() -> None:
        await asyncio.create_task(caller(), name="caller")

    clock = VirtualClock()
    clock.run(body())
    assert clock.sleeps.delays == [1, 2, 4, 8]
    assert [record.delay for record in clock.sleeps] == [1, 2, 4, 8]
    assert {record.task for record in clock.sleeps} == {"caller"}
    line = caller.__code__.co_firstlineno + 2
    assert all(f"test_sleeps.py:{line} in" in record.where for record in clock.sleeps)
    assert [record.at for record in clock.sleeps] == [0.0, 1.0, 3.0, 7.0]


def test_kinds_are_told_by_what_the_timer_does() -> None:
    """Sleep, timeout, wait and bare timers are told apart on every interpreter."""

    async def body() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(1)
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.Event().wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 3)
        task = asyncio.create_task(asyncio.Event().wait())
        await asyncio.wait([task], timeout=4)
        task.cancel()
        fired = loop.create_future()
        loop.call_later(5, fired.set_result, None)
        await fired

    clock = VirtualClock()
    clock.run(body())
    assert [(record.kind, record.delay) for record in clock.sleeps] == [
        ("sleep", 1),
        ("timeout", 2),
        ("timeout", 3),
        ("wait", 4),
        ("timer", 5),
    ]


def test_a_record_tells_how_a_wait_ended() -> None:
    """Woken, cancelled and still waiting are three different ends."""

    async def body(clock: VirtualClock) -> list[SleepRecord]:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                await asyncio.sleep(4)
        task = asyncio.create_task(asyncio.sleep(10))
        await asyncio.sleep(0.25)
        found = clock.sleeps
        task.cancel()
        return found

    clock = VirtualClock()
    ends = [
        (record.kind, record.delay, record.cancelled, record.woke_at)
        for record in clock.run(body(clock))
    ]
    assert ends == [
        ("timeout", 1.5, False, 1.5),
        ("sleep", 4, True, 1.5),
        ("sleep", 0.25, False, 1.75),
        ("sleep", 10, False, None),
    ]


def test_a_sleep_that_is_late_says_so() -> None:
    """A stalled process wakes its sleepers when it goes on."""

    async def body(clock: VirtualClock) -> None:
        task = asyncio.create_task(asyncio.sleep(1))
        await asyncio.sleep(0)
        clock.stall(3)
        await task

    clock = VirtualClock()
    clock.run(body(clock))
    assert [record.woke_at for record in clock.sleeps] == [3.0]


def test_what_a_blocking_sleep_makes_late_says_so() -> None:
    """Timers wait until it is over; what led to it does not, nor does a thread."""
    import threading
    import time

    async def body() -> None:
        await asyncio.sleep(1)
        asyncio.get_running_loop().call_later(2, int)
        thread = threading.Thread(target=time.sleep, args=(3,))
        thread.start()
        time.sleep(5)
        thread.join()

    clock = VirtualClock()
    clock.run(body())
    assert [(r.kind, r.delay, r.woke_at) for r in clock.sleeps] == [
        ("sleep", 1, 1.0),
        ("timer", 2, 6.0),
        ("thread", 3, 4.0),
        ("blocking", 5, 6.0),
    ]


def test_a_thread_that_is_not_woken_says_so() -> None:
    """The clock is left before the end of its sleep."""
    import threading
    import time

    with VirtualClock() as clock:
        thread = threading.Thread(target=time.sleep, args=(9,), daemon=True)
        thread.start()
        clock.run(asyncio.sleep(1))
    thread.join()
    assert [(r.kind, r.woke_at) for r in clock.sleeps] == [
        ("thread", None),
        ("sleep", 1.0),
    ]


def test_blocking_sleep_is_logged_and_moves_time() -> None:
    """time.sleep in the loop's own thread is a wait of the kind `blocking`."""
    import time

    async def body() -> None:
        time.sleep(2)
        await asyncio.sleep(1)

    clock = VirtualClock()
    clock.run(body())
    assert [(r.kind, r.delay, r.woke_at) for r in clock.sleeps] == [
        ("blocking", 2, 2.0),
        ("sleep", 1, 3.0),
    ]
    assert clock.sleeps[0].task == "Task-1"


def test_the_log_is_selected_by_task_kind_and_path(monkeypatch) -> None:
    """`by` narrows the log; the primitive path comes from the harness's hook."""
    monkeypatch.setattr(describe, "path_of_current", lambda: "flow/retry")

    async def body() -> None:
        other = asyncio.create_task(asyncio.sleep(3), name="other")
        await asyncio.sleep(1)
        await asyncio.wait([other], timeout=9)

    clock = VirtualClock()
    clock.run(body())
    assert clock.sleeps.delays == [1, 3, 9]
    assert clock.sleeps.by(task="other").delays == [3]
    assert clock.sleeps.by(kind="wait").delays == [9]
    assert clock.sleeps.by(path="flow/retry", kind="sleep").delays == [1, 3]
    assert clock.sleeps.by(path="elsewhere").delays == []


def test_the_log_reads_as_one_line_per_wait() -> None:
    """A failing comparison shows who waited where."""

    async def body() -> None:
        await asyncio.sleep(0.5)

    clock = VirtualClock()
    clock.run(body())
    line = body.__code__.co_firstlineno + 1
    assert repr(clock.sleeps) == (
        "<SleepLog of 1:\n  0 s: sleep 0.5 s by Task-1 at tests/clock/test_sleeps.py:"
        f"{line} in test_the_log_reads_as_one_line_per_wait.<locals>.body>"
    )
    assert repr(VirtualClock().sleeps) == "<SleepLog of 0>"


def test_what_only_the_loop_asked_for_is_nobodys_line() -> None:
    """The search for the user's line ends where the loop called."""

    async def body() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_later, 1, len, "")
        await asyncio.sleep(2)

    clock = VirtualClock()
    clock.run(body())
    (timer,) = clock.sleeps.by(kind="timer")
    assert timer.where.endswith("in Handle._run")
    assert timer.task is None


def test_delays_through_call_at_are_exact() -> None:
    """A timeout of 0.3 s set at 0.1 s is logged as 0.3, not as a sum of floats."""

    async def body() -> None:
        await asyncio.sleep(0.1)
        async with asyncio.timeout(0.3):
            await asyncio.sleep(0.2)

    clock = VirtualClock()
    clock.run(body())
    assert clock.sleeps.delays == [0.1, 0.3, 0.2]


@pytest.mark.parametrize("delay", [0, -1])
def test_a_wait_for_no_time_is_over_at_once(delay: float) -> None:
    """It ended when it began, not a moment later."""

    async def body() -> None:
        asyncio.get_running_loop().call_later(delay, int)
        await asyncio.sleep(1)

    clock = VirtualClock()
    clock.run(body())
    assert [record.woke_at for record in clock.sleeps] == [0, 1]


def test_a_stall_is_forgotten_when_the_clock_is_rewound() -> None:
    """What slept while time stood still before sleeps through nothing now."""
    clock = VirtualClock()

    async def body() -> None:
        await asyncio.sleep(1)

    with clock:
        clock.jump_forward(5)
        clock.rewind()
        clock.run(body())
        assert [record.woke_at for record in clock.sleeps] == [1]


def test_remarks_are_forgotten_when_the_clock_is_rewound() -> None:
    """All of them, or those since the moment that was marked."""
    clock = VirtualClock()
    clock.notes.append("one")
    mark = clock.mark()
    clock.notes += ["two", "three"]
    clock.rewind(mark)
    assert clock.notes == ["one"]
    clock.notes.append("two")
    clock.rewind()
    assert clock.notes == []


def test_waits_are_selected_by_a_pattern_of_paths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A path is named as everywhere: whole, by its end, or with a pattern."""
    monkeypatch.setattr(describe, "path_of_current", lambda: "answer/retry/llm")
    clock = VirtualClock()
    clock.run(asyncio.sleep(2))
    for path in ("answer/retry/llm", "llm", "retry/*", "**/llm"):
        assert clock.sleeps.by(path=path).delays == [2]
    assert clock.sleeps.by(path="retry") == []


def test_an_unknown_kind_of_wait_is_refused() -> None:
    """A misspelt kind would select nothing and prove nothing."""
    with pytest.raises(ValueError, match="kind='sleeps' must be one of 'sleep', "):
        VirtualClock().sleeps.by(kind="sleeps")
