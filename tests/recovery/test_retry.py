"""Retry: which attempts are made, when, and what comes out."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest

from tests.recovery.doubles import (
    CANCELLED,
    Boom,
    Rejected,
    Response,
    Script,
    exactly,
    virtual,
)
from tta_primitives import WorkflowContext, WorkflowPrimitive, step
from tta_primitives.chance import seeded
from tta_primitives.door import Interceptor, listening
from tta_primitives.errors import (
    BulkheadFullError,
    CircuitOpenError,
    OpenWrapperError,
    RateLimitExceededError,
    RetryResultError,
    TimeoutExceededError,
)
from tta_primitives.recovery import (
    Attempt,
    FallbackPrimitive,
    RetryBudget,
    RetryPrimitive,
    TimeoutPrimitive,
    attempts_of,
)


def quick(primitive, **options):
    """Return a retry without jitter, so that delays are exact."""
    return RetryPrimitive(primitive, jitter="none", **options)


@virtual
async def test_case_01_exhausted_retries_raise_the_last_error_itself(clock):
    """Three retries are four calls, and the fourth error object comes out."""
    errors = [Boom(1), Boom(2), Boom(3), Boom(4)]
    llm = Script(*errors)
    with pytest.raises(Boom, match="4") as caught:
        await RetryPrimitive(llm, max_retries=3).execute("x", WorkflowContext())
    assert caught.value is errors[3]
    assert llm.calls == 4


@virtual
async def test_case_02_a_success_after_failures_leaves_nothing_behind(clock):
    """The value comes out, and a later error has no context from the failures."""
    later = Boom("later")

    async def fails_once_more(value):
        raise later

    retried = quick(Script(Boom(1), Boom(2), "ok"), initial_delay=0)
    assert await retried.execute("x", WorkflowContext()) == "ok"
    with pytest.raises(Boom, match="later"):
        await (retried >> fails_once_more).execute("x", WorkflowContext())
    assert later.__context__ is None


@virtual
async def test_case_02_failures_do_not_become_the_context_of_each_other(clock):
    """Each attempt starts with a clean slate: no error is raised "during" another."""
    errors = [Boom(1), Boom(2), Boom(3)]
    with pytest.raises(Boom, match="3"):
        await quick(Script(*errors), max_retries=2).execute("x", WorkflowContext())
    assert [error.__context__ for error in errors] == [None, None, None]


@pytest.mark.parametrize("retry_on", [(BaseException,), BaseException, lambda e: True])
@virtual
async def test_case_03_a_cancelled_attempt_is_never_retried(clock, retry_on):
    """Cancellation passes every filter."""
    llm = Script("ok", takes=60)
    retried = RetryPrimitive(llm, retry_on=retry_on)
    task = asyncio.create_task(retried.execute("x", WorkflowContext()))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    assert task.cancelled()
    assert llm.calls == 1


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit, GeneratorExit])
@virtual
async def test_signals_of_the_interpreter_are_never_retried(clock, signal):
    """What is no Exception is not handled, whatever the filter says."""
    llm = Script(signal("stop"))
    coroutine = RetryPrimitive(llm, retry_on=BaseException).execute(
        "x", WorkflowContext()
    )
    with pytest.raises(signal, match="stop"):
        coroutine.send(None)
    assert llm.calls == 1


@virtual
async def test_case_04_a_cancelled_delay_ends_at_once(clock):
    """Cancelling during the backoff takes no time and makes no further call."""
    llm = Script(Boom())
    retried = quick(llm, initial_delay=60, max_delay=60)
    task = asyncio.create_task(retried.execute("x", WorkflowContext()))
    await asyncio.sleep(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    assert clock.elapsed == 10
    assert llm.calls == 1


@virtual
async def test_case_07_no_retries_is_one_call(clock):
    """With max_retries=0 the error comes out of the only call."""
    llm = Script(Boom())
    with pytest.raises(Boom, match="boom"):
        await RetryPrimitive(llm, max_retries=0).execute("x", WorkflowContext())
    assert (llm.calls, clock.elapsed) == (1, 0)


@pytest.mark.parametrize("value", [-1, 2.5, True, "3"])
def test_case_07_wrong_counts_are_refused_at_construction(value):
    """A number of retries is a whole number, and not a bool."""
    with pytest.raises(
        ValueError, match=f"max_retries={value!r} must be a whole number"
    ):
        RetryPrimitive(Script("ok"), max_retries=value)


def test_case_07_endless_retries_need_an_end():
    """None is accepted only with a time limit or a budget."""
    with pytest.raises(ValueError, match="needs max_elapsed= or budget="):
        RetryPrimitive(Script("ok"), max_retries=None)
    RetryPrimitive(Script("ok"), max_retries=None, max_elapsed=1)
    RetryPrimitive(Script("ok"), max_retries=None, budget=RetryBudget())


@virtual
async def test_case_08_exponential_delays_are_exact(clock):
    """The documented default grows from 0.5 by 2 to 30."""
    with pytest.raises(Boom, match="boom"):
        await quick(Script(Boom()), max_retries=8).execute("x", WorkflowContext())
    assert clock.sleeps.delays == [0.5, 1, 2, 4, 8, 16, 30, 30]


@virtual
async def test_case_10_jitter_is_reproducible_with_a_seed(clock):
    """Equal seeds give equal delays, each between 0 and the backoff."""
    for _ in range(2):
        with seeded(7), pytest.raises(Boom, match="boom"):
            await RetryPrimitive(Script(Boom())).execute("x", WorkflowContext())
    first, second = clock.sleeps.delays[:3], clock.sleeps.delays[3:]
    assert first == second
    assert all(0 <= d <= cap for d, cap in zip(first, [0.5, 1, 2], strict=True))


@pytest.mark.parametrize(
    "error",
    [
        Rejected(retry_after=5),
        Rejected(retry_after=timedelta(seconds=5)),
        Rejected(response=Response(retry_after="5")),
        Rejected(response=Response(Retry_After="5")),
        Rejected(response=Response(retry_after_ms="5000")),
        Rejected(response=Response(retry_after="Sat, 01 Jan 2000 00:00:05 GMT")),
        RateLimitExceededError("full", retry_after=5),
    ],
    ids=["attribute", "timedelta", "seconds", "case", "ms", "date", "rejection"],
)
@virtual
async def test_case_11_a_hint_is_the_least_delay(clock, error):
    """With jitter the backoff is added to what the server asked for."""
    llm = Script(error, "ok")
    assert await RetryPrimitive(llm).execute("x", WorkflowContext()) == "ok"
    assert 5 <= clock.elapsed <= 5.5


@pytest.mark.parametrize(("hint", "delay"), [(5, 5), (0.1, 0.5)])
@virtual
async def test_case_11_without_jitter_the_longer_of_hint_and_backoff_counts(
    clock, hint, delay
):
    """The delay is exactly max(hint, backoff)."""
    await quick(Script(Rejected(retry_after=hint), "ok")).execute(
        "x", WorkflowContext()
    )
    assert clock.sleeps.delays == [delay]


@virtual
async def test_hints_are_ignored_on_request(clock):
    """With respect_retry_after=False only the backoff counts."""
    llm = Script(Rejected(retry_after=500), "ok")
    await quick(llm, respect_retry_after=False).execute("x", WorkflowContext())
    assert clock.sleeps.delays == [0.5]


@pytest.mark.parametrize(
    "error",
    [Rejected(retry_after=3600), RateLimitExceededError("full", retry_after=3600)],
)
@virtual
async def test_a_hint_longer_than_allowed_ends_the_retry_at_once(clock, error):
    """An hour is not waited for; the error says why nobody tried again."""
    llm = Script(error)
    with pytest.raises(type(error), match=exactly(error)) as caught:
        await RetryPrimitive(llm).execute("x", WorkflowContext())
    assert (llm.calls, clock.elapsed) == (1, 0)
    [note] = caught.value.__notes__
    assert "told to wait longer than max_retry_after=60 s" in note


@virtual
async def test_a_hint_of_any_length_is_followed_if_that_is_asked_for(clock):
    """An hour, to the second."""
    llm = Script(Rejected(retry_after=3600), "ok")
    retry = RetryPrimitive(llm, max_retry_after=None, jitter="none")
    assert await retry.execute("x", WorkflowContext()) == "ok"
    assert clock.elapsed == 3600


@virtual
async def test_case_12_no_time_for_the_delay_raises_at_once(clock):
    """With 2 s left, neither a hint of 5 s nor a backoff of 5 s is slept."""
    for error, delay in [(Rejected(retry_after=5), 0.5), (Boom(), 5)]:
        context = WorkflowContext(deadline=clock.time + 2)
        llm = Script(error)
        with pytest.raises(type(error), match=exactly(error)) as caught:
            await quick(llm, initial_delay=delay).execute("x", context)
        assert caught.value is error
        assert llm.calls == 1
        assert "the deadline leaves no time" in caught.value.__notes__[0]
    assert clock.elapsed == 0


@virtual
async def test_case_12_a_delay_that_ends_at_the_deadline_is_not_slept(clock):
    """At the deadline itself there is no time left for an attempt."""
    llm = Script(Boom())
    with pytest.raises(Boom, match="boom"):
        await quick(llm, initial_delay=2).execute("x", WorkflowContext(deadline=2))
    assert (llm.calls, clock.elapsed) == (1, 0)


@virtual
async def test_case_12_the_deadline_of_a_timeout_is_seen_from_inside(clock):
    """A timeout around a retry tells it how much time is left."""
    llm = Script(Boom())
    with pytest.raises(Boom, match="boom"):
        await TimeoutPrimitive(quick(llm), timeout_seconds=3).execute(
            "x", WorkflowContext()
        )
    # Attempts at 0, 0.5 and 1.5 s; the next would begin at 3.5 s.
    assert (llm.calls, clock.elapsed) == (3, 1.5)


@virtual
async def test_case_13_max_elapsed_interrupts_a_hanging_attempt(clock):
    """The last attempt is cancelled at the limit, which bounds more than starts."""
    llm = Script(Boom(), "never", takes=0.7)
    with pytest.raises(TimeoutExceededError, match=r"longer than 0\.2 s") as caught:
        await quick(llm, max_elapsed=1, initial_delay=0.1).execute(
            "x", WorkflowContext()
        )
    assert (llm.calls, clock.elapsed) == (2, 1)
    assert [attempt.number for attempt in attempts_of(caught.value)] == [1, 2]


@virtual
async def test_case_14_a_hanging_attempt_is_repeated_after_its_own_timeout(clock):
    """attempt_timeout bounds each attempt, and the timeout is retried."""
    calls = []

    async def hangs_once(value):
        calls.append(value)
        if len(calls) == 1:
            await asyncio.sleep(3600)
        return "ok"

    retried = quick(hangs_once, attempt_timeout=1)
    assert await retried.execute("x", WorkflowContext()) == "ok"
    assert (len(calls), clock.elapsed) == (2, 1.5)


@virtual
async def test_case_15_an_outer_timeout_is_not_retried(clock):
    """When the time for everything is up, no further attempt is made."""
    llm = Script("ok", takes=60)
    with pytest.raises(TimeoutExceededError, match="longer than 5 s"):
        await TimeoutPrimitive(RetryPrimitive(llm), timeout_seconds=5).execute(
            "x", WorkflowContext()
        )
    assert (llm.calls, clock.elapsed) == (1, 5)


@virtual
async def test_case_16_refused_results_end_in_an_error_with_the_last_one(clock):
    """RetryResultError carries the last result, and the attempts."""
    llm = Script(Response(429))
    retried = quick(llm, retry_if_result=lambda r: r.status_code == 429)
    with pytest.raises(RetryResultError, match="refused the last result") as caught:
        await retried.execute("x", WorkflowContext())
    assert llm.calls == 4
    assert caught.value.last_result is llm.outcomes[0]
    assert attempts_of(caught.value) == (
        Attempt(1, None, 0.5),
        Attempt(2, None, 1.0),
        Attempt(3, None, 2.0),
        Attempt(4, None, None),
    )


@virtual
async def test_case_16_refused_results_can_be_returned(clock):
    """With on_exhausted="return" the last result comes out as it is."""
    retried = quick(Script(1, 2, 3), max_retries=2, retry_if_result=lambda r: True)
    returning = quick(
        Script(1, 2, 3),
        max_retries=2,
        retry_if_result=lambda r: True,
        on_exhausted="return",
    )
    assert await returning.execute("x", WorkflowContext()) == 3
    with pytest.raises(RetryResultError, match="refused the last result"):
        await retried.execute("x", WorkflowContext())


@virtual
async def test_on_exhausted_return_does_not_hide_errors(clock):
    """Only a result can be returned; a last error is raised."""
    retried = quick(
        Script(1, Boom("last")),
        max_retries=1,
        on_exhausted="return",
        retry_if_result=lambda r: True,
    )
    with pytest.raises(Boom, match="last"):
        await retried.execute("x", WorkflowContext())


class Closable:
    """A result that counts how often it was closed."""

    def __init__(self, status):
        self.status = status
        self.closed = 0

    async def aclose(self):
        self.closed += 1


@virtual
async def test_case_17_discarded_results_are_closed_once_and_the_returned_is_not(clock):
    """What nobody gets is closed, so that no connection leaks."""
    results = [Closable(429), Closable(429), Closable(200)]
    retried = quick(Script(*results), retry_if_result=lambda r: r.status == 429)
    assert await retried.execute("x", WorkflowContext()) is results[2]
    assert [result.closed for result in results] == [1, 1, 0]


@virtual
async def test_closing_that_fails_is_logged_and_does_not_end_the_retry(clock, caplog):
    """An error in aclose() of a discarded result is nobody's result."""

    class Broken:
        async def aclose(self):
            raise OSError("gone")

    retried = quick(Script(Broken(), "ok"), retry_if_result=lambda r: r != "ok")
    assert await retried.execute("x", WorkflowContext()) == "ok"
    assert "raised and is ignored" in caplog.text


@virtual
async def test_case_19_a_broken_hook_changes_nothing_and_is_logged_once(clock, caplog):
    """on_retry that raises is ignored; the outcome is that of the attempts."""

    def broken(attempt):
        raise KeyError("hook")

    caplog.set_level(logging.ERROR, logger="tta_primitives")
    llm = Script(Boom(), Boom(), "ok")
    assert await quick(llm, on_retry=broken).execute("x", WorkflowContext()) == "ok"
    assert llm.calls == 3
    assert len(caplog.records) == 1


@virtual
async def test_the_hook_gets_each_failed_attempt_before_the_delay(clock):
    """It hears number, error and the delay to come."""
    errors = [Boom(1), Boom(2)]
    heard = []
    retried = quick(
        Script(*errors, "ok"), on_retry=lambda a: heard.append((clock.elapsed, a))
    )
    await retried.execute("x", WorkflowContext())
    assert heard == [(0, Attempt(1, errors[0], 0.5)), (0.5, Attempt(2, errors[1], 1.0))]


def test_an_async_hook_is_refused():
    """A hook is called, never awaited; saying so beats a warning later."""

    async def hook(attempt):
        """Would never run."""

    with pytest.raises(TypeError, match=r"on_retry=.* must be a sync function"):
        RetryPrimitive(Script("ok"), on_retry=hook)


@virtual
async def test_case_22_nested_retries_do_not_multiply(clock):
    """What the inner retry has exhausted is not begun again by the outer."""
    llm = Script(Boom())
    with pytest.raises(Boom, match="boom") as caught:
        await RetryPrimitive(RetryPrimitive(llm)).execute("x", WorkflowContext())
    assert llm.calls == 4
    assert len(caught.value.__notes__) == 1


@virtual
async def test_case_22_nested_retries_multiply_on_request(clock):
    """With retry_nested=True on the outer one it is 4 times 4 calls."""
    llm = Script(Boom())
    with pytest.raises(Boom, match="boom"):
        await RetryPrimitive(RetryPrimitive(llm), retry_nested=True).execute(
            "x", WorkflowContext()
        )
    assert llm.calls == 16


@virtual
async def test_case_22_nested_retries_are_found_inside_groups(clock):
    """Branches that are exhausted each make a group that is exhausted too."""
    left, right = Script(Boom(), takes=1), Script(Boom(), takes=1)
    branches = quick(left) | quick(right)
    with pytest.raises(ExceptionGroup, match="parallel"):
        await RetryPrimitive(branches).execute("x", WorkflowContext())
    assert (left.calls, right.calls) == (4, 4)


@virtual
async def test_an_inner_retry_that_did_not_want_an_error_leaves_it_to_the_outer(clock):
    """Two retries for two kinds of errors work together."""
    llm = Script(OSError("down"), "ok")
    inner = quick(llm, retry_on=Boom)
    assert await quick(inner, retry_on=OSError).execute("x", WorkflowContext()) == "ok"
    assert llm.calls == 2


@virtual
async def test_a_retry_that_is_switched_off_leaves_errors_to_the_outer(clock):
    """max_retries=0 exhausts nothing."""
    llm = Script(Boom(), "ok")
    inner = quick(llm, max_retries=0)
    assert await quick(inner).execute("x", WorkflowContext()) == "ok"


@virtual
async def test_an_error_object_exhausted_in_an_earlier_run_is_retried_in_the_next(
    clock,
):
    """The mark of exhaustion belongs to a run, not to the error for ever."""
    same = Boom("boom, one object")
    llm = Script(same)
    for calls in (4, 8):
        with pytest.raises(Boom, match="boom"):
            await RetryPrimitive(llm).execute("x", WorkflowContext())
        assert llm.calls == calls


@pytest.mark.parametrize(
    "error",
    [
        *(
            Rejected(status_code=n)
            for n in (400, 401, 402, 403, 404, 405, 410, 413, 422)
        ),
        Rejected(response=Response(401)),
        Rejected(response=Response(500, x_should_retry="false")),
        Rejected(status_code=429, code="insufficient_quota"),
        TypeError(),
        AttributeError(),
        NameError(),
        AssertionError(),
        NotImplementedError(),
        CircuitOpenError("open"),
        ExceptionGroup("both", [Boom(), TypeError()]),
    ],
    ids=repr,
)
@virtual
async def test_rule_11_permanent_errors_are_raised_at_once(clock, error):
    """By default nothing is repeated that will fail in the same way."""
    llm = Script(error)
    with pytest.raises(type(error), match=exactly(error)) as caught:
        await RetryPrimitive(llm).execute("x", WorkflowContext())
    assert caught.value is error
    assert llm.calls == 1
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize(
    "error",
    [
        Boom(),
        ValueError("parse"),
        OSError("reset"),
        Rejected(status_code=429),
        Rejected(status_code=503),
        Rejected(response=Response(408)),
        Rejected(response=Response(400, x_should_retry="true")),
        BulkheadFullError("full"),
        TimeoutExceededError("late", timeout_seconds=1),
        ExceptionGroup("both", [Boom(), OSError()]),
    ],
    ids=repr,
)
@virtual
async def test_rule_11_other_errors_are_retried(clock, error):
    """By default everything that may pass is tried again."""
    llm = Script(error, "ok")
    assert await RetryPrimitive(llm).execute("x", WorkflowContext()) == "ok"


@virtual
async def test_retry_on_replaces_the_default(clock):
    """What is listed is retried, and nothing else."""
    listed, other = Script(TypeError(), "ok"), Script(Boom(), "ok")
    assert (
        await quick(listed, retry_on=TypeError).execute("x", WorkflowContext()) == "ok"
    )
    with pytest.raises(Boom, match="boom"):
        await quick(other, retry_on=(TypeError, OSError)).execute(
            "x", WorkflowContext()
        )
    assert other.calls == 1


@virtual
async def test_give_up_on_outweighs_retry_on(clock):
    """An error in both is not retried; a group that holds one is not either."""
    for error in (Boom(), ExceptionGroup("mixed", [Boom(), OSError()])):
        llm = Script(error)
        with pytest.raises(type(error), match=exactly(error)):
            await quick(llm, retry_on=Exception, give_up_on=Boom).execute(
                "x", WorkflowContext()
            )
        assert llm.calls == 1


@virtual
async def test_a_group_is_retried_if_all_its_leaves_are_listed(clock):
    """A task group around a call does not hide a failure that may pass."""
    llm = Script(ExceptionGroup("group", [Boom(), Boom()]), "ok")
    assert await quick(llm, retry_on=Boom).execute("x", WorkflowContext()) == "ok"
    mixed = Script(ExceptionGroup("group", [Boom(), ValueError()]), "ok")
    with pytest.raises(ExceptionGroup, match="group"):
        await quick(mixed, retry_on=Boom).execute("x", WorkflowContext())


@pytest.mark.parametrize("wide", [Exception, (Boom, BaseException)])
@virtual
async def test_an_open_circuit_is_retried_only_when_listed(clock, wide):
    """A filter as wide as Exception was not written with circuits in mind."""
    for retry_on, calls in [(wide, 1), (CircuitOpenError, 2), (lambda e: True, 2)]:
        llm = Script(CircuitOpenError("open", retry_after=1), "ok")
        retried = quick(llm, retry_on=retry_on)
        if calls == 1:
            with pytest.raises(CircuitOpenError, match="open"):
                await retried.execute("x", WorkflowContext())
        else:
            assert await retried.execute("x", WorkflowContext()) == "ok"
        assert llm.calls == calls


@virtual
async def test_a_predicate_that_raises_is_not_swallowed(clock):
    """A bug in the user's filter shows, with the failure as its context."""

    def broken(error):
        raise KeyError("filter")

    failure = Boom()
    with pytest.raises(KeyError, match="filter") as caught:
        await quick(Script(failure), retry_on=broken).execute("x", WorkflowContext())
    assert caught.value.__context__ is failure


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (Boom(), 1),
        (TimeoutExceededError("late", timeout_seconds=1), 1),
        (RateLimitExceededError("full"), 2),
        (BulkheadFullError("full"), 2),
        (ExceptionGroup("g", [BulkheadFullError("full"), Boom()]), 1),
    ],
)
@virtual
async def test_rule_07_a_step_that_is_not_idempotent_is_repeated_only_after_rejections(
    clock, error, calls
):
    """After any other failure its outcome is unknown."""
    charge = Script(error, "ok")
    retried = quick(step(idempotent=False)(charge))
    try:
        assert await retried.execute("x", WorkflowContext()) == "ok"
    except type(error):
        assert calls == 1
    assert charge.calls == calls


@virtual
async def test_rule_07_errors_that_are_listed_repeat_any_step(clock):
    """Who writes retry_on knows the step."""
    charge = Script(Boom(), "ok")
    retried = quick(step(idempotent=False)(charge), retry_on=Boom)
    assert await retried.execute("x", WorkflowContext()) == "ok"


@virtual
async def test_rule_07_a_rejection_later_in_a_chain_does_not_repeat_what_came_before(
    clock,
):
    """The charge was made, though the step after it was rejected."""
    charge = Script("charged")
    notify = Script(RateLimitExceededError("full"), "ok")
    chain = step(idempotent=False)(charge) >> step(notify)
    with pytest.raises(RateLimitExceededError, match="full"):
        await quick(chain).execute("x", WorkflowContext())
    assert charge.calls == 1


class Keyed(WorkflowPrimitive):
    """A primitive that notes the idempotency key it sees, and fails at first."""

    def __init__(self, failures):
        self.failures = failures
        self.keys = []

    async def execute(self, input_data, context):
        self.keys.append(context.idempotency_key)
        if len(self.keys) <= self.failures:
            raise Boom
        return input_data


@virtual
async def test_rule_07_all_attempts_see_one_key_and_executions_differ(clock):
    """A key is constant over attempts, and new for the next execution."""
    payment = Keyed(failures=2)
    retried = RetryPrimitive(payment)
    context = WorkflowContext()
    await retried.execute("x", context)
    await retried.execute("x", context)
    first, second, third, fourth = payment.keys
    assert first == second == third
    assert fourth not in {first, None}
    assert context.idempotency_key is None


class InTurn(WorkflowPrimitive):
    """An agent in small: executes one primitive twice, and fails at first."""

    def __init__(self, primitive):
        self.primitive = primitive
        self.attempts = 0

    async def execute(self, input_data, context):
        self.attempts += 1
        for _ in range(2):
            await self.primitive.execute(input_data, context)
        if self.attempts < 3:
            raise Boom
        return input_data


@virtual
async def test_rule_07_a_repeated_attempt_repeats_the_keys_of_retries_inside(clock):
    """Two executions in one attempt are two requests, the same two in the next."""
    payment = Keyed(failures=0)
    agent = InTurn(RetryPrimitive(payment))
    await quick(agent).execute("x", WorkflowContext())
    first, second, *rest = payment.keys
    assert first != second
    assert rest == [first, second, first, second]


@virtual
async def test_the_callers_context_is_not_changed(clock):
    """Deadlines and keys of attempts sit in views of their own."""
    context = WorkflowContext(deadline=100)
    payment = Keyed(failures=1)
    await RetryPrimitive(payment, attempt_timeout=1, max_elapsed=50).execute(
        "x", context
    )
    assert (context.deadline, context.idempotency_key, context.path) == (100, None, "")


@virtual
async def test_attempts_see_their_own_deadline(clock):
    """attempt_timeout and max_elapsed travel down, whichever is earlier."""
    deadlines = []

    async def reads(value, context):
        deadlines.append(context.deadline)
        raise Boom

    retried = quick(
        reads, max_retries=2, initial_delay=1, attempt_timeout=3, max_elapsed=5
    )
    with pytest.raises(Boom, match="boom"):
        await retried.execute("x", WorkflowContext())
    assert deadlines == [3, 4, 5]


@virtual
async def test_zero_delays_do_not_go_through_the_loop(clock):
    """A retry without delay is as quick as a loop."""
    order = []

    async def other():
        order.append("other")

    async def fails_twice(value):
        order.append("attempt")
        if len(order) < 3:
            raise Boom
        return "ok"

    task = asyncio.create_task(other())
    await quick(fails_twice, initial_delay=0).execute("x", WorkflowContext())
    await task
    assert order == ["attempt", "attempt", "attempt", "other"]


@virtual
async def test_endless_retries_let_others_run(clock):
    """Without a delay they still take a turn of the loop, or nothing else would run."""
    done = asyncio.Event()
    attempts = []

    async def waits_for_another_task(value):
        attempts.append(value)
        if not done.is_set():
            raise Boom
        return "ok"

    asyncio.get_running_loop().call_soon(done.set)
    retried = quick(
        waits_for_another_task, max_retries=None, max_elapsed=5, initial_delay=0
    )
    assert await retried.execute("x", WorkflowContext()) == "ok"
    assert len(attempts) == 2


@virtual
async def test_one_retry_object_serves_many_tasks(clock):
    """A policy has no state of a call: each task has its own attempts and delays."""
    counts = {}

    async def fails_twice(key):
        counts[key] = counts.get(key, 0) + 1
        if counts[key] < 3:
            raise Boom
        return key

    retried = quick(fails_twice)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(retried.execute(key, WorkflowContext()))
            for key in range(20)
        ]
    assert [task.result() for task in tasks] == list(range(20))
    assert set(counts.values()) == {3}
    assert clock.elapsed == 1.5


@virtual
async def test_events_tell_what_a_retry_does(clock, events):
    """Each attempt, each delay and the end are told, with exact numbers."""
    errors = [Boom(1), Boom(2)]
    with pytest.raises(Boom, match="2"):
        await quick(Script(*errors), max_retries=1).execute("x", WorkflowContext())
    assert events.seen == [
        ("retry.attempt", {"attempt": 1}),
        ("retry.scheduled", {"delay": 0.5, "attempt": 1, "error": errors[0]}),
        ("retry.attempt", {"attempt": 2}),
        ("retry.exhausted", {"attempt": 2, "error": errors[1]}),
    ]


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({}, TypeError(), "not_retryable"),
        ({}, Rejected(retry_after=61), "retry_after"),
        ({"max_elapsed": 0.1}, Boom(), "deadline"),
    ],
)
@virtual
async def test_giving_up_early_is_told_with_its_reason(
    clock, events, options, error, reason
):
    """The event says why no attempt followed."""
    with pytest.raises(type(error), match=exactly(error)):
        await quick(Script(error), **options).execute("x", WorkflowContext())
    assert events.seen[-1] == (
        "retry.gave_up",
        {"reason": reason, "attempt": 1, "error": error},
    )


class FailsTwice(Interceptor):
    """Puts two failures in front of a step."""

    def __init__(self):
        self.left = 2

    async def execute(self, call, proceed):
        if call.primitive.name == "script" and self.left:
            self.left -= 1
            raise Boom("injected")
        return await proceed()


@virtual
async def test_case_95_injected_faults_are_retried_like_real_ones(clock, events):
    """A retry does not know who failed the attempt."""
    llm = Script("ok")
    with listening(interceptors=(FailsTwice(),)):
        assert await quick(llm).execute("x", WorkflowContext()) == "ok"
    assert (llm.calls, clock.elapsed) == (1, 1.5)
    assert events.names.count("retry.scheduled") == 2


@virtual
async def test_case_92_a_day_of_retries_takes_no_time_and_repeats(clock):
    """The default policy for 24 h makes the same delays for the same seed."""
    totals = []
    for _ in range(2):
        llm = Script(Boom())
        with seeded(1), pytest.raises(Boom, match="boom"):
            await RetryPrimitive(llm, max_retries=None, max_elapsed=86_400).execute(
                "x", WorkflowContext()
            )
        totals.append(llm.calls)
    assert totals[0] == totals[1] > 5_000


@virtual
async def test_an_open_retry_wraps_what_follows(clock):
    """RetryPrimitive() >> step is RetryPrimitive(step)."""
    llm = Script(Boom(), "ok")
    assert await (RetryPrimitive() >> llm).execute("x", WorkflowContext()) == "ok"
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        await RetryPrimitive().execute("x", WorkflowContext())


@virtual
async def test_an_open_retry_does_not_stream(clock):
    """Streaming an open wrapper is the same clear error."""
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        await anext(RetryPrimitive().stream("x", WorkflowContext()))


def test_the_repr_and_the_description_show_what_was_set():
    """Options at their defaults are not shown."""
    retried = RetryPrimitive(step(Script("ok")), max_retries=5, jitter="none")
    assert repr(retried) == "<RetryPrimitive 'script' max_retries=5 jitter='none'>"
    assert retried.describe()["options"] == {"max_retries": 5, "jitter": "none"}
    assert RetryPrimitive(Script("ok")).describe()["options"] == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"backoff_strategy": "cubic"},
            ValueError,
            "backoff_strategy='cubic' must be one",
        ),
        ({"backoff_strategy": 3}, TypeError, "backoff_strategy=3 must be one of"),
        ({"backoff_strategy": []}, ValueError, "at least one delay"),
        ({"backoff_strategy": [1, -1]}, ValueError, r"backoff_strategy\[1\]=-1"),
        ({"backoff_strategy": [60]}, ValueError, "raise max_delay"),
        ({"initial_delay": -1}, ValueError, "initial_delay=-1 must be"),
        ({"backoff_factor": 0.5}, ValueError, "backoff_factor=0.5 must be at least 1"),
        ({"max_delay": float("nan")}, ValueError, "max_delay=nan must be"),
        ({"jitter": "some"}, ValueError, "jitter='some' must be one of 'full'"),
        ({"max_elapsed": 0}, ValueError, "max_elapsed=0 must be"),
        ({"attempt_timeout": "1"}, TypeError, "attempt_timeout='1' must be"),
        ({"retry_on": "Boom"}, TypeError, "retry_on='Boom' must be an exception type"),
        ({"retry_on": int}, TypeError, "retry_on=<class 'int'> must be"),
        ({"retry_on": [Boom, 3]}, TypeError, "must be an exception type"),
        ({"give_up_on": None}, TypeError, "give_up_on=None must be"),
        ({"retry_if_result": 3}, TypeError, "retry_if_result=3 must be a function"),
        ({"respect_retry_after": 1}, TypeError, "respect_retry_after=1 must be True"),
        ({"max_retry_after": 0}, ValueError, "max_retry_after=0 must be"),
        ({"budget": 0.2}, TypeError, "budget=0.2 must be a RetryBudget"),
        ({"on_exhausted": "ignore"}, ValueError, "on_exhausted='ignore' must be one"),
        ({"on_retry": "log"}, TypeError, "on_retry='log' must be a function"),
        ({"retry_nested": 1}, TypeError, "retry_nested=1 must be True or False"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(options, error, message):
    """The message names the parameter, shows the value and says what is allowed."""
    with pytest.raises(error, match=message):
        RetryPrimitive(Script("ok"), **options)


@virtual
async def test_the_guides_production_workflow_runs(clock):
    """The composition of the guide works as it is written there."""
    workflow = (
        step(str.strip)
        >> RetryPrimitive(
            Script(Boom(), "answer"), max_retries=3, backoff_strategy="exponential"
        )
        >> FallbackPrimitive(primary=Script(Boom()), fallbacks=[str.upper, "cached"])
    )
    assert await workflow.execute(" question ", WorkflowContext()) == "ANSWER"


@virtual
async def test_types_made_for_each_error_do_not_fill_the_memory(clock):
    """What is known of types of errors is bounded; all of them are retried."""

    async def novel(value):
        raise type("Novel", (Exception,), {})

    retry = RetryPrimitive(novel, max_retries=300, initial_delay=0)
    with pytest.raises(Exception, match=r"^(\n|$)") as caught:
        await retry.execute("x", WorkflowContext())
    assert attempts_of(caught.value)[-1].number == 301
    assert len(retry._judge._passing) <= 64
