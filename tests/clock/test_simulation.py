"""What a simulated loop lets somebody choose, and how each execution begins."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_tta import op
from pytest_tta.clock import VirtualClock
from pytest_tta.clock.choices import Choice, Unit
from pytest_tta.clock.errors import ClockDeadlock, ClockRunaway, ClockSpin
from pytest_tta.clock.simulation import BUSY_ROUNDS, SimulationLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from pytest_tta.clock.choices import Chooser


def take_last(units: Sequence[Unit]) -> int:
    """Choose the youngest."""
    return len(units) - 1


def taking(*indices: int) -> Chooser:
    """Choose by a list, then the oldest."""
    coming = itertools.chain(indices, itertools.repeat(0))
    return lambda _: next(coming)


async def three(log: list[str], wait: Callable[[str], object] = op) -> None:
    """Let three tasks wait for one operation each."""

    async def call(label: str) -> None:
        """Log when the operation is over."""
        await wait(label)  # type: ignore[misc]
        log.append(label)

    await asyncio.gather(call("a"), call("b"), call("c"))


# --- choices --------------------------------------------------------------------------


def test_operations_complete_in_the_order_that_is_chosen(loop: SimulationLoop) -> None:
    """The oldest comes first by default, and any other if it is chosen."""
    log: list[str] = []
    loop.begin()
    loop.run(three(log))
    loop.begin(take_last)
    loop.run(three(log))
    assert log == ["a", "b", "c", "c", "b", "a"]


def test_every_order_of_operations_can_be_chosen(loop: SimulationLoop) -> None:
    """Three operations have six orders."""
    orders = set()
    for first, second in itertools.product(range(3), range(2)):
        log: list[str] = []
        loop.begin(taking(first, second))
        loop.run(three(log))
        orders.add("".join(log))
    assert orders == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_a_choice_tells_what_there_was(loop: SimulationLoop) -> None:
    """Each unit names its kind, the task that waits, its site and its age."""
    loop.begin(taking(1))
    loop.run(three([]))
    a, b, c = (
        Unit("op", chain, label, 1, chain - 1)
        for chain, label in enumerate("abc", start=1)
    )
    assert loop.choices == [Choice((a, b, c), 1, -1), Choice((a, c), 0, 2)]


def test_choices_are_kept_before_anything_was_begun(loop: SimulationLoop) -> None:
    """A loop as it was made chooses the oldest, and says so."""
    loop.run(three([]))
    assert [choice.taken for choice in loop.choices] == [0, 0]


def test_one_event_alone_is_no_choice(loop: SimulationLoop) -> None:
    """Where nothing else could come, nobody is asked; it is a moment of rest."""

    async def body() -> None:
        """Wait for one operation, then for one timer."""
        await loop.operation("a")
        await asyncio.sleep(1)

    loop.begin(lambda _: pytest.fail("was asked"))
    loop.run(body())
    assert (loop.choices, loop.rests) == ([], 2)


def test_operations_of_a_label_are_numbered(loop: SimulationLoop) -> None:
    """A site is a label and a number, from 1."""

    async def body() -> list[tuple[str, int]]:
        """Begin three operations."""
        waiting = [loop.operation(label) for label in ("a", "b", "a")]
        found = [(unit.label, unit.number) for unit in loop.pending]
        await asyncio.gather(*waiting)
        return found

    loop.begin()
    assert loop.run(body()) == [("a", 1), ("b", 1), ("a", 2)]
    assert loop.pending == []


def test_an_operation_that_is_given_up_does_not_come(loop: SimulationLoop) -> None:
    """Whoever is cancelled no longer waits, and is no longer offered."""

    async def body() -> list[str]:
        """Cancel one of two."""
        log: list[str] = []
        task = asyncio.create_task(three(log))
        await loop.operation("first")
        task.cancel()
        await asyncio.wait([task])
        assert loop.pending == []
        return log

    loop.begin()
    assert loop.run(body()) == []


def test_choices_are_kept_only_if_somebody_wants_them(loop: SimulationLoop) -> None:
    """A search through many schedules looks at the result alone."""
    loop.begin(take_last, record=False)
    loop.run(three([]))
    assert loop.choices == []


def test_a_choice_that_does_not_exist_is_refused(loop: SimulationLoop) -> None:
    """A chooser that is wrong is told so, with what there was."""
    loop.begin(lambda _: 3)
    with pytest.raises(IndexError, match=r"chose 3, of 3 units"):
        loop.run(three([]))


def test_an_unknown_mode_is_refused(loop: SimulationLoop) -> None:
    """There are three modes."""
    with pytest.raises(ValueError, match=r"mode='wild' must be 'op', 'burst' or"):
        loop.begin(mode="wild")  # type: ignore[arg-type]


# --- timers ---------------------------------------------------------------------------


def test_timers_of_one_instant_come_in_any_order(loop: SimulationLoop) -> None:
    """They are events of their own, and none waits for the others."""
    orders = set()
    for first, second in itertools.product(range(3), range(2)):
        log: list[str] = []
        loop.begin(taking(first, second))
        loop.run(three(log, lambda _: asyncio.sleep(1)))
        orders.add("".join(log))
        assert loop.time() == 1.0
    assert orders == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_a_timer_may_come_before_an_operation(loop: SimulationLoop) -> None:
    """An answer may take longer than a sleep elsewhere; the answer moves no time."""

    async def body() -> list[tuple[str, float]]:
        """Let a sleep and an operation race."""
        log: list[tuple[str, float]] = []

        async def note(label: str, seconds: float) -> None:
            await (asyncio.sleep(seconds) if seconds else loop.operation(label))
            log.append((label, loop.time()))

        await asyncio.gather(note("op", 0), note("sleep", 2))
        return log

    loop.begin()
    assert loop.run(body()) == [("op", 0.0), ("sleep", 2.0)]
    loop.begin(take_last)
    assert loop.run(body()) == [("sleep", 2.0), ("op", 2.0)]


async def limited(loop: SimulationLoop) -> str:
    """Wait for an operation, 3 s at most, beside a sleep of 5 s."""
    sleeper = asyncio.create_task(asyncio.sleep(5))
    try:
        async with asyncio.timeout(3):
            await loop.operation("slow")
    except TimeoutError:
        return f"late at {loop.time():g}"
    finally:
        sleeper.cancel()
    return f"in time at {loop.time():g}"


def test_a_limit_runs_out_early_only_within_a_budget(loop: SimulationLoop) -> None:
    """Otherwise the operation comes first, whatever is chosen, and no time passes."""
    loop.begin(take_last)
    assert loop.run(limited(loop)) == "in time at 0"
    assert (loop.early_used, loop.choices) == (0, [])

    loop.begin(take_last, early=1)
    assert loop.run(limited(loop)) == "late at 3"
    assert loop.early_used == 1
    assert [unit.kind for unit in loop.choices[0].units] == ["op", "deadline"]


def test_the_budget_of_early_limits_is_spent(loop: SimulationLoop) -> None:
    """After one early limit the second call is answered in time."""

    async def body() -> list[str]:
        return [await limited(loop), await limited(loop)]

    loop.begin(take_last, early=1)
    assert loop.run(body()) == ["late at 3", "in time at 3"]


def test_a_limit_that_is_due_anyhow_is_not_early(loop: SimulationLoop) -> None:
    """With no operation under way time moves as always."""

    async def body() -> None:
        """Wait too long for nobody."""
        with pytest.raises(TimeoutError, match=r"^$"):
            async with asyncio.timeout(3):
                await asyncio.Event().wait()

    loop.begin()
    loop.run(body())
    assert (loop.early_used, loop.time()) == (0, 3.0)


@pytest.mark.parametrize("limit", ["timeout", "wait_for", "wait"])
def test_each_way_to_limit_a_wait_is_known(loop: SimulationLoop, limit: str) -> None:
    """asyncio.wait is none: what it waits for goes on."""

    async def body() -> None:
        """Limit an operation in one of three ways."""
        call = loop.operation("slow")
        if limit == "timeout":
            async with asyncio.timeout(3):
                await call
        elif limit == "wait_for":
            await asyncio.wait_for(call, 3)
        else:
            await asyncio.wait([call], timeout=3)

    loop.begin(early=1)
    loop.run(body())
    kinds = {unit.kind for choice in loop.choices for unit in choice.units}
    assert kinds == {"op", "timer" if limit == "wait" else "deadline"}


def test_a_timer_is_named_by_what_it_is_for(loop: SimulationLoop) -> None:
    """The words hold no line number, and are the same on every interpreter."""
    loop.begin(early=1)
    loop.run(limited(loop))
    assert loop.choices[0].units[1].label == "timeout of Task-1"


def test_timers_that_were_cancelled_do_not_pile_up(loop: SimulationLoop) -> None:
    """Each limit that was not needed leaves one, due much later."""

    async def body() -> None:
        """Limit many short waits."""
        for number in range(5000):
            async with asyncio.timeout(1e6):
                await (asyncio.sleep(0.001) if number % 2 else loop.operation("call"))

    loop.begin()
    loop.run(body())
    assert len(loop.timers) < 1500


# --- moments of rest ------------------------------------------------------------------


def test_each_moment_of_rest_is_told_before_the_choice(loop: SimulationLoop) -> None:
    """Who looks sees which operations are under way, and which moment it is."""
    seen = []
    loop.begin()
    loop.on_rest = lambda at: seen.append((at.rests, len(at.pending)))
    loop.run(three([]))
    assert seen == [(0, 3), (1, 2), (2, 1)]


def test_a_task_can_be_cancelled_at_a_moment_of_rest(loop: SimulationLoop) -> None:
    """Then nothing is chosen, since there is something to do."""

    def cancel(at: SimulationLoop) -> None:
        if at.rests == 1:
            at.tasks[0].cancel()

    log: list[str] = []
    loop.begin()
    loop.on_rest = cancel
    with pytest.raises(asyncio.CancelledError):
        loop.run(three(log))
    assert log == ["a"]
    assert len(loop.choices) == 1


def test_the_tasks_of_an_execution_are_kept_in_order(loop: SimulationLoop) -> None:
    """The first is what was run; they are there after they have ended."""
    loop.begin()
    loop.run(three([]))
    names = [task.get_name() for task in loop.tasks]
    assert names == ["Task-1", "Task-2", "Task-3", "Task-4"]
    assert all(task.done() for task in loop.tasks)


def test_names_of_tasks_begin_anew_in_each_run(loop: SimulationLoop) -> None:
    """As in everyday life, where each run has a loop; numbers by birth go on."""
    loop.begin()
    loop.run(three([]))
    loop.run(three([]))
    assert [task.get_name() for task in loop.tasks[4:]] == [
        "Task-1",
        "Task-2",
        "Task-3",
        "Task-4",
    ]
    assert [unit.chain for unit in loop.choices[-2].units] == [5, 6, 7]


@pytest.mark.parametrize(("delay", "slow"), [(0, 0), (1, 1)])
def test_a_limit_after_an_operation_that_took_time_is_counted(
    loop: SimulationLoop, delay: float, slow: int
) -> None:
    """It takes time if a timer comes before it, and not if that was due anyway."""

    async def body() -> None:
        """Wait for an operation beside a timer, then for nobody."""
        loop.call_later(delay, int)
        await loop.operation("a")
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()

    loop.begin(take_last)
    loop.run(body())
    assert (loop.time(), loop.slow_limits, loop.early_used) == (delay + 5, slow, 0)


# --- modes ----------------------------------------------------------------------------


async def handshake(log: list[str]) -> None:
    """Let two tasks answer while a third has three rounds of its own."""

    async def call(label: str) -> None:
        """Note the answer, one round after it."""
        await op(label)
        await asyncio.sleep(0)
        log.append(label)

    await asyncio.gather(call("a"), call("b"))


def test_in_a_burst_answers_arrive_together(loop: SimulationLoop) -> None:
    """An answer comes although the one before is still being worked on."""
    log: list[str] = []
    loop.begin(lambda units: len(units) > 1 and units[0].kind == "step", mode="burst")
    loop.run(handshake(log))
    assert log == ["a", "b"]
    assert {"step", "op"} == {u.kind for c in loop.choices for u in c.units}
    together = loop.rests

    loop.begin(mode="op")
    loop.run(handshake(log))
    assert together < loop.rests


def test_a_burst_goes_on_in_the_usual_order_or_lets_something_come(
    loop: SimulationLoop,
) -> None:
    """Of what is ready only the first is a choice: the others wait for it."""
    loop.begin(mode="burst")
    loop.run(handshake([]))
    steps = [[unit.kind for unit in one.units].count("step") for one in loop.choices]
    assert set(steps) == {0, 1}


def test_in_a_burst_that_comes_which_is_chosen(loop: SimulationLoop) -> None:
    """Of several operations the last, while something else is ready."""
    log: list[str] = []

    async def call(label: str) -> None:
        await op(label)
        log.append(label)

    async def body() -> None:
        waiting = [asyncio.create_task(call(label)) for label in "abc"]
        while not waiting[0].done():
            await asyncio.sleep(0)

    loop.begin(lambda units: len(units) - 1, mode="burst")
    loop.run(body())
    assert log == ["c", "b", "a"]


def test_a_burst_may_let_a_timer_come_that_is_due(loop: SimulationLoop) -> None:
    """It is not after now, and need not wait for what is ready."""
    loop.begin(mode="burst")

    async def body() -> None:
        asyncio.get_running_loop().call_later(0, int)
        await asyncio.sleep(0)

    loop.run(body())
    kinds = [[unit.kind for unit in one.units] for one in loop.choices]
    assert kinds == [["step", "timer"]] * 2  # Nobody has let it come.


def test_a_timer_is_no_choice_while_time_is_held(loop: SimulationLoop) -> None:
    """Only the operation may come; afterwards the timer may."""
    loop.begin(lambda _: pytest.fail("was asked"))

    async def body() -> float:
        sleeping = asyncio.create_task(asyncio.sleep(3))
        with loop.clock.hold():
            await loop.operation("a")
            await asyncio.sleep(0)
        await sleeping
        return loop.time()

    assert loop.run(body()) == 3.0


@pytest.mark.parametrize("ns", [-1, 0])
def test_an_instant_that_has_come_is_not_waited_for(
    loop: SimulationLoop, ns: int
) -> None:
    """Nobody else comes before."""
    loop.run(loop.until(ns))
    assert loop.rests == 0


def test_time_is_kept_from_moving_by_a_block(loop: SimulationLoop) -> None:
    """While the block lasts, and no longer; the loop's own thread may do so."""
    moments: list[float] = []

    async def body() -> None:
        sleeping = asyncio.create_task(asyncio.sleep(3))
        with loop.clock.hold():
            await loop.clock.settle()
            moments.append(loop.time())
        await sleeping
        moments.append(loop.time())

    loop.run(body())
    assert moments == [0.0, 3.0]


def test_a_burst_that_takes_the_first_is_as_usual(loop: SimulationLoop) -> None:
    """Choice 0 lets go on what is ready."""
    digests = []
    for mode in ("op", "burst", "harsh"):
        log: list[str] = []
        loop.begin(mode=mode)  # type: ignore[arg-type]
        loop.run(handshake(log))
        digests.append((log, loop.rests))
    assert digests == [(["a", "b"], 2)] * 3


def test_in_harsh_mode_any_callback_may_run(loop: SimulationLoop) -> None:
    """Which asyncio never does: tasks start in another order than they were made."""

    async def body() -> list[str]:
        """Start two tasks."""
        log: list[str] = []

        async def note(label: str) -> None:
            log.append(label)

        await asyncio.gather(note("a"), note("b"))
        return log

    loop.begin(take_last, mode="harsh")
    assert loop.run(body()) == ["b", "a"]
    assert [unit.label for unit in loop.choices[0].units] == ["Task-2", "Task-3"]


# --- ends -----------------------------------------------------------------------------


def test_a_deadlock_is_told_as_in_everyday_life(loop: SimulationLoop) -> None:
    """With no operation and no timer left, nobody can be woken."""

    async def body() -> None:
        """Wait for nobody."""
        await asyncio.sleep(1)
        await asyncio.Event().wait()

    with pytest.raises(ClockDeadlock, match=r"Task-1 at .*Event\.wait") as simulated:
        loop.run(body())
    with pytest.raises(ClockDeadlock, match="nothing is left") as everyday:
        VirtualClock().run(body())
    assert str(simulated.value) == str(everyday.value)


@pytest.mark.parametrize("rests", [0, 1])
@pytest.mark.parametrize(("timers", "most"), [(1, 100), (0, 1000)])
def test_callbacks_without_an_end_are_noticed(
    loop: SimulationLoop, timers: int, most: int, rests: int
) -> None:
    """Time cannot move while something runs; ten times sooner if it would."""
    rounds: list[None] = []

    async def body() -> None:
        """Spin, beside a timer or none."""
        for _ in range(timers):
            asyncio.get_running_loop().call_later(1, print)
        for _ in range(rests):
            await loop.operation("before")
        for _ in range(2 * most):
            rounds.append(None)
            await asyncio.sleep(0)

    loop.max_steps = 100
    text = rf"callbacks ran {most} times in a row at 0 s"
    with pytest.raises(ClockSpin, match=text):
        loop.run(body())
    assert most - rests <= len(rounds) <= most + BUSY_ROUNDS


def test_callbacks_are_counted_anew_when_time_has_moved(loop: SimulationLoop) -> None:
    """Much work in a long run is no spin, if it is little at each instant."""

    async def body() -> None:
        """Yield often beside a timer, three times."""
        asyncio.get_running_loop().call_later(9, print)
        for _ in range(3):
            for _ in range(150):
                await asyncio.sleep(0)
            await asyncio.sleep(1)

    loop.max_steps = 200
    loop.run(body())
    assert loop.time() == 3


def test_time_without_an_end_is_noticed(loop: SimulationLoop) -> None:
    """A poll that never finds anything moves time again and again."""

    async def body() -> None:
        """Sleep for ever."""
        while True:
            await asyncio.sleep(1)

    loop.max_jumps = 100
    with pytest.raises(ClockRunaway, match=r"moved 100 times .* at 100 s"):
        loop.run(body())


def test_who_never_rests_keeps_no_operation_waiting(loop: SimulationLoop) -> None:
    """To yield until something has happened is a habit of many tests."""

    async def body() -> int:
        """Count the rounds until an operation is done."""
        task = asyncio.create_task(three([]))
        rounds = 0
        while not task.done():
            rounds += 1
            await asyncio.sleep(0)
        return rounds

    loop.begin()
    assert 300 < loop.run(body()) < 400
    assert loop.rests == 0


def test_what_the_run_raises_comes_out(loop: SimulationLoop) -> None:
    """Also what ends an interpreter, at once."""

    async def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(interrupt())
    loop.begin()
    loop.run(three([]))


def test_a_loop_inside_a_loop_is_refused(loop: SimulationLoop) -> None:
    """As asyncio has it."""

    async def body() -> None:
        coro = three([])
        try:
            loop.run(coro)
        finally:
            coro.close()

    with pytest.raises(RuntimeError, match="already running"):
        loop.run(body())


def test_what_asyncio_would_log_is_kept(loop: SimulationLoop) -> None:
    """An error in a callback has nobody to go to."""

    async def body() -> None:
        """Let a callback fail."""
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    loop.begin()
    loop.run(body())
    assert [str(each["exception"]) for each in loop.unhandled] == ["division by zero"]


# --- from one execution to the next ---------------------------------------------------


def test_what_failed_unseen_before_is_no_word_of_the_next(loop: SimulationLoop) -> None:
    """A task that somebody still holds is collected when another execution runs."""
    held: list[asyncio.Task[None]] = []

    async def fail() -> None:
        raise ValueError

    async def body() -> None:
        """Start a task that fails, and look away."""
        held.append(asyncio.create_task(fail()))
        await asyncio.sleep(0)

    loop.begin()
    loop.run(body())
    loop.begin()
    held.clear()
    gc.collect()
    assert loop.unhandled == []


def test_each_execution_begins_with_nothing(loop: SimulationLoop) -> None:
    """Time, log, tasks, numbers and choices are as if nothing had been."""

    async def body() -> None:
        """Leave traces everywhere."""
        await three([])
        await asyncio.sleep(1)
        loop.clock.note_once("something")
        loop.clock.stall(2)
        loop.clock.autojump = False
        asyncio.create_task(asyncio.sleep(9)).cancel()

    seen = []
    for _ in range(2):
        loop.begin(take_last)
        clock = loop.clock
        seen.append((loop.time(), clock.elapsed, clock.sleeps, clock.notes[:]))
        seen.append((loop.rests, loop.steps, loop.tasks[:], loop.choices[:]))
        assert clock.autojump
        loop.run(body())
        seen.append(
            (loop.rests, loop.steps, loop.time(), clock.sleeps[:], loop.choices)
        )
    assert seen[:3] == seen[3:]


def test_an_execution_begins_at_its_mark() -> None:
    """What happened before the test's body stays, with its time and its log."""
    clock = VirtualClock()
    clock.run(asyncio.sleep(4))
    loop = SimulationLoop(clock, mark=clock.mark())

    async def body() -> None:
        """Wait for a second."""
        await asyncio.sleep(1)

    for _ in range(2):
        loop.begin()
        assert clock.elapsed == 4
        loop.run(body())
        assert clock.sleeps.delays == [4, 1]
    loop.close()


def test_what_is_left_running_stays_to_be_looked_at(loop: SimulationLoop) -> None:
    """Only the next execution, or whoever asks, cancels it, and lets it clean up."""
    log: list[str] = []

    async def work() -> None:
        """Clean up slowly."""
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            log.append("clean")

    async def body() -> None:
        """Leave a task behind."""
        asyncio.create_task(work())  # noqa: RUF006 - the loop keeps it
        await asyncio.sleep(0)

    loop.begin()
    loop.run(body())
    assert [task.get_name() for task in loop.living_tasks()] == ["Task-2"]
    loop.clean_up()
    assert (loop.living_tasks(), log) == ([], ["clean"])
    assert loop.clock.sleeps == []


def test_what_does_not_end_is_closed(loop: SimulationLoop) -> None:
    """A task that swallows every cancellation is taken out of the way."""

    async def stubborn() -> None:
        """Never end."""
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async def body() -> None:
        """Leave it behind."""
        asyncio.create_task(stubborn())  # noqa: RUF006 - the loop keeps it
        await asyncio.sleep(0)

    loop.begin()
    loop.run(body())
    loop.begin()
    assert asyncio.all_tasks(loop) == set()


def test_generators_are_closed_in_the_order_of_their_start(
    loop: SimulationLoop,
) -> None:
    """A loop that is over leaves none half open."""
    log: list[str] = []
    kept = []

    async def numbers(label: str) -> AsyncIterator[int]:
        """Yield until closed."""
        try:
            for number in itertools.count():
                yield number
        finally:
            log.append(label)

    async def body() -> None:
        """Begin three, and finish none."""
        for label in "abc":
            kept.append(numbers(label))
            await anext(kept[-1])

    loop.begin()
    loop.run(body())
    assert log == []
    loop.clean_up()
    assert log == ["a", "b", "c"]
    loop.begin()
    loop.run(three([]))


def test_a_generator_that_is_dropped_is_closed_by_the_loop(
    loop: SimulationLoop,
) -> None:
    """As in asyncio: by a task, soon."""
    log: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        """Yield twice."""
        try:
            yield 1
            yield 2
        finally:
            log.append("closed")

    async def body() -> None:
        """Leave a loop early."""
        async for _ in numbers():
            break
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.begin()
    loop.run(body())
    assert log == ["closed"]


def test_context_variables_are_those_of_the_caller(loop: SimulationLoop) -> None:
    """A task has a copy of its maker's context, and changes nothing outside."""
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="none")

    async def child() -> str:
        before = seen.get()
        seen.set("child")
        return before

    async def body() -> tuple[str, str]:
        """Set it, and let a child set it."""
        seen.set("body")
        return await asyncio.create_task(child()), seen.get()

    seen.set("caller")
    loop.begin()
    assert loop.run(body()) == ("body", "body")
    assert seen.get() == "caller"


def test_asyncios_runner_accepts_the_loop() -> None:
    """Whoever brings a runner of their own can use it."""
    clock = VirtualClock()
    log: list[str] = []
    with asyncio.Runner(loop_factory=lambda: SimulationLoop(clock)) as runner:
        runner.run(three(log))
    assert log == ["a", "b", "c"]


def test_a_choice_tells_its_time_from_the_start_of_the_clock() -> None:
    """Wherever the loop's own time begins."""
    loop = SimulationLoop(VirtualClock(loop_start=50))
    loop.begin(lambda units: len(units) - 1)

    async def main() -> None:
        """Let a timer go before an operation, which is chosen after another one."""
        await asyncio.sleep(1)
        await asyncio.gather(asyncio.sleep(2), op("late"), op("last"))

    loop.run(main())
    assert [(one.at, one.came) for one in loop.choices] == [(1, 3), (3, 3)]
    loop.close()
