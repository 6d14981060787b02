"""An answer before which nothing else could come is not waited for."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta import Harness, op
from pytest_tta.clock.errors import ClockSpin
from pytest_tta.clock.simulation import BUSY_ROUNDS, SimulationLoop
from pytest_tta.explore.choosers import any_of_them
from pytest_tta.explore.execution import Subject
from pytest_tta.explore.plan import FaultAt, Plan, Schedule
from pytest_tta.explore.sweep import sweep
from tests.benchmarks.exploring import six_sites
from tests.explore.bodies import exploring, said

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pytest_tta.explore.outcome import Outcome
    from pytest_tta.trace import Trace


def rounds_of(answer: Awaitable[None]) -> int:
    """Count how often an answer lets others run before it is there."""
    return len(list(answer.__await__()))


# --- alone ----------------------------------------------------------------------------


def test_who_is_alone_goes_on_in_the_next_round(loop: SimulationLoop) -> None:
    """As after sleep(0): nobody is asked, and it is a moment of rest all the same."""

    async def body() -> None:
        assert rounds_of(loop.answer("a")) == 1
        await loop.answer("b")

    loop.begin(lambda _: pytest.fail("was asked"))
    loop.run(body())
    assert (loop.choices, loop.rests) == ([], 2)


def test_who_is_alone_may_go_on_at_once(loop: SimulationLoop) -> None:
    """A step that waits for nothing in an ordinary run is not made to wait."""

    async def body() -> None:
        assert rounds_of(loop.answer("a", may_pass=True)) == 0

    loop.run(body())
    assert loop.rests == 1


def test_after_a_moment_of_rest_there_is_time_to_ask(loop: SimulationLoop) -> None:
    """Two operations are a choice then, in whichever round it was."""

    async def ask_later(label: str) -> None:
        await loop.operation(label)

    async def body(rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.sleep(0)
        await loop.answer("alone", may_pass=True)
        asking = asyncio.create_task(ask_later("b"))
        await loop.operation("a")
        await loop.operation("c")
        await asking

    for rounds in range(2 * BUSY_ROUNDS):
        loop.begin()
        loop.run(body(rounds))
        offered = [[unit.label for unit in one.units] for one in loop.choices]
        assert offered == [["a", "b"], ["b", "c"]]


def test_who_is_alone_takes_as_many_rounds(loop: SimulationLoop) -> None:
    """The moment of rest that is left out is one of them."""
    counts: list[tuple[int, int]] = []
    for suspends in (False, True):
        loop.begin(suspends=suspends)
        loop.run(ask(loop))
        counts.append((loop.steps, loop.rests))
    assert counts == [(6, 2)] * 2


async def ask(loop: SimulationLoop) -> None:
    """Ask twice."""
    await loop.answer("a")
    await loop.answer("b")


def test_answers_that_are_not_waited_for_are_counted(loop: SimulationLoop) -> None:
    """The next operation of a label has the next number."""

    async def body() -> None:
        await loop.answer("a")
        await loop.answer("a")
        await asyncio.gather(loop.operation("a"), loop.operation("b"))

    loop.run(body())
    ((units, _, last, *_),) = loop.choices
    assert [unit.number for unit in units] == [3, 1]
    assert last == 0


@asynccontextmanager
async def beside(work: Awaitable[Any]) -> AsyncIterator[None]:
    """Let a task begin beside the block, and end it afterwards."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def limited(seconds: float) -> None:
    """Wait for nobody, up to a limit."""
    async with asyncio.timeout(seconds):
        await asyncio.get_running_loop().create_future()


def test_a_limit_does_not_come_before_an_answer(loop: SimulationLoop) -> None:
    """Unless limits may run out early: the outside is as fast as it can be."""

    async def body() -> None:
        async with beside(limited(1)):
            assert rounds_of(loop.answer("a")) == 1
        async with beside(asyncio.sleep(9)), beside(limited(1)):
            assert rounds_of(loop.answer("a")) == 1

    loop.begin()
    loop.run(body())


def test_an_early_limit_that_is_used_up_comes_no_more(loop: SimulationLoop) -> None:
    """After it an answer is alone again."""

    async def body() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await loop.answer("slow")
        async with asyncio.timeout(1):
            assert rounds_of(loop.answer("quick")) == 1

    loop.begin(lambda units: len(units) - 1, early=1)
    loop.run(body())
    assert loop.early_used == 1


# --- not alone ------------------------------------------------------------------------


async def ready(loop: SimulationLoop) -> object:
    """Another task is ready."""
    asyncio.ensure_future(asyncio.sleep(0))  # noqa: RUF006 - it ends at once
    return loop.answer("a")


async def asking(loop: SimulationLoop) -> object:
    """Another task waits for the outside."""
    async with beside(op("other")):
        return loop.answer("a")


async def sleeping(loop: SimulationLoop) -> object:
    """A timer could come before a slow answer."""
    async with beside(asyncio.sleep(1)):
        return loop.answer("a")


async def cancelled(loop: SimulationLoop) -> object:
    """Who asks is to be cancelled, which needs a suspension."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    answer = loop.answer("a")
    assert loop.rests == 0
    task.uncancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    return answer


async def moved_by_hand(loop: SimulationLoop) -> object:
    """Somebody moves time."""
    loop.clock.autojump = False
    answer = loop.answer("a")
    loop.clock.autojump = True
    return answer


async def alone(loop: SimulationLoop) -> object:
    """Nobody else is there."""
    return loop.answer("a")


@pytest.mark.parametrize("ask", [ready, asking, sleeping, cancelled, moved_by_hand])
def test_an_answer_beside_something_else_is_waited_for(
    loop: SimulationLoop, ask: Callable[[SimulationLoop], Any]
) -> None:
    """What else could come, or has to be delivered, may come first."""
    assert isinstance(loop.run(ask(loop)), asyncio.Future)


@pytest.mark.parametrize(
    "options",
    [{"mode": "burst"}, {"mode": "harsh"}, {"early": 1}, {"suspends": True}],
    ids=str,
)
def test_an_answer_is_waited_for_if_something_may_come_between(
    loop: SimulationLoop, options: dict[str, Any]
) -> None:
    """A callback, or a limit that is armed as soon as somebody waits."""
    loop.begin(**options)
    assert isinstance(loop.run(alone(loop)), asyncio.Future)


def test_who_is_cancelled_at_rest_does_not_go_on(loop: SimulationLoop) -> None:
    """Whoever is told of a moment of rest may cancel the task that has just asked."""

    async def body() -> str:
        try:
            await loop.answer("a", may_pass=True)
        except asyncio.CancelledError:
            return "cancelled"
        return "went on"

    loop.begin()
    loop.on_rest = lambda _: loop.tasks[0].cancel() if loop.rests == 0 else None
    assert loop.run(body()) == "cancelled"


# --- the same as with waiting ---------------------------------------------------------


def waiting_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each answer be waited for."""
    begin = SimulationLoop.begin

    def suspending(self: SimulationLoop, *given: Any, **options: Any) -> None:
        begin(self, *given, **{**options, "suspends": True})

    monkeypatch.setattr(SimulationLoop, "begin", suspending)


def outline(trace: Trace) -> list[tuple[Any, ...]]:
    """Tell of each span what it was and when."""
    return [
        (span.path, span.status, span.started_at, span.ended_at, repr(span.output))
        for span in trace.spans
    ]


def executed() -> list[tuple[Any, ...]]:
    """Execute a workflow under each single fault, and under some schedules."""
    found: list[tuple[Any, ...]] = []
    workflow = six_sites()
    with Harness() as tta, Subject(tta, lambda: tta.run(workflow, 1)) as subject:

        def keep(outcome: Outcome) -> None:
            """Keep what may not differ: ages do, of limits that nobody had to set."""
            units = [[unit[:4] for unit in one.units] for one in outcome.choices]
            taken = [(one.taken, one.last, one.came) for one in outcome.choices]
            same = outcome.calls, outcome.rests, outcome.ended, outcome.seconds
            trace = outline(tta.trace)
            found.append((outcome.plan, *same, units, taken, trace))

        subject.on_execution = keep
        sweep(subject, depth=1)
        for seed in range(20):
            subject(
                Plan(schedule=Schedule("op", early=seed % 2)),
                any_of_them(random.Random(seed)),
            )
        subject(Plan((FaultAt("charge", 1, "error"),)), any_of_them(random.Random(3)))
    return found


def test_an_execution_is_the_same_as_if_each_answer_were_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same calls, choices, moments of rest, and spans with their times."""
    quick = executed()
    waiting_always(monkeypatch)
    slow = executed()
    assert len(quick) > 40
    assert quick == slow


# --- who asks again and again ---------------------------------------------------------


@pytest.mark.parametrize("begins", [0, 1])
@pytest.mark.parametrize("suspends", [False, True])
def test_asking_without_a_pause_is_a_spin(
    loop: SimulationLoop, begins: int, *, suspends: bool
) -> None:
    """Each answer comes at once, and time never moves; so many come, and no more."""
    answers: list[None] = []

    async def body() -> None:
        await asyncio.sleep(begins)
        while True:
            await loop.answer("poll")
            answers.append(None)

    loop.begin(suspends=suspends)
    loop.max_steps = 1000
    text = rf"answered 1000 times in a row at {begins} s"
    with pytest.raises(ClockSpin, match=text):
        loop.run(body())
    assert len(answers) == 1000


def test_a_timer_of_the_same_instant_is_no_pause(loop: SimulationLoop) -> None:
    """Time has not moved by it, so that the answers before it still count."""

    async def body() -> None:
        while True:
            await loop.answer("poll")
            waiter = loop.create_future()
            loop.call_later(0, waiter.set_result, None)
            await waiter

    # Its numbers are no small ones, which are the same objects everywhere.
    loop.clock.timeline.rebase(10**9)
    loop.max_steps = 100
    with pytest.raises(ClockSpin, match=r"answered 100 times in a row"):
        loop.run(body())


def test_answers_are_counted_for_one_instant(loop: SimulationLoop) -> None:
    """Much is asked in a long run, and in several runs: that is no spin."""

    async def body() -> None:
        for _ in range(3):
            for _ in range(150):
                await loop.answer("poll")
            await asyncio.sleep(1)

    loop.max_steps = 200
    for _ in range(3):
        loop.run(body())
    assert loop.time() == 9


def test_a_poll_without_a_pause_is_a_livelock() -> None:
    """An exploration says so, and ends."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            while True:
                await op("poll")

        tta.run(main, None)

    with exploring(body) as subject:
        subject.loop.max_steps = 1000
        text = said(subject(Plan()))
        assert text.startswith("livelock: the outside answered 1000 times in a row")
