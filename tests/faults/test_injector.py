"""Faults at primitives: what they do to a run, and what is told of them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading

import pytest

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.errors import ClockDeadlock
from pytest_tta.faults import (
    FaultInjector,
    FaultPlan,
    FaultRule,
    always,
    at_time,
    chance,
    every,
    fail,
    first,
    hang,
    nth,
    slow,
    when,
)
from pytest_tta.trace import S, TraceRecorder
from tta_primitives import StepPrimitive, WorkflowContext
from tta_primitives.door import listening
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.recovery.retry import RetryPrimitive
from tta_primitives.recovery.timeout import TimeoutPrimitive


def run(faults, *workflows, recorder=None):
    """Run workflows with the input "q" in virtual time; return outputs and errors."""

    async def one(workflow):
        try:
            return await workflow.execute("q", WorkflowContext())
        except Exception as error:
            return error

    async def main():
        return [await one(workflow) for workflow in workflows]

    observers = () if recorder is None else (recorder,)
    with listening(observers=observers, interceptors=(faults,)):
        return VirtualClock().run(main())


async def llm(text):
    """Answer."""
    return text.upper()


def step(name="llm"):
    """Return a step with this name."""
    return StepPrimitive(llm, name=name)


def answer(max_retries=3):
    """Return a retry around a step, which is named `answer`."""
    retry = RetryPrimitive(step(), max_retries=max_retries, jitter="none")
    return (retry >> step("end")).named("answer")


def struck(faults):
    """Return path and call number of each strike."""
    return [(one.path, one.number) for one in faults.injected]


@pytest.mark.parametrize(
    ("schedule", "numbers"),
    [
        (always(), [1, 2, 3, 4, 5, 6]),
        (first(2), [1, 2]),
        (nth(3), [3]),
        (every(2), [2, 4, 6]),
        (~first(4), [5, 6]),
        (first(4) & every(2), [2, 4]),
        (nth(1) | nth(5), [1, 5]),
        (~(nth(1) | nth(5)) & ~every(2), [3]),
        (when(lambda call: call.input_data == "q") & nth(2), [2]),
        (when(lambda call: call.input_data != "q") | nth(2), [2]),
        (chance(0.0) | nth(4), [4]),
        (chance(1.0), [1, 2, 3, 4, 5, 6]),
    ],
    ids=repr,
)
def test_h30_schedules_count_the_attempts_of_a_site(schedule, numbers):
    """Numbers begin with 1 and count every call that came, struck or not."""
    faults = FaultInjector()
    faults.at("llm").fail(ValueError, when=schedule)
    run(faults, *[step()] * 6)
    assert struck(faults) == [("llm", number) for number in numbers]


def test_h30_each_site_is_counted_by_itself():
    """A pattern that names several sites strikes the second call of each."""
    faults = FaultInjector()
    faults.at("*").fail(ValueError, when=nth(2))
    run(faults, step("a"), step("b"), step("a"), step("b"), step("a"))
    assert struck(faults) == [("a", 2), ("b", 2)]


def test_h30_chance_does_not_depend_on_the_order_of_calls():
    """The same calls are struck when sites take turns and when they do not."""
    one_by_one, in_turns = FaultInjector(seed=7), FaultInjector(seed=7)
    for faults, order in ((one_by_one, "a" * 30 + "b" * 30), (in_turns, "ba" * 30)):
        faults.at("*").fail(ValueError, when=chance(0.5))
        run(faults, *map(step, order))
    assert sorted(struck(one_by_one)) == sorted(struck(in_turns))
    assert 15 <= len(struck(one_by_one)) <= 45
    a, b = ([n for p, n in struck(one_by_one) if p == path] for path in "ab")
    assert a != b


def test_h30_chance_depends_on_the_seed_and_nothing_else():
    """Equal seeds strike equal calls on every interpreter; another seed others."""
    hits = {}
    for seed in (0, 1):
        faults = FaultInjector(seed=seed)
        faults.at("llm").fail(ValueError, when=chance(0.25))
        run(faults, *[step()] * 20)
        hits[seed] = [one.number for one in faults.injected]
    assert hits == {0: [3, 8, 9, 12], 1: [7, 12, 16, 17]}


def test_h30_two_chances_in_one_schedule_are_two_lots():
    """A quarter of the calls wins two lots of a half; the lots are not one lot."""
    faults = FaultInjector(seed=3)
    faults.at("llm").fail(ValueError, when=chance(0.5) & chance(0.5))
    run(faults, *[step()] * 200)
    assert 30 <= len(faults.injected) <= 70


def test_a_window_of_time_opens_and_closes_in_virtual_time():
    """An outage from second 60 to second 120 strikes what comes in between."""
    faults = FaultInjector()
    faults.at("llm").fail(ValueError, when=at_time(60, until=120))
    naps = [StepPrimitive(asyncio.sleep, name="nap")] * 5

    async def main():
        for nap in naps:
            with contextlib.suppress(ValueError):
                await step().execute("q", WorkflowContext())
            await nap.execute(30, WorkflowContext())

    with listening(interceptors=(faults,)):
        VirtualClock().run(main())
    assert [one.at for one in faults.injected] == [60.0, 90.0]


def test_h31_a_fault_on_an_unknown_path_fails_with_the_nearest_paths():
    """A misspelt path is named with the line that scripted it and what it may mean."""
    faults = FaultInjector()
    faults.at("answer/retry/lmm").fail(ValueError)
    run(faults, answer())
    (problem,) = faults.verify()
    assert re.fullmatch(
        r"fail\(ValueError\) at 'answer/retry/lmm', scripted at "
        r"tests/faults/test_injector\.py:\d+ in test_h31_\w+, was never reached: "
        r"no such position; nearest: 'answer/retry/llm', .*",
        problem,
    )


def test_h31_a_position_that_nothing_called_is_told_apart():
    """The path is right, but the run never came there."""
    faults = FaultInjector()
    faults.at("llm").fail(KeyError("x"), when=nth(1))
    faults.at("end").hang()
    run(faults, answer(max_retries=0))
    (problem,) = faults.verify()
    assert problem.startswith("hang() at 'end', scripted at tests/faults/")
    assert problem.endswith("was never reached: nothing called that position")


def test_a_fault_that_never_struck_is_a_problem():
    """The site was reached and the schedule never came true: the calls are counted."""
    faults = FaultInjector()
    faults.at("llm").fail(ValueError, when=nth(4))
    run(faults, answer())
    (problem,) = faults.verify()
    assert problem.endswith(
        "never struck: no nth(4) among the 1 call at 'answer/retry/llm'"
    )


def test_nothing_ran_at_all():
    """Without a run the message does not guess."""
    faults = FaultInjector()
    faults.at("llm").hang()
    (problem,) = faults.verify()
    assert problem.endswith("was never reached: no such position; no workflow has run")
    (problem,) = faults.verify(["answer/llm"])
    assert problem.endswith("was never reached: nothing called that position")


def test_faults_that_struck_are_no_problem():
    """Verification is silent, however often it is asked."""
    faults = FaultInjector()
    faults.at("llm").fail(ValueError, when=first(2))
    assert run(faults, answer()) == ["Q"]
    assert faults.verify() == faults.verify() == []


def test_rules_of_a_generated_plan_need_not_strike():
    """A search generates plans whose rules may miss; a test scripts none that does."""
    plan = FaultPlan(FaultRule("nowhere", hang()))
    assert FaultInjector(plan=plan).verify() == []
    scripted = FaultInjector()
    scripted.use(plan)
    assert len(scripted.verify()) == 1


def test_h32_lost_ack_has_the_effect_and_raises_the_error():
    """The step was executed, and its caller sees an error."""
    effects = []

    async def charge(text):
        effects.append(text)
        return "charged"

    faults = FaultInjector()
    faults.at("charge").lost_ack(ConnectionResetError("lost"))
    (error,) = run(faults, StepPrimitive(charge))
    assert effects == ["q"]
    assert (type(error), error.args) == (ConnectionResetError, ("lost",))


def test_h32_a_lost_ack_of_a_step_that_failed_is_its_own_error():
    """What never had an effect has no acknowledgement to lose."""

    async def charge(text):
        raise KeyError(text)

    faults = FaultInjector()
    faults.at("charge").lost_ack(ConnectionResetError("lost"))
    (error,) = run(faults, StepPrimitive(charge))
    assert isinstance(error, KeyError)
    assert len(faults.verify()) == 1


def test_h33_a_hang_without_a_deadline_is_reported_and_not_waited_for():
    """The clock stops the run at once, and the injector names the call and the line."""
    faults = FaultInjector()
    faults.at("llm").hang()
    seen = []

    clock = VirtualClock()

    async def watched():
        task = asyncio.create_task(answer().execute("q", WorkflowContext()))
        await asyncio.sleep(1)
        seen.extend(faults.hanging)
        await task

    with (
        listening(interceptors=(faults,)),
        pytest.raises(ClockDeadlock, match="every task waits"),
    ):
        clock.run(watched())
    assert clock.elapsed == 1.0
    (text,) = seen
    assert re.fullmatch(
        r"answer/retry/llm \(call 1\) hangs, as hang\(\) scripted at "
        r"tests/faults/test_injector\.py:\d+ in test_h33_\w+; only a time limit "
        r"around it ends that: use TimeoutPrimitive",
        text,
    )


def test_h33_a_hang_under_a_timeout_ends_with_it():
    """A deadline above ends the hang exactly then, and nothing hangs afterwards."""
    faults = FaultInjector()
    faults.at("llm").hang(when=first(1))
    limited = TimeoutPrimitive(step(), timeout_seconds=30)
    clock = VirtualClock()

    async def main():
        task = asyncio.create_task(limited.execute("q", WorkflowContext()))
        await asyncio.sleep(1)
        assert len(faults.hanging) == 1
        with pytest.raises(TimeoutExceededError, match="30 s"):
            await task

    with listening(interceptors=(faults,)):
        clock.run(main())
    assert clock.elapsed == 30.0
    assert faults.hanging == []


def test_case_95_injected_faults_are_retried_like_real_ones_and_told_apart():
    """A retry cannot tell, and telemetry can: `fault.injected` stands at the call."""
    faults, recorder = FaultInjector(), TraceRecorder()
    faults.at("answer/retry/llm").fail(TimeoutError("slow"), when=first(2))
    assert run(faults, answer(), recorder=recorder) == ["Q"]
    trace = recorder.trace
    assert trace == S("answer", S("retry", attempts=3, duration=1.5), S("end"))
    hit, _, good = trace.spans_at("llm")
    (event,) = hit.events
    assert (event.name, event.at) == ("fault.injected", 0.0)
    assert event.detail["fault"] == "fail(TimeoutError('slow'))"
    assert (event.detail["kind"], event.detail["number"]) == ("fail", 1)
    assert event.detail["scripted_at"].startswith("tests/faults/test_injector.py:")
    assert good.events == []
    assert trace.outline().splitlines()[2] == "    llm 0s failed: TimeoutError injected"


def test_each_strike_raises_an_error_of_its_own():
    """Tracebacks and notes of one strike do not show up at the next."""
    original = ValueError("x")
    faults = FaultInjector()
    faults.at("llm").fail(original)
    errors = run(faults, step(), step())
    assert [error.args for error in errors] == [("x",), ("x",)]
    assert len({id(error) for error in (*errors, original)}) == 3
    assert original.__traceback__ is None


@pytest.mark.parametrize(
    "error",
    [ValueError, ValueError(), lambda call: ValueError(call.path)],
    ids=["class", "instance", "function"],
)
def test_an_error_is_given_as_class_instance_or_function(error):
    """All three raise what they stand for."""
    faults = FaultInjector()
    faults.at("llm").fail(error)
    (raised,) = run(faults, step())
    assert type(raised) is ValueError


def test_slow_delays_the_call_in_virtual_time():
    """The call is executed after the delay, and its output is its own."""
    faults, recorder = FaultInjector(), TraceRecorder()
    faults.at("llm").slow(90)
    assert run(faults, step(), recorder=recorder) == ["Q"]
    assert recorder.trace == S("llm", duration=90.0, event_names=["fault.injected"])


def test_cancel_cancels_the_task_as_a_caller_does():
    """The task knows that it was cancelled, so that timeouts and groups can tell."""
    faults, recorder = FaultInjector(), TraceRecorder()
    faults.at("llm").cancel()

    async def main():
        task = asyncio.create_task(answer().execute("q", WorkflowContext()))
        await asyncio.wait([task])
        return task.cancelled(), task.cancelling()

    with listening(observers=(recorder,), interceptors=(faults,)):
        assert VirtualClock().run(main()) == (True, 1)
    assert recorder.trace == S("answer", S("retry", attempts=1, status="cancelled"))


def test_returns_gives_a_copy_of_a_value_instead_of_the_call():
    """The step is not executed, and no caller can spoil the value of the next."""
    faults = FaultInjector()
    faults.at("llm").returns({"answer": []})
    first_one, second = run(faults, step(), step())
    first_one["answer"].append("spoilt")
    assert second == {"answer": []}


def test_what_cannot_be_copied_is_returned_itself():
    """A lock, for one: it is the caller's own."""
    lock = threading.Lock()
    faults = FaultInjector()
    faults.at("llm").returns(lock)
    assert run(faults, step()) == [lock]


def test_an_error_that_is_none_is_told_where_it_is_made():
    """A function that should return an error and returns something else is named."""

    def refused(call):
        return "refused"

    faults = FaultInjector()
    faults.at("llm").fail(refused)
    [error] = run(faults, step())
    assert isinstance(error, TypeError)
    assert str(error).endswith(
        "refused returned 'refused' for fail(...), not an exception"
    )


def test_faults_at_one_site_act_in_the_order_in_which_they_were_scripted():
    """Slow, then failing: the error comes after the delay."""
    faults, recorder = FaultInjector(), TraceRecorder()
    faults.at("llm").slow(5).fail(ValueError)
    run(faults, step(), recorder=recorder)
    assert recorder.trace == S("llm", duration=5.0, error=ValueError)
    assert [one.fault.name for one in faults.injected] == ["slow", "fail"]


async def tokens(text):
    """Yield three chunks, a second apart."""
    for chunk in ("a", "b", "c"):
        yield chunk
        await asyncio.sleep(1)


def stream(faults):
    """Return the chunks that came, when the stream ended, and with what error."""
    chunks = []
    clock = VirtualClock()

    async def main():
        stream = StepPrimitive(tokens).stream("q", WorkflowContext())
        async for chunk in stream:
            chunks.append(chunk)  # noqa: PERF401 - kept when the stream breaks off

    with listening(interceptors=(faults,)):
        try:
            clock.run(main())
        except Exception as error:
            return chunks, clock.elapsed, type(error).__name__
    return chunks, clock.elapsed, None


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (lambda site: site.fail(ValueError), ([], 0.0, "ValueError")),
        (
            lambda site: site.fail(ValueError, after_chunks=2),
            (["a", "b"], 1.0, "ValueError"),
        ),
        (lambda site: site.lost_ack(OSError), ([], 3.0, "OSError")),
        (lambda site: site.lost_ack(OSError, after_chunks=1), (["a"], 3.0, "OSError")),
        (lambda site: site.slow(10), (["a", "b", "c"], 13.0, None)),
        (lambda site: site.slow(10, after_chunks=1), (["a", "b", "c"], 13.0, None)),
        (lambda site: site.returns("x"), (["x"], 0.0, None)),
        (lambda site: site.returns("x", after_chunks=2), (["a", "b", "x"], 1.0, None)),
        (lambda site: site.hang(after_chunks=1), (["a"], 0.0, "ClockDeadlock")),
    ],
)
def test_faults_act_on_streams(script, expected):
    """A stream breaks off where it is told to, chunks before that come through."""
    faults = FaultInjector()
    script(faults.at("tokens"))
    assert stream(faults) == expected
    assert faults.verify() == []


def test_a_stream_that_is_over_before_the_fault_is_not_struck():
    """A fault after the tenth chunk of three is reported as never having struck."""
    faults = FaultInjector()
    faults.at("tokens").fail(ValueError, after_chunks=10)
    assert stream(faults) == (["a", "b", "c"], 3.0, None)
    (problem,) = faults.verify()
    assert problem.endswith("or none with more than 10 chunks")


def test_a_stream_without_a_fault_is_passed_on():
    """An injector that has nothing to do there changes nothing."""
    assert stream(FaultInjector()) == (["a", "b", "c"], 3.0, None)


def test_a_struck_stream_is_closed_when_its_reader_leaves():
    """The step's own clean-up runs when the consumer stops early."""
    closed = []

    async def endless(text):
        try:
            while True:
                yield text
        finally:
            closed.append(text)

    faults = FaultInjector()
    faults.at("endless").slow(1, after_chunks=1)

    async def main():
        chunks = StepPrimitive(endless).stream("q", WorkflowContext())
        assert [await anext(chunks) for _ in range(3)] == ["q", "q", "q"]
        await chunks.aclose()
        return list(closed)

    with listening(interceptors=(faults,)):
        assert VirtualClock().run(main()) == ["q"]


@pytest.mark.parametrize(
    "place", ["llm", "retry/llm", "answer/*/llm", "/answer/**/llm"]
)
def test_a_place_is_a_path_its_end_or_a_pattern(place):
    """Each of them names the same position."""
    faults = FaultInjector()
    faults.at(place).fail(ValueError, when=first(1))
    run(faults, answer())
    assert struck(faults) == [("answer/retry/llm", 1)]


def test_a_place_is_a_primitive_a_step_function_or_a_predicate():
    """Objects name positions too, wherever they stand."""
    workflow = RetryPrimitive(one := step(), max_retries=9, jitter="none")
    faults = FaultInjector()
    faults.at(one).fail(ValueError, when=nth(1))
    faults.at(llm).fail(ValueError, when=nth(2))
    faults.at(lambda call: call.path == "retry/llm").fail(ValueError, when=nth(3))
    assert run(faults, workflow) == ["Q"]
    assert struck(faults) == [("retry/llm", 1), ("retry/llm", 2), ("retry/llm", 3)]


def test_a_primitive_that_never_ran_is_a_problem():
    """Where the primitive should have been, the calls that came are listed."""
    faults = FaultInjector()
    faults.at(step("other")).hang()
    faults.at(TimeoutPrimitive(step(), timeout_seconds=1)).hang()
    run(faults, StepPrimitive(str, name="ran"))
    assert [problem.rpartition(": ")[2] for problem in faults.verify()] == [
        "calls came at 'ran'",
        "calls came at 'ran'",
    ]


def test_a_predicate_that_returns_something_else_is_an_error():
    """A step's function is not mistaken for a predicate that happens to be true."""
    faults = FaultInjector()
    faults.at(lambda call: call.path).hang()
    (error,) = run(faults, step())
    assert isinstance(error, TypeError)
    assert "returned 'llm' for the call at 'llm'; it is asked about each call" in str(
        error
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f.at(3).hang(), "place=3 must be a path such as 'retry/llm'"),
        (lambda f: f.at("").hang(), "place='' must be labels joined by slashes"),
        (lambda f: f.at("llm@2").hang(), "place='llm@2' names one execution"),
        (lambda f: f.at("llm").fail("x"), "error='x' must be an exception"),
        (
            lambda f: f.at("llm").fail(UnicodeDecodeError),
            "error=UnicodeDecodeError cannot be made without arguments",
        ),
        (lambda f: f.at("llm").fail(int), "error=<class 'int'> must be an exception"),
        (lambda f: f.at("llm").hang(when=2), "when=2 must be a Schedule"),
        (lambda f: f.at("llm").inject(ValueError), "must be a Fault"),
        (lambda f: f.at("llm").slow(0), "delay=0 must be a positive number"),
        (
            lambda f: f.at("llm").hang(after_chunks=-1),
            "after_chunks=-1 must be a whole",
        ),
        (lambda f: first(0), "n=0 must be a whole number of at least 1"),
        (lambda f: nth(True), "n=True must be a whole number"),
        (lambda f: every(1.5), "n=1.5 must be a whole number"),
        (lambda f: chance(1.5), "p=1.5 must be a number from 0 to 1"),
        (lambda f: chance("1"), "p='1' must be a number from 0 to 1, not str"),
        (lambda f: at_time(5, 5), "until=5 must be later than begin=5"),
        (lambda f: when(True), "predicate=True must be a function"),
        (lambda f: first(1) & 2, "unsupported operand"),
        (lambda f: FaultPlan(hang()), r"rule=hang\(\) must be a FaultRule"),
    ],
)
def test_wrong_arguments_fail_where_they_are_written(make, message):
    """The parameter, the value and what is allowed are in the message."""
    with pytest.raises((TypeError, ValueError), match=message):
        make(FaultInjector())


def test_an_injector_that_only_listens_changes_nothing():
    """Without rules, outputs and times are those of a run without it."""
    faults, recorder = FaultInjector(), TraceRecorder()
    assert run(faults, answer(), recorder=recorder) == ["Q"]
    assert recorder.trace == S("answer", S("retry", attempts=1), S("end"), duration=0.0)


def test_what_was_scripted_can_be_pasted():
    """The plan of an injector prints as code that makes it again."""
    faults = FaultInjector()
    faults.at("a").slow(1.5, when=every(2)).fail(KeyError("x"))
    faults.add("b", fail(OSError), first(1))
    assert repr(faults.plan) == (
        "FaultPlan(FaultRule('a', slow(1.5), every(2)), FaultRule('a', "
        "fail(KeyError('x'))), FaultRule('b', fail(OSError), first(1)))"
    )
    assert faults.plan == FaultPlan(
        FaultRule("a", slow(1.5), every(2)),
        FaultRule("a", fail(KeyError("x"))),
        FaultRule("b", fail(OSError), first(1)),
    )
