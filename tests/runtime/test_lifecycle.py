"""What runs in a process is waited for, then cancelled, and then things are closed."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from tta_primitives import WorkflowContext, step
from tta_primitives.errors import ExecutionRejectedError
from tta_primitives.runtime import Lifecycle, LifecycleStoppedError
from tta_primitives.runtime.closing import flush_with, flush_without


async def working(lifecycle, seconds, ended=None):
    """Be a run of so many seconds."""
    with lifecycle.track():
        await asyncio.sleep(seconds)
    if ended is not None:
        ended.append(seconds)


async def stubborn(seconds=1000.0):
    """Go on whatever one is told."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            continue


def after(seconds):
    """Return the loop's time in so many seconds."""
    return asyncio.get_running_loop().time() + seconds


async def test_states_follow_each_other(tta) -> None:
    """Starting, ready inside the block, draining, stopped; and what each answers."""
    lifecycle = Lifecycle()
    assert lifecycle.state == "starting"
    assert await lifecycle.ready() == (503, {"status": "starting"})
    async with lifecycle:
        assert await lifecycle.ready() == (200, {"status": "ready"})
        lifecycle.begin_drain()
        assert await lifecycle.ready() == (503, {"status": "draining"})
        assert lifecycle.live() == (200, {"status": "alive", "state": "draining"})
    assert await lifecycle.ready() == (503, {"status": "stopped"})
    assert repr(lifecycle) == "<Lifecycle stopped running=0 background=0>"


async def test_what_is_opened_by_hand_is_ready_when_it_says_so(tta) -> None:
    """A host starts it first, opens what it needs, and then lets requests come."""
    lifecycle = Lifecycle()
    lifecycle.start()
    assert (await lifecycle.ready())[0] == 503
    lifecycle.mark_ready()
    assert (await lifecycle.ready())[0] == 200
    await lifecycle.drain()


async def test_started_twice_is_refused(tta) -> None:
    """Two blocks at once would take each other's runs."""
    async with Lifecycle() as lifecycle:
        with pytest.raises(RuntimeError, match="is started already"):
            lifecycle.start()


async def test_stopped_one_can_be_started_again(tta) -> None:
    """An application that is tested several times has one lifecycle."""
    lifecycle = Lifecycle()
    for _ in range(2):
        async with lifecycle:
            with lifecycle.track():
                assert lifecycle.running == 1
        assert lifecycle.state == "stopped"


async def test_runs_are_waited_for(tta) -> None:
    """Nothing is cancelled that ends in time; the drain ends with the last run."""
    ended: list[float] = []
    async with Lifecycle(drain_seconds=25) as lifecycle:
        for seconds in (1, 5, 19):
            lifecycle.spawn(working(lifecycle, seconds, ended))
        await asyncio.sleep(0)
        assert (lifecycle.running, lifecycle.background) == (3, 3)
        report = await lifecycle.drain()
    assert ended == [1, 5, 19]
    assert (report.completed, report.cancelled, report.abandoned) == (6, 0, 0)
    assert report.seconds == pytest.approx(19)


async def test_what_is_left_is_cancelled_and_awaited(tta) -> None:
    """At four fifths of the budget a run is cancelled, and may still clean up."""
    cleaned = []

    async def careful(lifecycle):
        """Take a second to clean up."""
        with lifecycle.track():
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(1)
                cleaned.append(True)

    async with Lifecycle(drain_seconds=20) as lifecycle:
        task = asyncio.ensure_future(careful(lifecycle))
        await asyncio.sleep(0)
        report = await lifecycle.drain()
    assert task.cancelled()
    assert cleaned == [True]
    assert (report.completed, report.cancelled, report.abandoned) == (0, 1, 0)
    assert report.seconds == pytest.approx(17)


async def test_what_cannot_be_cancelled_is_left_within_the_budget(tta, caplog) -> None:
    """It is named in the log, and closing still gets its time."""
    closed = []
    async with Lifecycle(drain_seconds=20) as lifecycle:
        lifecycle.on_shutdown(lambda: closed.append(True))
        task = lifecycle.spawn(stubborn(30), name="the stubborn one")
        await asyncio.sleep(0)
        with caplog.at_level(logging.ERROR):
            report = await lifecycle.drain()
    assert (report.cancelled, report.abandoned) == (0, 1)
    assert report.seconds <= 20
    assert closed == [True]
    assert "the stubborn one goes on although it was cancelled" in caplog.text
    await task


async def test_drain_takes_no_longer_than_it_is_told(tta) -> None:
    """`drain(5)` shortens the budget, also of a drain that is under way."""
    async with Lifecycle(drain_seconds=1000) as lifecycle:
        run = asyncio.ensure_future(working(lifecycle, 500))
        await asyncio.sleep(0)
        first = asyncio.ensure_future(lifecycle.drain())
        await asyncio.sleep(10)
        second = await lifecycle.drain(5)
        assert second is await first
    assert second.seconds == pytest.approx(14)
    assert run.cancelled()


async def test_drain_goes_on_if_who_waits_for_it_is_cancelled(tta) -> None:
    """A host that loses patience does not leave things open."""
    closed = []
    async with Lifecycle() as lifecycle:
        lifecycle.on_shutdown(lambda: closed.append(True))
        lifecycle.spawn(working(lifecycle, 3))
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(lifecycle.drain())
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.sleep(2.5)
        assert closed == [True]
        assert waiting.cancelled()


async def test_drain_inside_of_a_run_is_a_clear_error(tta) -> None:
    """It would wait for itself."""
    async with Lifecycle() as lifecycle:
        with (
            lifecycle.track(),
            pytest.raises(RuntimeError, match=r"call it from outside, or begin_drain"),
        ):
            await lifecycle.drain()


async def test_new_runs_are_admitted_until_closing_begins(tta) -> None:
    """Requests that were accepted are answered; later ones are told why not."""
    admitted = []

    async def late(lifecycle):
        """Begin another run at the end of the first."""
        with lifecycle.track():
            await asyncio.sleep(2)
        with lifecycle.track():
            admitted.append(lifecycle.state)
            await asyncio.sleep(2)

    async with Lifecycle() as lifecycle:
        lifecycle.spawn(late(lifecycle))
        await asyncio.sleep(0)
        await lifecycle.drain()
        assert admitted == ["draining"]
        with pytest.raises(LifecycleStoppedError, match="admits no new run"):
            lifecycle.track().__enter__()
        coroutine = working(lifecycle, 1)
        with pytest.raises(ExecutionRejectedError, match="admits no new run"):
            lifecycle.spawn(coroutine)
        assert coroutine.cr_frame is None


async def test_nothing_is_admitted_while_things_are_closed(tta) -> None:
    """What a run would need may be gone already; a host that closes first knows."""
    refused = []

    async def try_again(lifecycle):
        """Close something that wants to begin a run."""
        with pytest.raises(LifecycleStoppedError, match="admits no new run"):
            lifecycle.track().__enter__()
        refused.append(lifecycle.state)

    async with Lifecycle() as lifecycle:
        lifecycle.on_shutdown(lambda: try_again(lifecycle))
        await lifecycle.settle()
        await try_again(lifecycle)
    assert refused == ["draining", "draining"]


async def test_track_outside_of_a_task_is_a_clear_error() -> None:
    """There is nobody whom the drain could cancel."""
    async with Lifecycle() as lifecycle:
        errors = []

        def enter():
            """Enter in a thread."""
            with pytest.raises(RuntimeError, match="in a task of the event loop"):
                lifecycle.track().__enter__()
            errors.append(True)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert errors == [True]
        assert lifecycle.running == 0


async def test_error_of_a_background_task_is_logged_once(tta, caplog) -> None:
    """It is named, and does not stop the others; nobody says that it was not read."""

    async def fail():
        """Fail at once."""
        raise ConnectionError("gone")

    async with Lifecycle() as lifecycle:
        lifecycle.spawn(fail(), name="refresh")
        other = lifecycle.spawn(asyncio.sleep(1, "done"))
        assert await other == "done"
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        "background task refresh failed"
    ]


async def test_endless_background_task_is_not_waited_for(tta) -> None:
    """`wait=False`: it is cancelled at the beginning of the drain."""
    async with Lifecycle() as lifecycle:
        task = lifecycle.spawn(asyncio.sleep(10_000), wait=False)
        await asyncio.sleep(0)
        report = await lifecycle.drain()
    assert task.cancelled()
    assert report.seconds == pytest.approx(0)
    assert report.cancelled == 1


async def test_things_are_closed_last_first_whatever_they_raise(tta, caplog) -> None:
    """One that fails and one that hangs leave the others their time."""
    closed = []

    def closing(name):
        """Return what notes that it was closed."""
        return lambda: closed.append(name)

    async def broken():
        """Fail to close."""
        raise OSError("secret")

    async with Lifecycle(drain_seconds=20) as lifecycle:
        lifecycle.on_shutdown(closing("first"))
        lifecycle.on_shutdown(broken)
        lifecycle.on_shutdown(closing("second"))
        lifecycle.on_shutdown(lambda: stubborn(30), name="hangs", timeout=3)
        lifecycle.on_shutdown(lambda: asyncio.sleep(1, closed.append("third")))
        report = await lifecycle.drain()
    assert closed == ["third", "second", "first"]
    assert [name.split(".")[-1] for name in report.not_closed] == ["hangs", "broken"]
    assert report.seconds == pytest.approx(4.1)
    assert "closing hangs took longer than 3 s" in caplog.text
    await asyncio.sleep(30)  # It ends at last.


async def test_closing_shares_what_is_left_of_the_budget(tta) -> None:
    """Ten that hang for an hour each do not take ten times their limit."""
    async with Lifecycle(drain_seconds=10) as lifecycle:
        for _ in range(10):
            lifecycle.on_shutdown(lambda: asyncio.sleep(3600), timeout=60)
        report = await lifecycle.drain()
    assert len(report.not_closed) == 10
    assert report.seconds <= 10


async def test_what_waits_is_sent_last(caplog) -> None:
    """After everything is closed and told; with the seconds that are left."""
    caplog.set_level(logging.INFO, "tta_primitives")
    heard = []

    def flush(seconds: float) -> None:
        told = [record.getMessage().split(":")[0] for record in caplog.records]
        heard.append((0 < seconds <= 25, told[-1], list(closed)))

    closed: list[str] = []
    flush_with(flush)
    try:
        async with Lifecycle() as lifecycle:
            lifecycle.on_shutdown(lambda: closed.append("client"))
    finally:
        flush_without(flush)
    assert heard == [(True, "drained", ["client"])]
    async with Lifecycle():
        pass
    assert len(heard) == 1


async def test_sending_what_waits_may_fail_or_hang(caplog) -> None:
    """It is told in the log, and the process ends within its budget."""
    may_go_on = threading.Event()

    def fail(_seconds: float) -> None:
        raise ConnectionError("refused")

    def hang(_seconds: float) -> None:
        may_go_on.wait(30)

    flush_with(fail)
    flush_with(hang)
    try:
        async with Lifecycle(drain_seconds=0.2):
            pass
    finally:
        may_go_on.set()
        flush_without(fail)
        flush_without(hang)
    told = [record.getMessage() for record in caplog.records]
    assert any("fail failed" in line for line in told)
    assert any("hang took longer" in line for line in told)


async def test_blocking_closer_has_a_thread() -> None:
    """It may wait for the loop, which goes on meanwhile."""
    threads = []

    def flush(loop):
        """Ask the loop something, and wait for the answer."""
        asked = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "here"), loop)
        threads.append((threading.current_thread().name, asked.result(20)))

    def fails():
        """Raise in the thread."""
        raise OSError

    async with Lifecycle() as lifecycle:
        loop = asyncio.get_running_loop()
        lifecycle.on_shutdown(lambda: flush(loop), name="flush", blocking=True)
        lifecycle.on_shutdown(fails, name="fails", blocking=True)
        report = await lifecycle.drain()
    assert threads == [("closing flush", "here")]
    assert report.not_closed == ("fails",)


async def test_loop_that_takes_up_work_learns_that_it_should_not(tta) -> None:
    """`until_draining` wakes at the beginning of the drain."""
    async with Lifecycle() as lifecycle:
        waiting = lifecycle.spawn(lifecycle.until_draining())
        await asyncio.sleep(1)
        assert not waiting.done()
        lifecycle.begin_drain()
        await waiting
    with pytest.raises(RuntimeError, match="belongs inside"):
        await Lifecycle().until_draining()


async def test_root_runs_are_tracked_if_asked_for(tta) -> None:
    """Without a line of the user's; steps below the root are part of it."""

    @step
    async def think(value):
        await asyncio.sleep(3)
        return value

    workflow = think >> think
    async with Lifecycle(track_runs=True) as lifecycle:
        run = asyncio.ensure_future(workflow.execute(1, WorkflowContext()))
        await asyncio.sleep(1)
        assert lifecycle.running == 1
        report = await lifecycle.drain()
        assert run.result() == 1
    assert (report.completed, report.seconds) == (1, pytest.approx(5))


async def test_stats_are_part_of_health(tta) -> None:
    """For people: what runs, and what the workflows have counted."""

    @step
    async def think(value):
        return value

    workflow = (think >> think).named("answer")
    async with Lifecycle(workflows={"answer": workflow}) as lifecycle:
        code, body = await lifecycle.health()
        assert code == 200
        assert body == {
            "status": "ready",
            "running": 0,
            "background": 0,
            "workflows": {"answer": {}},
        }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drain_seconds": 0}, r"drain_seconds=0 must be a positive number"),
        ({"prestop_seconds": -1}, r"prestop_seconds=-1 must be a non-negative number"),
        (
            {"drain_seconds": 5, "prestop_seconds": 5},
            r"prestop_seconds=5 must be less than drain_seconds=5",
        ),
        ({"check_timeout": 0}, r"check_timeout=0 must be a positive number"),
        ({"checks": {"redis": "ping"}}, r"checks\['redis'\]='ping' must be an async"),
        ({"track_runs": 1}, r"track_runs=1 must be True or False"),
    ],
    ids=["drain", "prestop", "both", "timeout", "checks", "track"],
)
def test_arguments_are_checked(options, message) -> None:
    """Each error names the parameter, shows the value and says what is allowed."""
    with pytest.raises((TypeError, ValueError), match=message):
        Lifecycle(**options)


async def test_what_is_no_function_cannot_be_closed() -> None:
    """A coroutine or a client in its place is found at once, not at the end."""
    async with Lifecycle() as lifecycle:
        with pytest.raises(TypeError, match=r"close='client' must be a function"):
            lifecycle.on_shutdown("client")
