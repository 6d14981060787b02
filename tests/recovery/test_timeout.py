"""Timeout: whose limit it was, what is cancelled, and what travels down."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.recovery.doubles import CANCELLED, Boom, Script, chunks_of, virtual
from tests.recovery.doubles import Stream as Chunks
from tta_primitives import (
    ParallelPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    step,
)
from tta_primitives.errors import OpenWrapperError, TimeoutExceededError
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import FallbackOutcome, RetryPrimitive, TimeoutPrimitive


def limited(primitive, limit=5, **options):
    """Return a timeout around a primitive."""
    return TimeoutPrimitive(primitive, timeout_seconds=limit, **options)


@virtual
async def test_a_result_in_time_comes_out(clock):
    """The limit is nothing to a step that keeps it, and leaves no timer."""
    assert await limited(Script("ok", takes=4)).execute("x", WorkflowContext()) == "ok"
    assert await limited(Script("ok")).execute("x", WorkflowContext()) == "ok"
    assert clock.elapsed == 4
    timers = [wait for wait in clock.sleeps if wait.kind != "sleep"]
    assert [(timer.delay, timer.cancelled) for timer in timers] == [(5, True)]


@virtual
async def test_case_25_the_steps_own_timeout_error_passes_unchanged(clock, events):
    """It is that very object, and no timeout is told."""
    own = TimeoutError("mine")
    for takes in (0, 1):
        with pytest.raises(TimeoutError, match="mine") as caught:
            await limited(Script(own, takes=takes)).execute("x", WorkflowContext())
        assert caught.value is own
    assert events.seen == []


@virtual
async def test_case_26_an_expired_timeout_leaves_the_task_usable(clock, events):
    """It is a TimeoutError, nothing stays cancelled, and a TaskGroup works after it."""
    with pytest.raises(
        TimeoutError, match="timeout/script took longer than 5 s"
    ) as caught:
        await limited(Script("ok", takes=60)).execute("x", WorkflowContext())
    assert type(caught.value) is TimeoutExceededError
    assert caught.value.timeout_seconds == 5
    assert asyncio.current_task().cancelling() == 0
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(1, "fine"))
    assert task.result() == "fine"
    assert clock.elapsed == 6
    assert events.seen == [("timeout.expired", {"limit": 5})]


@virtual
async def test_case_26_the_cause_shows_where_the_step_was_waiting(clock):
    """The traceback of the cancellation ends in the line that hung."""
    with pytest.raises(TimeoutExceededError, match="took longer than") as caught:
        await limited(Script("ok", takes=60)).execute("x", WorkflowContext())
    cause = caught.value.__cause__
    assert isinstance(cause, asyncio.CancelledError)
    frames = []
    trace = cause.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "__call__" in frames


@virtual
async def test_case_28_a_cancellation_from_outside_stays_one(clock):
    """A cancelled step under a timeout is cancelled, not timed out."""
    for at in (1, 5):
        task = asyncio.create_task(
            limited(Script("ok", takes=60)).execute("x", WorkflowContext())
        )
        asyncio.get_running_loop().call_later(at, task.cancel)
        with pytest.raises(asyncio.CancelledError, match=CANCELLED):
            await task
        assert task.cancelled()


@pytest.mark.parametrize("order", ["before", "after"])
@virtual
async def test_rule_04_an_outer_cancellation_at_the_same_instant_wins(clock, order):
    """Whichever callback runs first, the task is cancelled and not timed out."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(
        limited(Script("ok", takes=60)).execute("x", WorkflowContext())
    )
    if order == "before":
        loop.call_at(5, task.cancel)
    await asyncio.sleep(0)
    if order == "after":
        loop.call_at(5, task.cancel)
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    assert clock.elapsed == 5


@virtual
async def test_case_30_a_step_that_ignores_its_cancellation_keeps_its_result(
    clock, events
):
    """The value is returned, and the event says that the limit was ignored."""

    async def stubborn(value):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return 1

    assert await limited(stubborn).execute("x", WorkflowContext()) == 1
    assert asyncio.current_task().cancelling() == 0
    assert events.seen == [("timeout.ignored", {"limit": 5})]


@virtual
async def test_case_30_a_step_that_goes_on_waiting_is_waited_for(clock):
    """After an ignored cancellation further waits work as usual."""

    async def stubborn(value):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(2)
            await asyncio.sleep(3)
        return "late"

    assert await limited(stubborn).execute("x", WorkflowContext()) == "late"
    assert clock.elapsed == 10


@virtual
async def test_an_error_during_cleanup_passes(clock, events):
    """What a cancelled step raises instead is its own error."""

    async def breaks(value):
        try:
            await asyncio.sleep(60)
        finally:
            raise Boom

    with pytest.raises(Boom, match="boom"):
        await limited(breaks).execute("x", WorkflowContext())
    assert asyncio.current_task().cancelling() == 0
    assert events.names == ["timeout.ignored"]


@virtual
async def test_case_31_cleanup_is_awaited_before_the_error(clock):
    """No task is abandoned: what finally awaits has ended when the error comes out."""
    log = []

    async def tidy(value):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)
            log.append("tidied")

    with pytest.raises(TimeoutExceededError, match="took longer than"):
        await limited(tidy).execute("x", WorkflowContext())
    assert log == ["tidied"]
    assert clock.elapsed == pytest.approx(5.02, abs=1e-9)


@pytest.mark.parametrize("suspends", [False, True])
@virtual
async def test_case_32_a_step_that_holds_the_loop_is_told_of(clock, events, suspends):
    """The value is returned, and the excess is reported."""

    async def blocks(value):
        if suspends:
            await asyncio.sleep(1)
        clock.block(6.5)
        return "done"

    assert await limited(blocks).execute("x", WorkflowContext()) == "done"
    excess = 2.5 if suspends else 1.5
    assert events.seen == [("timeout.overrun", {"limit": 5, "excess": excess})]


@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (0, ValueError, "timeout_seconds=0 must be a positive number of seconds"),
        (-1, ValueError, "timeout_seconds=-1 must be a positive number of seconds"),
        (float("inf"), ValueError, "timeout_seconds=inf must be a positive number"),
        (True, TypeError, "timeout_seconds=True must be a positive number"),
        ("5", TypeError, "timeout_seconds='5' must be a positive number"),
        (None, TypeError, "timeout_seconds=None must be a positive number"),
    ],
)
def test_case_34_wrong_limits_are_refused_at_construction(limit, error, message):
    """The message names the parameter, shows the value and says what is allowed."""
    with pytest.raises(error, match=message):
        limited(Script("ok"), limit)


@pytest.mark.parametrize("asked", [0, -3, -0.5, timedelta(0)])
@virtual
async def test_case_34_no_time_at_run_time_is_a_timeout_without_a_call(clock, asked):
    """A limit that is computed may be used up before the start."""
    llm = Script("ok")
    with pytest.raises(TimeoutExceededError, match="had no time left to start"):
        await limited(llm, lambda value, context: asked).execute("x", WorkflowContext())
    assert (llm.calls, clock.elapsed) == (0, 0)


@virtual
async def test_the_limit_may_depend_on_the_input(clock):
    """A function of input and context gives seconds or a timedelta."""
    slow = limited(Script("ok", takes=60), lambda seconds, context: seconds)
    for asked in (3, timedelta(seconds=4)):
        with pytest.raises(TimeoutExceededError, match="took longer than"):
            await slow.execute(asked, WorkflowContext())
    assert clock.elapsed == 7
    for nonsense in ("soon", None, True):
        with pytest.raises(
            TypeError, match=rf"timeout_seconds\(input, context\)={nonsense!r}"
        ):
            await slow.execute(nonsense, WorkflowContext())


@virtual
async def test_case_35_an_earlier_deadline_in_the_context_counts(clock):
    """With 1 s left, a limit of 30 s is 1 s."""
    with pytest.raises(TimeoutExceededError, match="longer than 1 s") as caught:
        await limited(Script("ok", takes=60), 30).execute(
            "x", WorkflowContext(deadline=1)
        )
    assert (clock.elapsed, caught.value.timeout_seconds) == (1, 1)


@virtual
async def test_case_35_a_deadline_that_has_passed_leaves_no_call(clock):
    """Nothing is begun after the deadline."""
    llm = Script("ok")
    with pytest.raises(TimeoutExceededError, match="had no time left to start"):
        await limited(llm).execute("x", WorkflowContext(deadline=0))
    assert llm.calls == 0


class Reads(WorkflowPrimitive):
    """A primitive that returns the deadline it sees."""

    async def execute(self, input_data, context):
        return context.deadline


@virtual
async def test_rule_05_the_deadline_travels_and_the_callers_context_stays(clock):
    """What is inside sees the earliest deadline; the caller's view has none."""
    context = WorkflowContext()
    for workflow in (
        limited(limited(Reads(), 30), 5),
        limited(limited(Reads(), 5), 30),
        limited(step(str) >> Reads()),
        limited(RetryPrimitive(Reads())),
    ):
        assert await workflow.execute("x", context) == 5
    assert context.deadline is None


@virtual
async def test_case_h02_of_two_limits_at_one_instant_the_outer_wins(clock):
    """The inner does not answer for the outer, whichever timer was armed first."""
    inner = limited(Script("ok", takes=60), 5, fallback="inner")
    outer = TimeoutPrimitive(inner, timeout_seconds=5)
    with pytest.raises(
        TimeoutExceededError, match="timeout/timeout took longer than 5 s"
    ):
        await outer.execute("x", WorkflowContext())
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize(
    "inner",
    [
        lambda slow: RetryPrimitive(slow, attempt_timeout=30, max_retries=1),
        lambda slow: limited(slow, 30),
        step(timeout_seconds=30),
    ],
    ids=["retry", "timeout", "step"],
)
@virtual
async def test_case_h02_an_inner_limit_in_another_task_leaves_the_end_to_the_outer(
    clock, events, inner
):
    """A branch whose time is that of the whole does not answer for the whole."""
    slow = Script("ok", takes=60)
    branches = ParallelPrimitive(step(str) | inner(slow), step(str))
    nested = ParallelPrimitive(step(str), branches)
    with pytest.raises(
        TimeoutExceededError, match="timeout/parallel took longer than 2 s"
    ):
        await limited(nested, 2).execute("x", WorkflowContext())
    attempts = RetryPrimitive(nested, attempt_timeout=2, max_retries=2, jitter="none")
    with pytest.raises(TimeoutExceededError, match="retry/parallel took longer"):
        await attempts.execute("x", WorkflowContext())
    assert (slow.calls, clock.elapsed) == (1 + 3, 2 + 6 + 1.5)
    assert [name for name in events.names if name.startswith("timeout")] == [
        "timeout.expired"
    ] * 4


@virtual
async def test_a_shared_load_keeps_its_own_limit_when_its_first_caller_is_late(clock):
    """Of two limits only that of the caller who has left is no longer its own."""
    slow = Script("ok", takes=60)
    cached = CachePrimitive(limited(slow, 8), ttl=60)
    first = asyncio.create_task(limited(cached, 2).execute("x", WorkflowContext()))
    second = asyncio.create_task(cached.execute("x", WorkflowContext()))
    await asyncio.wait([first, second])
    assert [type(task.exception()) for task in (first, second)] == [
        TimeoutExceededError
    ] * 2
    # The second caller had more time than the first, so that the load is repeated.
    assert (slow.calls, clock.elapsed) == (2, 16)


@virtual
async def test_a_callers_deadline_is_not_that_of_those_who_share_his_load(clock):
    """A load that ended with one caller's time is repeated for one who has more."""
    slow = Script("ok", takes=5)
    cached = CachePrimitive(limited(slow, 8), ttl=60)
    hurried = WorkflowContext(deadline=2)
    first = asyncio.create_task(cached.execute("x", hurried))
    second = asyncio.create_task(cached.execute("x", WorkflowContext()))
    await asyncio.wait([first, second])
    assert isinstance(first.exception(), TimeoutExceededError)
    assert (second.result(), slow.calls, clock.elapsed) == ("ok", 2, 7)


@virtual
async def test_limits_nest_with_those_of_asyncio(clock):
    """asyncio.timeout around or inside a TimeoutPrimitive expires as itself."""

    async def hangs_in_asyncios(value):
        async with asyncio.timeout(1):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError, match=r"^$") as caught:
        await limited(hangs_in_asyncios).execute("x", WorkflowContext())
    assert type(caught.value) is TimeoutError
    with pytest.raises(TimeoutError, match=r"^$") as caught:
        async with asyncio.timeout(1):
            await limited(Script("ok", takes=60)).execute("x", WorkflowContext())
    assert type(caught.value) is TimeoutError
    assert clock.elapsed == 2


@virtual
async def test_a_fallback_answers_when_the_time_is_up(clock, events):
    """A primitive, a function or a value; the outcome tells of it."""
    for fallback, answer in [(str.upper, "X"), (Script("b"), "b"), ("value", "value")]:
        context = WorkflowContext()
        slow = limited(Script("ok", takes=60), fallback=fallback)
        assert await slow.execute("x", context) == answer
        outcome = context.outcomes["timeout"]
        assert isinstance(outcome, FallbackOutcome)
        assert isinstance(outcome.errors[0], TimeoutExceededError)
    assert events.names == ["timeout.expired", "fallback.used"] * 3
    assert clock.elapsed == 15


@virtual
async def test_a_fallback_does_not_answer_for_a_limit_further_inside(clock):
    """Another limit that expired is an error like any other."""
    inner = limited(Script("ok", takes=60), 1)
    with pytest.raises(TimeoutExceededError, match="longer than 1 s"):
        await limited(inner, 5, fallback="outer").execute("x", WorkflowContext())


@virtual
async def test_a_fallback_has_the_callers_time(clock):
    """The expired deadline is not handed to it."""
    context = WorkflowContext(deadline=50)
    slow = limited(Script("ok", takes=60), fallback=Reads())
    assert await slow.execute("x", context) == 50


def test_an_open_timeout_with_a_fallback_is_refused():
    """It would change the type of what comes out of an operand not known yet."""
    with pytest.raises(ValueError, match="a timeout with a fallback cannot be open"):
        TimeoutPrimitive(timeout_seconds=1, fallback="x")


@virtual
async def test_an_open_timeout_wraps_what_follows(clock):
    """TimeoutPrimitive(timeout_seconds=5) >> step limits that step."""
    opened = TimeoutPrimitive(timeout_seconds=5)
    with pytest.raises(TimeoutExceededError, match="took longer than"):
        await (opened >> Script("ok", takes=60)).execute("x", WorkflowContext())
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        await opened.execute("x", WorkflowContext())


@virtual
async def test_a_stream_is_limited_as_a_whole(clock):
    """The limit counts from the start, and is found while waiting for a chunk."""
    stream = limited(Chunks(["a", 3.0, "b", 3.0, "c"]))
    seen, error = await chunks_of(stream, "x", WorkflowContext())
    assert (seen, type(error), clock.elapsed) == (["a", "b"], TimeoutExceededError, 5)


@virtual
async def test_a_stream_in_time_passes_whole(clock):
    """Nothing is lost and nothing is armed afterwards."""
    stream = limited(Chunks(["a", 2.0, "b"]))
    assert await chunks_of(stream, "x", WorkflowContext()) == (["a", "b"], None)


@virtual
async def test_a_slow_consumer_is_not_cancelled_at_its_own_work(clock):
    """Between two chunks the consumer's await is left alone; the next chunk is late."""
    seen = []
    stream = limited(Chunks(["a", "b", "c"])).stream("x", WorkflowContext())

    async def consume():
        async for chunk in stream:
            await asyncio.sleep(4)
            seen.append(chunk)

    with pytest.raises(TimeoutExceededError, match="longer than 5 s"):
        await consume()
    assert (seen, clock.elapsed) == (["a", "b"], 8)


@virtual
async def test_a_stream_without_a_chunk_in_time_is_answered_by_the_fallback(clock):
    """After the first chunk the error is raised instead."""
    silent = limited(Chunks([60.0, "a"]), fallback=Chunks(["b1", "b2"]))
    assert await chunks_of(silent, "x", WorkflowContext()) == (["b1", "b2"], None)
    begun = limited(Chunks(["a", 60.0]), fallback=Chunks(["b"]))
    seen, error = await chunks_of(begun, "x", WorkflowContext())
    assert (seen, type(error)) == (["a"], TimeoutExceededError)


@virtual
async def test_a_timed_out_stream_is_closed(clock):
    """The generator's finally has run when the error comes out."""
    log = []

    async def source(value):
        try:
            yield "a"
            await asyncio.sleep(60)
        finally:
            log.append("closed")

    _, error = await chunks_of(limited(source), "x", WorkflowContext())
    assert (type(error), log) == (TimeoutExceededError, ["closed"])


@virtual
async def test_an_abandoned_stream_is_closed(clock):
    """A consumer that stops early closes everything below."""
    log = []

    async def source(value):
        try:
            yield "a"
            yield "b"
        finally:
            log.append("closed")

    stream = limited(source).stream("x", WorkflowContext())
    assert await anext(stream) == "a"
    await stream.aclose()
    assert log == ["closed"]


@pytest.mark.parametrize("start", [asyncio.create_task, asyncio.ensure_future])
@virtual
async def test_execute_is_a_coroutine_that_tasks_accept(clock, start):
    """create_task and TaskGroup take it on every interpreter."""
    slow = limited(Script("ok", takes=1))
    assert await start(slow.execute("x", WorkflowContext())) == "ok"
    async with asyncio.TaskGroup() as group:
        task = group.create_task(slow.execute("x", WorkflowContext()))
    assert task.result() == "ok"


def test_waiting_outside_of_a_task_is_one_clear_error():
    """A limit needs a task to cancel."""

    async def waits(value):
        await asyncio.sleep(1)

    coroutine = limited(waits).execute("x", WorkflowContext())

    async def drive():
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(send, done)
        await done

    def send(done):
        with pytest.raises(RuntimeError, match="works only inside a task"):
            coroutine.send(None)
        done.set_result(None)

    VirtualClock().run(drive())


@virtual
async def test_a_context_variable_set_inside_is_seen_outside(clock):
    """The step runs in the caller's own task, not in another."""
    from contextvars import ContextVar

    variable = ContextVar("variable", default="before")

    async def sets(value):
        variable.set("inside")
        await asyncio.sleep(1)

    await limited(sets).execute("x", WorkflowContext())
    assert variable.get() == "inside"


@virtual
async def test_a_steps_own_limit_names_the_step(clock):
    """@step(timeout_seconds=...) works the same, and heeds the context's deadline."""

    @step(timeout_seconds=5)
    async def slow(value):
        await asyncio.sleep(60)

    with pytest.raises(TimeoutExceededError, match=r"^slow took longer than 5 s"):
        await slow.execute("x", WorkflowContext())
    with pytest.raises(TimeoutExceededError, match=r"^slow took longer than 2 s"):
        await slow.execute("x", WorkflowContext(deadline=7))
    with pytest.raises(TimeoutExceededError, match=r"^slow had no time left to start"):
        await slow.execute("x", WorkflowContext(deadline=7))


def test_the_repr_and_the_description_show_the_limit():
    """Seconds as a number, a function by its name, the fallback as a child."""
    slow = limited(step(str), timedelta(minutes=1), fallback=repr)
    assert repr(slow) == "<TimeoutPrimitive 'str' timeout_seconds=60.0>"
    assert [child["name"] for child in slow.describe()["children"]] == ["str", "repr"]


class Later(WorkflowPrimitive):
    """A primitive whose calls are awaited, but are no coroutines."""

    def __init__(self, delay):
        self.delay = delay

    def execute(self, value, context):
        future = asyncio.get_running_loop().create_future()
        if self.delay:
            timer = asyncio.get_running_loop().call_later
            timer(self.delay, future.set_result, value)
        else:
            future.set_result(value)
        return future


@pytest.mark.parametrize("deadline", [None, 60], ids=["alone", "below a deadline"])
@virtual
async def test_what_can_only_be_awaited_is_limited_too(clock, deadline):
    """At once, in time, and too late."""
    context = WorkflowContext(deadline=deadline)
    for delay in (0, 4):
        limited = TimeoutPrimitive(Later(delay), timeout_seconds=5)
        assert await limited.execute("x", context) == "x"
    with pytest.raises(TimeoutExceededError, match="took longer than 5 s"):
        await TimeoutPrimitive(Later(6), timeout_seconds=5).execute("x", context)
    assert asyncio.current_task().cancelling() == 0
