"""Hedge: when another execution starts, who answers, and that nothing goes on."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import gc
import tracemalloc
from contextlib import suppress
from datetime import timedelta

import pytest

from pytest_tta import Harness, S
from tests.garbage import only_new_garbage
from tests.recovery.doubles import CANCELLED, Boom, Script, exactly, virtual
from tta_primitives import WorkflowContext, WorkflowPrimitive, step
from tta_primitives.errors import OpenWrapperError, TimeoutExceededError
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    FallbackPrimitive,
    HedgeOutcome,
    HedgePrimitive,
    HedgeStats,
    Quantile,
    RetryBudget,
    RetryPrimitive,
    TimeoutPrimitive,
)


class Runs:
    """A step whose executions each take their own time and end in their own way.

    Each of them is a pair: seconds, and what is returned or raised. The last is
    repeated. What became of them stands in `ends`, in the order in which they ended.
    """

    __name__ = "runs"

    def __init__(self, *runs):
        self.runs = runs
        self.begun = []
        self.ends = []

    async def __call__(self, value):
        number = len(self.begun)
        self.begun.append(asyncio.get_running_loop().time())
        takes, outcome = self.runs[min(number, len(self.runs) - 1)]
        how = "cancelled"
        try:
            await asyncio.sleep(takes)
            how = "failed" if isinstance(outcome, BaseException) else "ok"
        finally:
            self.ends.append((number, how))
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @property
    def at_work(self):
        return len(self.begun) - len(self.ends)


class Connection:
    """A result that must be closed."""

    def __init__(self, takes=0):
        self.takes = takes
        self.closed = 0

    async def aclose(self):
        self.closed += 1
        if self.takes:
            await asyncio.sleep(self.takes)


async def call(hedge, value="x", context=None):
    return await hedge.execute(value, context or WorkflowContext())


def only_this_task():
    """Tell whether no other task is left."""
    return asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_an_answer_in_time_is_not_hedged(clock, events):
    """One execution, its very result, and no timer is left."""
    answer = object()
    runs = Runs((0.9, answer))
    hedge = HedgePrimitive(runs, delay=1)
    context = WorkflowContext()
    assert await call(hedge, context=context) is answer
    assert (len(runs.begun), clock.elapsed) == (1, 0.9)
    assert [wait.cancelled for wait in clock.sleeps if wait.kind == "timer"] == [True]
    assert (events.seen, context.outcomes) == ([], {})
    assert only_this_task()


@virtual
async def test_case_83_the_quicker_execution_answers_and_the_other_is_awaited(
    clock, events, caplog
):
    """With 50 ms before the hedge, which takes 20 ms, the answer is there at 70 ms."""
    runs = Runs((0.2, "slow"), (0.02, "quick"))
    hedge = HedgePrimitive(runs, delay=0.05)
    context = WorkflowContext()
    assert await call(hedge, context=context) == "quick"
    assert clock.elapsed == pytest.approx(0.07, abs=1e-9)
    assert runs.ends == [(1, "ok"), (0, "cancelled")]
    assert only_this_task()
    assert context.outcomes == {"hedge": HedgeOutcome(1, "runs")}
    assert events.seen == [
        ("hedge.started", {"number": 1, "delay": 0.05}),
        ("hedge.won", {"number": 1}),
    ]
    gc.collect()
    assert caplog.records == []


@virtual
async def test_the_primary_may_still_win(clock, events):
    """A hedge that was started in vain is cancelled, and no outcome is filed."""
    runs = Runs((0.2, "first"), (5, "second"))
    context = WorkflowContext()
    assert await call(HedgePrimitive(runs, delay=0.05), context=context) == "first"
    assert clock.elapsed == 0.2
    assert runs.ends == [(0, "ok"), (1, "cancelled")]
    assert (events.names, context.outcomes) == (["hedge.started"], {})


@virtual
async def test_an_answer_at_the_very_end_of_the_delay_is_taken(clock):
    """Whether a hedge was begun in that instant or not, the primary is not beaten."""
    runs = Runs((1, "first"))
    assert await call(HedgePrimitive(runs, delay=1)) == "first"
    assert clock.elapsed == 1
    assert only_this_task()


@virtual
async def test_further_hedges_follow_each_other(clock, events):
    """Each one counts its delay from the start of the one before."""
    runs = Runs((60, "a"), (60, "b"), (60, "c"), (60, "d"))
    hedge = HedgePrimitive(runs, delay=2, max_hedges=3)
    assert await call(hedge) == "a"
    assert runs.begun == [0, 2, 4, 6]
    assert clock.elapsed == 60
    assert only_this_task()


@pytest.mark.parametrize(
    ("delay", "begun"),
    [
        (timedelta(seconds=3), [0, 3, 6]),
        (lambda number: number * 5, [0, 5, 15]),
        (lambda number: timedelta(seconds=number), [0, 1, 3]),
        (0, [0, 0, 0]),
        (Quantile(0.9, initial=4), [0, 4, 8]),
    ],
    ids=["timedelta", "function", "function of timedelta", "race", "quantile"],
)
@virtual
async def test_the_delay_may_be_given_in_several_ways(clock, delay, begun):
    """As seconds, a timedelta, a function of the hedge's number, or a quantile."""
    runs = Runs((60, "a"))
    assert await call(HedgePrimitive(runs, delay=delay, max_hedges=2)) == "a"
    assert runs.begun == begun


@pytest.mark.parametrize("nonsense", [-1, "soon", None, True, float("nan")])
@virtual
async def test_a_function_that_gives_no_delay_is_an_error(clock, nonsense):
    """It names the number, and leaves nothing running."""
    runs = Runs((60, "a"))
    hedge = HedgePrimitive(runs, delay=lambda number: nonsense)
    with pytest.raises(
        (TypeError, ValueError), match=rf"^delay\(1\)={nonsense!r} must"
    ):
        await call(hedge)
    assert only_this_task()


@pytest.mark.parametrize("cleanup", [0, 3])
@virtual
async def test_case_84_a_cancelled_caller_leaves_nothing_running(clock, cleanup):
    """Both executions are cancelled and awaited, whatever their cleanup takes."""
    log = []

    async def tidy(value):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(cleanup)
            log.append("tidied")

    hedge = HedgePrimitive(tidy, delay=1)
    task = asyncio.create_task(call(hedge))
    await asyncio.sleep(2)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert (log, clock.elapsed) == (["tidied"] * 2, 2 + cleanup)
    assert only_this_task()


@virtual
async def test_case_84_a_second_cancel_leaves_nothing_running_either(clock):
    """It reaches the executions as well, and cuts their cleanup short."""
    log = []

    async def tidy(value):
        try:
            await asyncio.sleep(60)
        finally:
            try:
                await asyncio.sleep(100)
            finally:
                log.append("cut short")
                await asyncio.sleep(1)

    task = asyncio.create_task(call(HedgePrimitive(tidy, delay=1)))
    await asyncio.sleep(2)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(1)
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    assert (log, clock.elapsed) == (["cut short"] * 2, 4)
    assert only_this_task()


@virtual
async def test_case_84_one_who_is_cancelled_at_once_leaves_nothing(clock):
    """In the tick in which its executions begin."""
    runs = Runs((60, "a"))
    task = asyncio.create_task(call(HedgePrimitive(runs, delay=0)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    assert (runs.at_work, clock.elapsed) == (0, 0)
    assert only_this_task()


@virtual
async def test_a_loser_that_ignores_its_cancellation_is_waited_for(clock):
    """The answer is held back until nothing runs any more."""
    log = []

    async def stubborn(value):
        log.append("begun")
        if len(log) == 2:
            return "hedge"
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(5)
        log.append("ended")
        return "primary"

    assert await call(HedgePrimitive(stubborn, delay=1)) == "hedge"
    assert (log, clock.elapsed) == (["begun", "begun", "ended"], 6)


@virtual
async def test_an_error_in_a_losers_cleanup_is_no_failure(clock, caplog):
    """It was made of our own cancellation, and nobody misses it."""
    log = []

    async def breaks(value):
        log.append(value)
        if len(log) == 2:
            return "hedge"
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("broken")

    assert await call(HedgePrimitive(breaks, delay=1)) == "hedge"
    assert only_this_task()
    gc.collect()
    assert caplog.records == []


@virtual
async def test_results_that_nobody_gets_are_closed_once(clock):
    """Of three that come at the same time, two are closed."""
    connections = [Connection(), Connection(), Connection()]
    runs = Runs(*((1, connection) for connection in connections))
    winner = await call(HedgePrimitive(runs, delay=0, max_hedges=2))
    assert winner is connections[0]
    assert [connection.closed for connection in connections] == [0, 1, 1]
    assert clock.elapsed == 1


@virtual
async def test_a_result_that_all_share_is_not_closed(clock):
    """Two executions may return one object."""
    shared = Connection()
    hedge = HedgePrimitive(Runs((1, shared)), delay=0, max_hedges=2)
    assert await call(hedge) is shared
    assert shared.closed == 0


@virtual
async def test_a_late_result_of_a_loser_is_closed(clock):
    """One that swallowed its cancellation and returned something."""
    late, log = Connection(), []

    async def stubborn(value):
        log.append(value)
        if len(log) == 2:
            return "hedge"
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return late

    assert await call(HedgePrimitive(stubborn, delay=1)) == "hedge"
    assert late.closed == 1


@pytest.mark.parametrize("when", ["losers end", "losers are closed"])
@virtual
async def test_an_answer_that_is_not_delivered_any_more_is_closed(clock, when):
    """The caller is cancelled after the decision: each result is closed once."""
    takes = 5 if when == "losers are closed" else 0
    winner, loser = Connection(), Connection(takes)
    log = []

    async def work(value):
        log.append(value)
        if len(log) == 2:
            return winner
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        if when == "losers end":
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(5)
        return loser

    task = asyncio.create_task(call(HedgePrimitive(work, delay=1)))
    await asyncio.sleep(3)
    assert winner.closed == 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    assert (winner.closed, loser.closed, clock.elapsed) == (1, 1, 3)
    assert only_this_task()


@virtual
async def test_all_results_are_closed_although_closing_one_is_cancelled(clock):
    """Of three at one instant, the winner too: nobody gets it any more."""
    connections = [Connection(), Connection(takes=5), Connection(takes=5)]
    runs = Runs(*((1, connection) for connection in connections))
    task = asyncio.create_task(call(HedgePrimitive(runs, delay=0, max_hedges=2)))
    await asyncio.sleep(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    assert [connection.closed for connection in connections] == [1, 1, 1]
    assert clock.elapsed == 2 + 5


@virtual
async def test_case_86_a_call_that_is_not_eligible_is_executed_once(clock, events):
    """`hedge_if` gets the input, or the input and the context; sync or async."""

    async def later(value):
        return value == "yes"

    for gate in (
        lambda value: value == "yes",
        lambda value, context: value == "yes" and context.tags == {},
        later,
    ):
        runs = Runs((60, "a"))
        hedge = HedgePrimitive(runs, delay=1, hedge_if=gate)
        assert await call(hedge, "no") == "a"
        assert len(runs.begun) == 1
        assert await call(hedge, "yes") == "a"
        assert len(runs.begun) == 3
        assert hedge.stats.skipped == 1
    assert events.detail("hedge.skipped") == [{"reason": "not_eligible"}] * 3


@virtual
async def test_case_86_without_budget_a_call_is_executed_once(clock, events):
    """Calls are counted once, and each hedge takes one retry of the allowance."""
    budget = RetryBudget(ratio=0.1, min_retries=2, window=1000)
    runs = Runs((3, "a"))
    hedge = HedgePrimitive(runs, delay=1, max_hedges=2, budget=budget)
    assert [await call(hedge) for _ in range(3)] == ["a"] * 3
    assert len(runs.begun) == 3 + 2
    assert budget.remaining() == 0
    assert events.detail("hedge.skipped") == [{"reason": "budget"}] * 2
    assert hedge.stats == HedgeStats(calls=3, hedges=2, wins=0, skipped=2, delay=1.0)


@virtual
async def test_each_call_adds_to_the_budget(clock):
    """With a ratio of a half, every second call may be hedged."""
    budget = RetryBudget(ratio=0.5, min_retries=0, window=1000)
    hedge = HedgePrimitive(Runs((3, "a")), delay=1, budget=budget)
    hedges = []
    for _ in range(4):
        await call(hedge)
        hedges.append(hedge.stats.hedges)
    assert hedges == [0, 1, 1, 2]


@virtual
async def test_case_86_a_failure_without_budget_is_the_answer(clock):
    """The very error, at once, without a note: no hedge has failed."""
    boom = Boom("own")
    budget = RetryBudget(min_retries=0, ratio=0.001)
    hedge = HedgePrimitive(Runs((1, boom)), delay=5, budget=budget)
    with pytest.raises(Boom, match=exactly(boom)) as caught:
        await call(hedge)
    assert caught.value is boom
    assert not hasattr(boom, "__notes__")
    assert clock.elapsed == 1


@virtual
async def test_a_call_asks_an_exhausted_budget_once(clock):
    """A later failure does not ask again: there is no hedge for this call."""
    budget = RetryBudget(min_retries=0, ratio=0.001)
    runs = Runs((3, Boom()))
    hedge = HedgePrimitive(runs, delay=1, max_hedges=2, budget=budget)
    with pytest.raises(Boom, match="boom"):
        await call(hedge)
    assert (hedge.stats.skipped, len(runs.begun)) == (1, 1)


@virtual
async def test_rule_07_what_is_not_idempotent_is_never_hedged(clock, events):
    """Neither when it is slow nor when it fails; nor beside such an alternative."""
    runs = Runs((60, "paid"), (0, Boom()))
    charge = step(idempotent=False)(runs)
    hedge = HedgePrimitive(charge, delay=0)
    assert await call(hedge) == "paid"
    with pytest.raises(Boom, match="boom"):
        await call(hedge)
    assert len(runs.begun) == 2
    other = HedgePrimitive(Runs((9, "a")), delay=0, alternatives=[charge])
    assert await call(other) == "a"
    assert len(runs.begun) == 2
    assert not hedge.idempotent
    assert events.detail("hedge.skipped") == [{"reason": "not_idempotent"}] * 3


@virtual
async def test_a_failure_does_not_beat_a_later_success(clock):
    """Neither of the primary nor of a hedge."""
    for first, second in [((5, Boom()), (9, "late")), ((9, "late"), (2, Boom()))]:
        runs = Runs(first, second)
        began = clock.elapsed
        hedge = HedgePrimitive(runs, delay=1)
        assert await call(hedge) == "late"
        assert clock.elapsed - began in (9, 10)


@virtual
async def test_a_failure_does_not_beat_a_success_of_the_same_instant(clock):
    """The failure is heard of first."""
    assert await call(HedgePrimitive(Runs((2, Boom()), (1, "ok")), delay=1)) == "ok"
    assert clock.elapsed == 2


@virtual
async def test_after_a_failure_the_next_execution_starts_at_once(clock, events):
    """There is nothing to wait for; the one after it has its delay again."""
    runs = Runs((1, Boom()), (60, "second"), (3, "third"))
    hedge = HedgePrimitive(runs, delay=5, max_hedges=2)
    assert await call(hedge) == "third"
    assert runs.begun == [0, 1, 6]
    assert clock.elapsed == 9
    assert [d["delay"] for d in events.detail("hedge.started")] == [1, 5]


@virtual
async def test_if_all_fail_the_primarys_own_error_is_raised(clock):
    """That very object, although a hedge failed later, with one note on the others."""
    own = Boom("own")
    runs = Runs((2, own), (1, ValueError("second")), (4, OSError("third")))
    hedge = HedgePrimitive(runs, delay=0.5, max_hedges=2)
    with pytest.raises(Boom, match=exactly(own)) as caught:
        await call(hedge)
    assert caught.value is own
    assert own.__context__ is own.__cause__ is None
    (note,) = own.__notes__
    assert note.splitlines() == [
        "hedge: its hedges failed as well:",
        "  1. ValueError('second')",
        "  2. OSError('third')",
    ]


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """An error that refuses to be changed."""

    code: int


class Empty(Exception):
    """An error that is false."""

    def __len__(self):
        return 0


@virtual
async def test_an_error_may_be_false(clock):
    """It is raised like any other."""
    with pytest.raises(Empty, match="its hedges failed as well"):
        await call(HedgePrimitive(Runs((0, Empty())), delay=1))


@pytest.mark.parametrize("error", [Frozen(1), Boom("again")], ids=["frozen", "plain"])
@virtual
async def test_the_note_on_one_error_is_replaced(clock, error):
    """One instance that is raised again and again has one note, the last."""
    error.__dict__.setdefault("__notes__", []).append("the user's")
    for number in range(3):
        runs = Runs((0, error), (0, ValueError(number)))
        with pytest.raises(type(error), match=r"."):
            await call(HedgePrimitive(runs, delay=1))
        assert error.__notes__ == [
            "the user's",
            f"hedge: its hedges failed as well:\n  1. ValueError({number})",
        ]
    with pytest.raises(type(error), match=r"."):
        await call(HedgePrimitive(Runs((0, error)), delay=1, hedge_on=OSError))
    assert error.__notes__ == ["the user's"]


@virtual
async def test_the_history_of_a_retry_stays_beside_the_note(clock):
    """A retry inside and a retry outside write notes of their own."""
    inner = RetryPrimitive(Runs((0, Boom())), max_retries=1, initial_delay=0)
    outer = RetryPrimitive(HedgePrimitive(inner, delay=5), max_retries=1)
    with pytest.raises(Boom, match="boom") as caught:
        await call(outer)
    first, second = caught.value.__notes__
    assert first.startswith("retry/hedge/retry gave up after 2 attempts")
    assert second.startswith("retry/hedge: its hedges failed as well:\n  1. Boom(")


@virtual
async def test_an_error_that_is_not_to_be_hedged_is_the_answer(clock):
    """Of the primary before any hedge, and of either while both run."""
    wrong = ValueError("wrong")
    for hedge_on in (Boom, (Boom, OSError), lambda error: isinstance(error, Boom)):
        for runs in (Runs((1, wrong)), Runs((60, "late"), (1, wrong))):
            hedge = HedgePrimitive(runs, delay=3, hedge_on=hedge_on)
            with pytest.raises(ValueError, match="wrong") as caught:
                await call(hedge)
            assert caught.value is wrong
            assert (runs.at_work, hedge.stats.wins) == (0, 0)
        runs = Runs((1, Boom()), (1, "second"))
        assert await call(HedgePrimitive(runs, delay=3, hedge_on=hedge_on)) == "second"
    assert not hasattr(wrong, "__notes__")


@virtual
async def test_a_predicate_that_fails_fails_the_call(clock):
    """It runs in the caller's task, and nothing is left running."""

    def broken(error):
        raise LookupError("broken predicate")

    runs = Runs((60, "late"), (1, Boom()))
    with pytest.raises(LookupError, match="broken predicate"):
        await call(HedgePrimitive(runs, delay=1, hedge_on=broken))
    assert (runs.ends, clock.elapsed) == ([(1, "failed"), (0, "cancelled")], 2)
    assert only_this_task()


@virtual
async def test_rule_02_a_cancellation_is_never_hedged(clock):
    """Whatever the filter says: an execution that is cancelled has no vote."""
    runs = Runs((1, asyncio.CancelledError()), (1, "second"))
    for hedge_on in (BaseException, lambda error: True):
        task = asyncio.create_task(
            call(HedgePrimitive(runs, delay=9, hedge_on=hedge_on))
        )
        await asyncio.wait([task])
        assert task.cancelled()
        runs.begun.clear()
        runs.ends.clear()


@virtual
async def test_rule_02_a_primary_that_is_cancelled_ends_the_call(clock):
    """That is what the caller would have seen without a hedge."""
    runs = Runs((3, asyncio.CancelledError()), (60, "second"))
    task = asyncio.create_task(call(HedgePrimitive(runs, delay=1)))
    await asyncio.wait([task])
    assert task.cancelled()
    assert (clock.elapsed, runs.at_work, len(runs.begun)) == (3, 0, 2)


@virtual
async def test_rule_02_a_hedge_that_was_cancelled_has_no_vote(clock):
    """By itself or by somebody else; the primary goes on, and no other hedge starts."""
    runs = Runs((9, "first"), (1, asyncio.CancelledError()), (1, "third"))
    assert await call(HedgePrimitive(runs, delay=1)) == "first"
    assert clock.elapsed == 9
    boom = Boom("own")
    runs = Runs((3, boom), (1, asyncio.CancelledError()))
    with pytest.raises(Boom, match="own") as caught:
        await call(HedgePrimitive(runs, delay=1))
    assert caught.value.__notes__ == [
        "hedge: its hedges failed as well:\n  1. it was cancelled"
    ]


@pytest.mark.parametrize("began", [True, False])
@virtual
async def test_an_execution_that_somebody_cancels_does_not_hang_the_call(clock, began):
    """Not even if it is cancelled before its first step."""
    runs = Runs((60, "late"))
    task = asyncio.create_task(call(HedgePrimitive(runs, delay=99)))
    await asyncio.sleep(0)
    if began:
        await asyncio.sleep(1)
    (primary,) = asyncio.all_tasks() - {task, asyncio.current_task()}
    primary.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert clock.elapsed == int(began)


@virtual
async def test_a_cancellation_in_disguise_is_no_failure(clock):
    """Somebody cancels the primary's task, and it reports a broken connection."""
    log = []

    async def driver(value):
        log.append(value)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("broken") from None

    task = asyncio.create_task(call(HedgePrimitive(driver, delay=99)))
    await asyncio.sleep(1)
    (primary,) = asyncio.all_tasks() - {task, asyncio.current_task()}
    primary.cancel()
    await asyncio.wait([task])
    assert isinstance(task.exception(), OSError)
    assert (log, clock.elapsed) == (["x"], 1)


@virtual
async def test_rule_05_no_hedge_is_started_that_the_deadline_leaves_no_time_for(
    clock, events
):
    """It would begin at the deadline or later; a failure before it still starts one."""
    for deadline, begun in [(5, 1), (5.001, 2)]:
        runs = Runs((60, "a"))
        context = WorkflowContext(deadline=clock.elapsed + deadline)
        assert await call(HedgePrimitive(runs, delay=5), context=context) == "a"
        assert len(runs.begun) == begun
    assert events.detail("hedge.skipped") == [{"reason": "deadline"}]
    # The one that could not begin had no timer either.
    assert len([wait for wait in clock.sleeps if wait.kind == "timer"]) == 1
    runs = Runs((1, Boom()), (1, "second"))
    context = WorkflowContext(deadline=clock.elapsed + 5)
    assert await call(HedgePrimitive(runs, delay=9), context=context) == "second"
    runs = Runs((5, Boom()), (1, "second"))
    context = WorkflowContext(deadline=clock.elapsed + 5)
    with pytest.raises(Boom, match="boom"):
        await call(HedgePrimitive(runs, delay=9), context=context)


@virtual
async def test_an_outer_limit_ends_all_executions(clock):
    """It is a timeout, and nothing runs after it."""
    runs = Runs((60, "a"))
    limited = TimeoutPrimitive(HedgePrimitive(runs, delay=1), timeout_seconds=5)
    with pytest.raises(TimeoutExceededError, match="timeout/hedge took longer than 5"):
        await call(limited)
    assert (runs.at_work, len(runs.begun), clock.elapsed) == (0, 2, 5)
    assert asyncio.current_task().cancelling() == 0
    assert only_this_task()


@virtual
async def test_an_inner_limit_bounds_each_execution(clock):
    """Its timeout is a failure like any other."""
    runs = Runs((60, "slow"), (60, "slow"), (1, "quick"))
    inner = TimeoutPrimitive(runs, timeout_seconds=3)
    assert await call(HedgePrimitive(inner, delay=2, max_hedges=2)) == "quick"
    assert runs.begun == [0, 2, 3]
    assert clock.elapsed == 4


@virtual
async def test_alternatives_are_executed_by_hedges(clock):
    """Hedge n takes the nth, and after the last the first again."""
    asked = []

    def region(name, takes):
        async def ask(value):
            asked.append(name)
            await asyncio.sleep(takes)
            return name

        return step(name=name)(ask)

    hedge = HedgePrimitive(
        region("east", 60),
        delay=1,
        max_hedges=3,
        alternatives=[region("west", 60), region("north", 60)],
    )
    context = WorkflowContext()
    assert await call(hedge, context=context) == "east"
    assert asked == ["east", "west", "north", "west"]
    quick = HedgePrimitive(
        region("east", 60), delay=1, alternatives=[region("west", 2)]
    )
    assert await call(quick, context=context) == "west"
    assert context.outcomes == {"hedge": HedgeOutcome(1, "west")}
    assert [child.name for child in hedge.children()] == ["east", "west", "north"]


class Keys(WorkflowPrimitive):
    """A primitive that notes its path and its idempotency key, and takes a while."""

    def __init__(self, seen, takes=60):
        self._seen = seen
        self.takes = takes

    async def execute(self, input_data, context):
        self._seen.append((context.path, context.idempotency_key))
        await asyncio.sleep(self.takes)
        return context.path


@virtual
async def test_rule_07_executions_of_one_call_see_the_same_key(clock):
    """They are one operation; another call, or another primitive, has its own."""
    seen = []
    hedge = HedgePrimitive(Keys(seen), delay=1, max_hedges=2)
    context = WorkflowContext()
    for _ in range(2):
        await call(hedge, context=context)
    assert [path for path, _ in seen] == ["hedge/keys"] * 6
    first, second = {key for _, key in seen[:3]}, {key for _, key in seen[3:]}
    assert len(first) == len(second) == 1
    assert first != second
    assert None not in first | second
    seen.clear()
    other = HedgePrimitive(Keys(seen), delay=1, alternatives=[Keys(seen, 1)])
    assert await call(other) == "hedge/keys#2"
    assert [path for path, _ in seen] == ["hedge/keys", "hedge/keys#2"]
    assert len({key for _, key in seen}) == 2


@virtual
async def test_rule_07_attempts_of_an_outer_retry_repeat_the_keys(clock):
    """Four executions of one order: two attempts of two."""
    seen = []

    class Fails(Keys):
        async def execute(self, input_data, context):
            await super().execute(input_data, context)
            raise Boom

    hedge = HedgePrimitive(Fails(seen, takes=3).named("keys"), delay=1)
    retried = RetryPrimitive(hedge, max_retries=1, initial_delay=0)
    with pytest.raises(Boom, match="boom"):
        await call(retried, context=WorkflowContext(idempotency_key="order 7"))
    assert len(seen) == 4
    assert len(set(seen)) == 1


@virtual
async def test_retries_inside_count_their_executions_alike(clock):
    """A step that runs twice in each execution has the same two keys in both."""
    seen = []
    twice = Keys(seen, 1) >> RetryPrimitive(Keys(seen, 9)) >> RetryPrimitive(Keys(seen))
    await call(HedgePrimitive(twice, delay=100, hedge_on=Boom))
    single = list(seen)
    seen.clear()
    await call(HedgePrimitive(twice, delay=2))
    half = len(single)
    assert len(seen) == 2 * half
    assert sorted(path for path, _ in seen) == sorted(2 * [path for path, _ in single])
    assert len({key for _, key in seen}) == half


@virtual
async def test_executions_run_in_tasks_that_say_where(clock):
    """Their names are paths; the caller's context variables are copied for each."""
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    async def looks(value):
        seen.append((asyncio.current_task().get_name(), variable.get()))
        variable.set("changed")
        await asyncio.sleep(5)

    variable.set("the caller's")
    chain = (step(str) >> HedgePrimitive(looks, delay=1)).named("answer")
    await call(chain)
    assert seen == [
        ("answer/hedge/looks", "the caller's"),
        ("answer/hedge/looks, hedge 1", "the caller's"),
    ]
    assert variable.get() == "the caller's"


def test_siblings_are_told_apart_in_a_trace():
    """The second execution of a path is `path@2`, and an alternative has its own."""
    llm, west = step(name="llm")(Script("42", takes=3)), Script("43", takes=1.5)
    with Harness() as tta:
        assert tta.run(HedgePrimitive(llm, delay=1), "x") == "42"
        assert [
            (f"{span.path}@{span.execution}", span.status) for span in tta.trace.spans
        ] == [
            ("hedge@1", "ok"),
            ("hedge/llm@1", "ok"),
            ("hedge/llm@2", "cancelled"),
        ]
    with Harness() as tta:
        hedge = HedgePrimitive(llm, delay=1, alternatives=[west])
        assert tta.run(hedge, "x") == "43"
        assert tta.trace == S(
            "hedge", S("llm", status="cancelled"), S("script", status="ok")
        )


@virtual
async def test_a_hit_of_a_cache_inside_is_not_hedged(clock):
    """Nor is anything that answers without waiting."""
    runs = Runs((3, "a"))
    hedge = HedgePrimitive(CachePrimitive(runs, ttl=60), delay=1)
    assert [await call(hedge) for _ in range(3)] == ["a"] * 3
    # The two executions of the first call have shared one load.
    assert len(runs.begun) == 1


@virtual
async def test_a_fallback_answers_when_all_executions_have_failed(clock):
    """It gets the primary's error."""
    own = Boom("own")
    hedge = HedgePrimitive(Runs((1, own), (1, Boom("other"))), delay=5)
    context = WorkflowContext()
    answered = FallbackPrimitive(hedge, ["cached"])
    assert await call(answered, context=context) == "cached"
    assert context.outcomes["fallback"].errors == (own,)


@virtual
async def test_stats_count_calls_hedges_and_wins(clock):
    """A copy under another name counts together with the original."""
    runs = Runs((9, "a"), (9, "b"), (9, "c"), (1, "d"))
    hedge = HedgePrimitive(runs, delay=1)
    assert hedge.stats == HedgeStats(calls=0, hedges=0, wins=0, skipped=0, delay=1.0)
    assert [await call(one) for one in (hedge, hedge.named("other"))] == ["a", "d"]
    assert hedge.stats == HedgeStats(calls=2, hedges=2, wins=1, skipped=0, delay=1.0)
    asked = HedgePrimitive(Script("ok"), delay=lambda number: 1)
    assert asked.stats.delay is None


@virtual
async def test_an_open_hedge_wraps_what_follows(clock):
    """What it has counted and observed belongs to the bound copy."""
    opened = HedgePrimitive(delay=Quantile(0.5, minimum_calls=1))
    one, other = opened >> Runs((2, "a")), opened >> Runs((2, "a"))
    await call(one)
    assert [each.steps[0].stats.delay for each in (one, other)] == [2.0, None]
    for use in (
        lambda: call(opened),
        lambda: anext(opened.stream("x", WorkflowContext())),
    ):
        with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
            await use()
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        _ = opened.stats


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"delay": -1}, ValueError, "delay=-1 must be a non-negative number of sec"),
        ({"delay": None}, TypeError, "delay=None must be a non-negative number of"),
        ({"delay": True}, TypeError, "delay=True must be a non-negative number of"),
        ({"delay": float}, TypeError, "delay=<class 'float'> must be a non-negative"),
        ({"max_hedges": 0}, ValueError, "max_hedges=0 must be a whole number of at"),
        ({"max_hedges": True}, ValueError, "max_hedges=True must be a whole number"),
        ({"hedge_on": 429}, TypeError, "hedge_on=429 must be an exception type"),
        ({"hedge_if": True}, TypeError, "hedge_if=True must be a function"),
        (
            {"hedge_if": lambda value, context, more: True},
            TypeError,
            r"must be f\(input\) or f\(input, context\), and wants more",
        ),
        ({"budget": 0.2}, TypeError, "budget=0.2 must be a RetryBudget or None"),
        ({"alternatives": str}, TypeError, "alternatives=<class 'str'> must be a list"),
        (
            {"alternatives": []},
            ValueError,
            "alternatives has 0, and must have at least",
        ),
        (
            {"alternatives": [str, str]},
            ValueError,
            "alternatives has 2, and must have at least 1 and at most max_hedges=1",
        ),
        ({"alternatives": ["x"]}, TypeError, "'x' cannot be a step of a workflow"),
    ],
)
def test_wrong_options_are_refused_at_construction(options, error, message):
    """The message names the parameter, shows the value and says what is allowed."""
    with pytest.raises(error, match=message):
        HedgePrimitive(Script("ok"), **{"delay": 1, **options})


def test_case_93_it_describes_itself():
    """The delay always, the rest if it is not the usual; alternatives are children."""
    plain = HedgePrimitive(Script("ok"), delay=2)
    assert repr(plain) == "<HedgePrimitive 'script' delay=2.0>"
    other = HedgePrimitive(
        step(str), delay=Quantile(0.95), max_hedges=2, alternatives=[Script("ok")]
    )
    described = other.describe()
    assert described["options"] == {
        "delay": "<Quantile>",
        "max_hedges": 2,
    }
    assert [child["name"] for child in described["children"]] == ["str", "script"]
    assert repr(other) == (
        "<HedgePrimitive 'str' delay=Quantile(0.95, minimum_calls=20, window=600) "
        "max_hedges=2>"
    )


async def fails(value):
    """Fail with a new error each time."""
    await asyncio.sleep(1)
    raise Boom


class Alternating:
    """Slow or failing at first, quick the second time."""

    __name__ = "alternating"

    def __init__(self, first):
        self.first = first
        self.calls = 0

    async def __call__(self, value):
        self.calls += 1
        if self.calls % 2 and self.first == "fails":
            raise Boom
        await asyncio.sleep(60 if self.calls % 2 else 1)


@pytest.mark.parametrize(
    "step",
    [
        fails,
        Alternating("fails"),
        Alternating("hangs"),
        lambda value: asyncio.sleep(60),
        lambda value: asyncio.sleep(0),
    ],
    ids=["all fail", "hedge after failure", "hedge wins", "cancelled", "plain"],
)
@virtual
async def test_no_end_leaves_cyclic_garbage(clock, step):
    """After 100 calls with the collector off there is nothing to collect."""
    hedge = HedgePrimitive(step, delay=2, max_hedges=1)

    async def many(times):
        for _ in range(times):
            task = asyncio.create_task(call(hedge))
            await asyncio.wait([task], timeout=30)
            task.cancel()
            with suppress(Boom, asyncio.CancelledError):
                await task
            del task

    await many(2)
    await asyncio.sleep(0)
    with only_new_garbage():
        await many(100)
        await asyncio.sleep(0)
        assert gc.collect() == 0


def test_case_97_a_call_in_flight_holds_little_memory():
    """Beside the task of its execution it holds little for each of many calls."""

    async def waits(value):
        await asyncio.get_running_loop().create_future()

    async def held(execute, count=500):
        tasks = [asyncio.create_task(execute("x")) for _ in range(10)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tasks += [asyncio.create_task(execute("x")) for _ in range(count)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        size = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return size / count

    async def measure():
        hedge = HedgePrimitive(waits, delay=10_000)
        context = WorkflowContext()

        async def in_a_task(value):
            timer = asyncio.get_running_loop().call_later(10_000, print)
            try:
                await asyncio.create_task(waits(value))
            finally:
                timer.cancel()

        async def ours(value):
            await hedge.execute(value, context)

        # Tables of tasks and timers grow once, for as many as there are at a time.
        await held(ours)
        return await held(ours) - await held(in_a_task)

    with only_new_garbage():
        assert asyncio.run(measure()) <= 1792
