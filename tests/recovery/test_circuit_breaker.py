"""Circuit breaker: when calls are rejected and tried again, and who has a vote."""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback
from contextlib import suppress
from datetime import timedelta

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.garbage import only_new_garbage
from tests.recovery.circuit_tools import (
    OPEN,
    PROBED,
    Service,
    begin,
    breaker,
    half_opened,
    tell,
    tripped,
)
from tests.recovery.doubles import CANCELLED, Boom, Script, Stream, chunks_of, virtual
from tta_primitives import WorkflowContext, WorkflowPrimitive, step
from tta_primitives.errors import (
    BulkheadFullError,
    CircuitIsolatedError,
    CircuitOpenError,
    FallbackExhaustedError,
    OpenWrapperError,
    TimeoutExceededError,
)
from tta_primitives.recovery import (
    CircuitBreakerPrimitive,
    CircuitBreakerStats,
    CircuitStateChange,
    FallbackPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
    attempts_of,
)
from tta_primitives.recovery.circuit_state import Closed, HalfOpen, Open, Probe


@virtual
async def test_a_closed_breaker_passes_calls_on(clock):
    """Outputs and errors come out as they are."""
    error = Boom()
    guarded = breaker()
    assert await guarded.execute("x", WorkflowContext()) == "x"
    with pytest.raises(Boom, match="boom") as caught:
        await guarded.execute(error, WorkflowContext())
    assert caught.value is error
    assert guarded.state == "closed"


@virtual
async def test_case_36_a_success_in_between_starts_the_count_anew(clock):
    """Four failures, a success and four failures leave it closed; a fifth opens."""
    guarded = breaker(failure_threshold=5)
    await tell(guarded, *[Boom()] * 4, "ok", *[Boom()] * 4)
    assert guarded.state == "closed"
    await tell(guarded, Boom())
    assert guarded.state == "open"


@virtual
async def test_five_failures_in_a_row_open_it_unless_said_otherwise(clock):
    """The usual threshold is five, however long they take to come."""
    guarded = breaker()
    for _ in range(4):
        await tell(guarded, Boom())
        await asyncio.sleep(3600)
    assert guarded.state == "closed"
    assert await tell(guarded, Boom(), "ok") == [Boom, CircuitOpenError]


@virtual
async def test_case_37_a_rate_counts_from_the_least_number_of_calls(clock):
    """Nine failures of nine leave it closed, and the tenth opens."""
    guarded = breaker(failure_rate=0.5, minimum_calls=10, window=30)
    await tell(guarded, *[Boom()] * 9)
    assert guarded.state == "closed"
    await tell(guarded, Boom())
    assert guarded.state == "open"


@pytest.mark.parametrize(
    ("rate", "calls", "enough"),
    [(0.07, 100, 7), (0.1, 30, 3), (0.5, 10, 5), (1, 10, 10), (0.3, 10, 3)],
)
@virtual
async def test_case_37_a_rate_is_reached_exactly(clock, rate, calls, enough):
    """As many failures as the rate says open it, and one fewer does not."""
    for failures, state in ((enough - 1, "closed"), (enough, "open")):
        guarded = breaker(failure_rate=rate, minimum_calls=calls)
        await tell(guarded, *["ok"] * (calls - failures), *[Boom()] * failures)
        assert guarded.state == state


@virtual
async def test_case_37_calls_leave_the_window(clock):
    """What is older than the window does not count: neither failures nor successes."""
    guarded = breaker(failure_rate=0.5, minimum_calls=4, window=30)
    await tell(guarded, *[Boom()] * 3)
    await asyncio.sleep(31)
    await tell(guarded, Boom())
    assert guarded.state == "closed"
    await asyncio.sleep(10)
    await tell(guarded, "ok", "ok", "ok")
    await asyncio.sleep(22)
    # The failure of 32 seconds ago is gone; three successes are left.
    await tell(guarded, Boom(), Boom())
    assert guarded.state == "closed"
    await tell(guarded, Boom())
    assert guarded.state == "open"


@pytest.mark.parametrize("began", [0, 0.5, 2.9])
@virtual
async def test_case_37_calls_stay_for_nine_tenths_of_the_window_at_least(clock, began):
    """It slides in steps of a tenth."""
    guarded = breaker(failure_rate=0.5, minimum_calls=2, window=30)
    await asyncio.sleep(began)
    await tell(guarded, Boom())
    await asyncio.sleep(29.9 - began)
    await tell(guarded, Boom())
    assert guarded.state == "open"


@virtual
async def test_a_rate_alone_knows_no_failures_in_a_row(clock):
    """With a failure rate and no threshold, any number in a row is only counted."""
    guarded = breaker(failure_rate=0.9, minimum_calls=30)
    await tell(guarded, *[Boom()] * 29)
    assert guarded.state == "closed"


@virtual
async def test_a_rate_and_a_threshold_that_are_both_given_both_open(clock):
    """Whichever is reached first."""
    by_row = breaker(failure_rate=0.9, minimum_calls=30, failure_threshold=3)
    await tell(by_row, *[Boom()] * 3)
    by_rate = breaker(failure_rate=0.5, minimum_calls=4, failure_threshold=3)
    await tell(by_rate, Boom(), "ok", "ok", Boom())
    assert (by_row.state, by_rate.state) == ("open", "open")


@pytest.mark.parametrize("options", [{}, {"failure_if_result": lambda output: False}])
@virtual
async def test_a_success_never_opens(clock, options):
    """The call that completes the least number is one that failed."""
    guarded = breaker(failure_rate=0.5, minimum_calls=4, **options)
    await tell(guarded, Boom(), Boom(), Boom(), "ok")
    assert guarded.state == "closed"
    await tell(guarded, Boom())
    assert guarded.state == "open"


@pytest.mark.parametrize("most", [1, 3])
@virtual
async def test_case_38_only_so_many_probes_execute(clock, most):
    """Of a hundred callers after the break, the others are rejected at once."""
    guarded = await tripped(half_open_max_calls=most)
    await asyncio.sleep(30)
    calls = guarded.primitive._function.calls
    tasks = [begin(guarded, (5, "ok")) for _ in range(100)]
    await asyncio.sleep(0)
    rejected = [task for task in tasks if task.done()]
    assert len(rejected) == 100 - most
    assert {type(task.exception()) for task in rejected} == {CircuitOpenError}
    assert clock.elapsed == 30
    await asyncio.wait(tasks)
    assert guarded.primitive._function.calls - calls == most
    assert guarded.state == "closed"


@virtual
async def test_case_38_a_rejection_comes_before_any_await(clock):
    """The coroutine of a rejected call raises at its first step."""
    for guarded in (await tripped(), await tripped(half_open_timeout=600)):
        probe = None
        if guarded.options().get("half_open_timeout"):
            await asyncio.sleep(30)
            probe = begin(guarded, (500, "ok"))
            await asyncio.sleep(0)
        with pytest.raises(CircuitOpenError, match=r"service: the circuit is"):
            guarded.execute("x", WorkflowContext()).send(None)
        with pytest.raises(CircuitOpenError, match=r"service: the circuit is"):
            await anext(guarded.stream("x", WorkflowContext()))
        if probe is not None:
            probe.cancel()
            await asyncio.wait([probe])


@pytest.mark.parametrize("outcome", ["ok", Boom()])
@virtual
async def test_case_39_a_call_from_before_the_break_has_no_vote(clock, outcome):
    """Admitted while closed and ended while half-open, it neither closes nor opens."""
    guarded = breaker(failure_threshold=1, half_open_max_calls=2)
    early = begin(guarded, (40, outcome))
    await asyncio.sleep(1)
    await tell(guarded, Boom())
    await asyncio.sleep(30)
    probe = begin(guarded, (20, "ok"))
    await asyncio.wait([early])
    assert (clock.elapsed, guarded.state) == (40, "half_open")
    await probe
    assert guarded.state == "closed"


@pytest.mark.parametrize("failures", [1, 5])
@virtual
async def test_case_39_nor_has_it_one_in_a_later_closed_period(clock, failures):
    """Failures of an earlier period are not counted in a row with those of this one."""
    guarded = breaker(failure_threshold=2)
    early = [begin(guarded, (100, Boom())) for _ in range(failures)]
    await asyncio.sleep(1)
    await tell(guarded, Boom(), Boom())
    await asyncio.sleep(30)
    await tell(guarded, "ok")
    assert guarded.state == "closed"
    await asyncio.wait(early)
    assert guarded.state == "closed"
    await tell(guarded, Boom(), Boom())
    assert guarded.state == "open"


@virtual
async def test_case_39_a_success_of_an_earlier_period_resets_nothing(clock):
    """The count of failures in a row is that of this period alone."""
    guarded = breaker(failure_threshold=2)
    early = begin(guarded, (100, "ok"))
    await asyncio.sleep(1)
    await tell(guarded, Boom(), Boom())
    await asyncio.sleep(30)
    await tell(guarded, "ok", Boom())
    await early
    await tell(guarded, Boom())
    assert guarded.state == "open"


@virtual
async def test_case_39_a_probe_of_an_earlier_half_open_period_has_no_vote(clock):
    """One that succeeds after another has opened it again does not close it."""
    guarded = await tripped(half_open_max_calls=2)
    await asyncio.sleep(30)
    slow, fails = begin(guarded, (35, "ok")), begin(guarded, (1, Boom()))
    await asyncio.wait([fails])
    assert guarded.state == "open"
    await asyncio.sleep(30)
    current = begin(guarded, (10, Boom()))
    await slow
    assert guarded.state == "half_open"
    await asyncio.wait([current])
    assert guarded.state == "open"


@virtual
async def test_case_40_a_cancelled_probe_gives_its_place_back(clock):
    """It is still half-open, and the next call is a probe at once."""
    guarded = await tripped()
    await asyncio.sleep(30)
    probe = begin(guarded, (5, "ok"))
    await asyncio.sleep(1)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await probe
    assert (guarded.state, clock.elapsed) == ("half_open", 31)
    assert await tell(guarded, "ok") == ["ok"]
    assert guarded.state == "closed"


@virtual
async def test_case_40_cancelled_calls_open_nothing(clock):
    """However many clients hang up, that says nothing about the service."""
    for options in ({"failure_threshold": 3}, {"failure_rate": 0.1}):
        guarded = breaker(**options)
        tasks = [begin(guarded, (5, "ok")) for _ in range(20)]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        stats = guarded.stats
        assert (stats.state, stats.failures, stats.calls) == ("closed", 0, 20)


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit, GeneratorExit])
@virtual
async def test_rule_02_signals_of_the_interpreter_are_no_verdict(clock, signal):
    """They pass whatever is recorded, and a probe's place is free again."""
    guarded = await half_opened(record_on=BaseException)
    coroutine = guarded.execute(signal("stop"), WorkflowContext())
    with pytest.raises(signal, match="stop"):
        coroutine.send(None)
    assert guarded.state == "half_open"
    assert await tell(guarded, "ok") == ["ok"]


@pytest.mark.parametrize("options", [{}, {"failure_rate": 0.1, "minimum_calls": 1}])
@virtual
async def test_rule_02_a_cancellation_is_no_failure_whatever_is_recorded(
    clock, options
):
    """Also where everything is."""
    guarded = breaker(record_on=BaseException, **options)
    for _ in range(6):
        task = begin(guarded, (5, "ok"))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError, match=CANCELLED):
            await task
    assert (guarded.state, guarded.stats.failures) == ("closed", 0)


@virtual
async def test_rule_02_an_error_made_of_a_cancellation_is_no_verdict(clock):
    """A driver may report a cancellation as a broken connection: it does not count."""

    async def driver(value):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("broken") from None

    guarded = breaker(driver, failure_threshold=1)
    task = begin(guarded, "x")
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(OSError, match="broken"):
        await task
    assert (guarded.state, guarded.stats.failures) == ("closed", 0)


@virtual
async def test_rule_04_an_outer_limit_is_no_verdict_and_an_inner_one_is_a_failure(
    clock,
):
    """Outside of the breaker the caller has lost patience; inside, the service."""
    outer = TimeoutPrimitive(breaker(failure_threshold=1), timeout_seconds=5)
    assert await tell(outer, (60, "ok")) == [TimeoutExceededError]
    assert outer.primitive.state == "closed"
    inner = breaker(TimeoutPrimitive(Service(), timeout_seconds=5), failure_threshold=1)
    assert await tell(inner, (60, "ok")) == [TimeoutExceededError]
    assert inner.state == "open"


@virtual
async def test_rule_05_a_limit_that_left_no_time_to_start_is_no_verdict(clock):
    """A caller whose deadline has passed says nothing about the service."""
    guarded = breaker(
        TimeoutPrimitive(Service(), timeout_seconds=5), failure_threshold=1
    )
    with pytest.raises(TimeoutExceededError, match="had no time left to start"):
        await guarded.execute("x", WorkflowContext(deadline=0))
    assert (guarded.state, guarded.stats.ignored) == ("closed", 1)


@virtual
async def test_case_41_an_ignored_error_gives_the_place_back(clock):
    """The probe's error comes out, and the next call is a probe at once."""
    guarded = await tripped(ignore=KeyError)
    await asyncio.sleep(30)
    with pytest.raises(KeyError, match="not here"):
        await guarded.execute(KeyError("not here"), WorkflowContext())
    assert (guarded.state, guarded.stats.ignored) == ("half_open", 1)
    assert await tell(guarded, "ok") == ["ok"]
    assert guarded.state == "closed"


@virtual
async def test_case_41_ignored_errors_neither_open_nor_start_anew(clock):
    """They stand outside of the row."""
    guarded = breaker(failure_threshold=2, record_on=(Boom, KeyError), ignore=KeyError)
    await tell(guarded, Boom(), KeyError(), ValueError())
    assert guarded.state == "closed"
    await tell(guarded, Boom())
    assert guarded.state == "open"


@pytest.mark.parametrize("filters", [{"record_on": OSError}, {"ignore": Boom}])
@virtual
async def test_what_is_not_recorded_says_nothing(clock, filters):
    """An error outside of `record_on` is no failure and no success."""
    guarded = breaker(failure_threshold=1, **filters)
    assert await tell(guarded, Boom()) == [Boom]
    stats = guarded.stats
    assert (stats.state, stats.ignored, stats.successes) == ("closed", 1, 0)


@pytest.mark.parametrize(
    ("error", "options", "counts"),
    [
        (ExceptionGroup("g", [Boom(), KeyError()]), {"record_on": Boom}, True),
        (ExceptionGroup("g", [KeyError()]), {"record_on": Boom}, False),
        (ExceptionGroup("g", [Boom(), KeyError()]), {"ignore": KeyError}, True),
        (
            ExceptionGroup("g", [Boom(), KeyError()]),
            {"ignore": (KeyError, Boom)},
            False,
        ),
        (ExceptionGroup("g", [BulkheadFullError("full")]), {}, False),
        (ExceptionGroup("g", [BulkheadFullError("full"), Boom()]), {}, True),
        (
            FallbackExhaustedError("all", [KeyError()]),
            {"record_on": FallbackExhaustedError},
            True,
        ),
        (
            FallbackExhaustedError("all", [BulkheadFullError("full")]),
            {"record_on": FallbackExhaustedError},
            False,
        ),
        (
            FallbackExhaustedError("all", [Boom()]),
            {"ignore": FallbackExhaustedError},
            False,
        ),
        (Boom("this"), {"record_on": lambda error: "this" in str(error)}, True),
        (Boom("that"), {"record_on": lambda error: "this" in str(error)}, False),
    ],
)
@virtual
async def test_a_group_is_judged_by_its_leaves(clock, error, options, counts):
    """It is a failure if one of them is, or if its own type is listed."""
    guarded = breaker(failure_threshold=1, **options)
    assert await tell(guarded, error) == [type(error)]
    assert guarded.state == ("open" if counts else "closed")


@virtual
async def test_rule_06_a_rejection_from_below_is_never_counted(clock):
    """Neither as failure nor as success, also if it is listed; its place is free."""
    rejection = BulkheadFullError("full")
    guarded = await half_opened(record_on=(Boom, BulkheadFullError))
    assert await tell(guarded, rejection) == [BulkheadFullError]
    assert guarded.state == "half_open"
    assert await tell(guarded, "ok") == ["ok"]
    fresh = breaker(failure_threshold=2)
    await tell(fresh, Boom(), *[rejection] * 10, Boom())
    assert (fresh.state, fresh.stats.ignored) == ("open", 10)


@virtual
async def test_rule_06_an_inner_breaker_that_is_open_does_not_open_the_outer(clock):
    """Its rejections are passed on."""
    inner = breaker(failure_threshold=1)
    outer = breaker(inner, failure_threshold=2)
    assert await tell(outer, Boom(), "x", "x", "x") == [Boom, *[CircuitOpenError] * 3]
    assert (inner.state, outer.state) == ("open", "closed")


@virtual
async def test_case_42_a_hanging_probe_gives_way(clock):
    """After its time a new probe is admitted, and the old one has no vote."""
    guarded = await tripped(half_open_timeout=10)
    await asyncio.sleep(30)
    hangs = begin(guarded, (40, "ok"))
    await asyncio.sleep(9.5)
    assert await tell(guarded, "ok") == [CircuitOpenError]
    await asyncio.sleep(0.5)
    current = begin(guarded, (100, Boom()))
    await hangs
    assert guarded.state == "half_open"
    latest = begin(guarded, (100, "ok"))
    await asyncio.wait([current])
    assert guarded.state == "half_open"
    await latest
    assert guarded.state == "closed"


@virtual
async def test_case_42_the_oldest_probe_gives_way_first(clock):
    """Others that have not had their time keep their places."""
    guarded = await tripped(half_open_timeout=10, half_open_max_calls=2)
    await asyncio.sleep(30)
    hangs = begin(guarded, (60, "ok"))
    await asyncio.sleep(8)
    younger = begin(guarded, (4, "ok"))
    await asyncio.sleep(2)
    third = begin(guarded, (5, Boom()))
    await asyncio.sleep(0)
    assert await tell(guarded, "x") == [CircuitOpenError]
    assert not third.done()
    await younger
    assert guarded.state == "closed"
    await asyncio.wait([hangs, third])


@virtual
async def test_case_42_a_hanging_probe_in_whose_place_nobody_came_has_its_vote(clock):
    """It is late, but the best news that there is."""
    guarded = await tripped(half_open_timeout=10)
    await asyncio.sleep(30)
    assert await tell(guarded, (40, "ok")) == ["ok"]
    assert guarded.state == "closed"


@virtual
async def test_case_42_a_probe_may_usually_take_as_long_as_the_break(clock):
    """Without a time of its own, the one of the present break counts."""
    guarded = await tripped(recovery_timeout=lambda n: (7, 20)[n])
    await asyncio.sleep(7)
    await tell(guarded, Boom())
    await asyncio.sleep(20)
    hangs = begin(guarded, (60, "ok"))
    await asyncio.sleep(19)
    assert await tell(guarded, "ok") == [CircuitOpenError]
    await asyncio.sleep(1)
    assert await tell(guarded, "ok") == ["ok"]
    await hangs


@virtual
async def test_case_43_a_rejection_tells_the_rest_of_the_break(clock):
    """On the loop's clock, and each is a new object whose traceback does not grow."""
    guarded = await tripped(recovery_timeout=30)
    await asyncio.sleep(7.5)
    seen = []
    for _ in range(1000):
        with pytest.raises(CircuitOpenError, match=OPEN) as caught:
            await guarded.execute("x", WorkflowContext())
        seen.append(caught.value)
    assert {error.retry_after for error in seen} == {22.5}
    assert len({id(error) for error in seen}) == 1000
    depths = {len(traceback.extract_tb(error.__traceback__)) for error in seen}
    assert len(depths) == 1
    assert str(seen[0]) == (
        "circuit_breaker/service: the circuit is open for another 22.5 s"
    )


@pytest.mark.parametrize("start", [0.0, 0.1, 12.3, 1e6 + 0.7])
@pytest.mark.parametrize("pause", [0.2, 29.8, 1 / 3])
def test_case_43_who_waits_for_that_long_is_admitted(start, pause):
    """No rounding makes a caller come a hair too early."""

    async def run():
        guarded = await tripped(recovery_timeout=pause)
        await asyncio.sleep(pause / 7)
        with pytest.raises(CircuitOpenError, match=OPEN) as caught:
            await guarded.execute("x", WorkflowContext())
        await asyncio.sleep(caught.value.retry_after)
        return await tell(guarded, "ok")

    assert VirtualClock(loop_start=start).run(run()) == ["ok"]


def test_case_43_a_billionth_of_a_second_is_over():
    """Real clocks fire a hair early, and differences of times are not exact."""
    assert Open(0.1 + 0.2).left(0.3) == 0.0
    assert Open(42.1).left(12.3 + (42.1 - 12.3) - 4e-10) == 0.0
    assert Open(42.1).left(42.1 - 2e-9) == 2e-9


def alive():
    """Return how many errors, and states of breakers, there are in the process."""
    kinds = {
        Boom,
        CircuitIsolatedError,
        CircuitOpenError,
        Closed,
        HalfOpen,
        Open,
        Probe,
    }
    return sum(type(one) in kinds for one in gc.get_objects())


@virtual
async def test_case_43_rejections_leave_no_cyclic_garbage(clock):
    """A thousand of each kind are gone as soon as they are caught."""
    guarded = await tripped()
    isolated = breaker()
    await isolated.isolate()
    with only_new_garbage():
        before = alive()
        await tell(guarded, *["x"] * 1000)
        await tell(isolated, *["x"] * 1000)
        assert alive() <= before


@virtual
async def test_case_06_failures_and_changes_of_state_leave_no_cyclic_garbage(clock):
    """Opening, probing and closing a hundred times, with the collector off."""
    changes = []
    guarded = breaker(failure_threshold=1, on_state_change=changes.append)

    async def cycle():
        # The type: an error in these frames would be held by its own traceback.
        await tell(guarded, Boom, "x")
        await asyncio.sleep(30)
        await tell(guarded, Boom)
        await asyncio.sleep(30)
        await tell(guarded, "ok")

    with only_new_garbage():
        await cycle()
        before = alive()
        for _ in range(100):
            await cycle()
        assert alive() <= before
    assert len(changes) == 5 * 101


@virtual
async def test_case_45_the_call_that_opens_keeps_its_own_error(clock):
    """It is that very object, with nothing added to it."""
    for guarded in (breaker(failure_threshold=1), await half_opened()):
        error = Boom("mine")
        with pytest.raises(Boom, match="mine") as caught:
            await guarded.execute(error, WorkflowContext())
        assert guarded.state == "open"
        assert caught.value is error
        assert error.__context__ is error.__cause__ is None
        assert not hasattr(error, "__notes__")


@virtual
async def test_case_47_breaks_grow_while_probes_fail(clock):
    """Each opening since the last close is numbered from 0, and success starts anew."""
    asked = []

    def growing(opening):
        asked.append(opening)
        return min(300, 10 * 2**opening)

    guarded = breaker(failure_threshold=1, recovery_timeout=growing)
    assert asked == [0]
    breaks = []
    await tell(guarded, Boom())
    for _ in range(6):
        breaks.append(guarded.stats.retry_after)
        await asyncio.sleep(breaks[-1])
        await tell(guarded, Boom())
    assert breaks == [10, 20, 40, 80, 160, 300]
    await asyncio.sleep(300)
    assert await tell(guarded, "ok", Boom()) == ["ok", Boom]
    assert guarded.stats.retry_after == 10
    assert asked == [0, 0, 1, 2, 3, 4, 5, 6, 0]


@pytest.mark.parametrize(
    "broken",
    [lambda n: -1, lambda n: "soon", lambda n: 1 / 0, lambda n: 2.0 ** (n * 999)],
)
@virtual
async def test_case_47_a_function_that_fails_later_leaves_the_last_break(
    clock, caplog, broken
):
    """The breaker opens all the same, and the call's own error comes out."""
    guarded = await tripped(recovery_timeout=lambda n: 10 if n < 2 else broken(n))
    for _ in range(3):
        await asyncio.sleep(10)
        with pytest.raises(Boom, match="boom"):
            await guarded.execute(Boom(), WorkflowContext())
        assert guarded.stats.retry_after == 10
    # What earlier tests have left to the collector may complain meanwhile.
    ours = [r.levelname for r in caplog.records if r.name == "tta_primitives"]
    assert ours == ["ERROR"]
    assert "is ignored" in caplog.text


@virtual
async def test_case_47_a_break_may_be_a_timedelta(clock):
    """As a fixed one, and as what the function returns."""
    pause = timedelta(minutes=1)
    for recovery_timeout in (pause, lambda n: pause):
        guarded = await tripped(recovery_timeout=recovery_timeout)
        assert guarded.stats.retry_after == 60


@virtual
async def test_case_48_slow_calls_open_although_they_succeed(clock):
    """Half of ten calls take three seconds where two are allowed."""
    guarded = breaker(slow_call_duration=2, slow_call_rate=0.5)
    assert await tell(guarded, *["ok"] * 5, *[(3, "ok")] * 5) == ["ok"] * 10
    assert (guarded.state, guarded.stats.slow) == ("open", 5)


@virtual
async def test_case_48_a_call_that_takes_exactly_so_long_is_not_slow(clock):
    """Slow is what takes longer, also where the clock shows fractions."""
    await asyncio.sleep(0.1)
    guarded = breaker(slow_call_duration=0.3, slow_call_rate=0.04, minimum_calls=1)
    for _ in range(20):
        await tell(guarded, (0.3, "ok"))
    assert (guarded.state, guarded.stats.slow) == ("closed", 0)
    await tell(guarded, (0.301, "ok"))
    assert guarded.state == "open"


@virtual
async def test_case_48_a_failure_may_be_slow_too(clock):
    """It counts for both; and failures in a row open as ever."""
    guarded = breaker(slow_call_duration=2, slow_call_rate=1, minimum_calls=3)
    await tell(guarded, (3, Boom()), (3, "ok"), (3, Boom()))
    stats = guarded.stats
    assert (stats.state, stats.failures, stats.slow) == ("open", 2, 3)
    by_row = breaker(slow_call_duration=2, slow_call_rate=1)
    await tell(by_row, *[Boom()] * 5)
    assert by_row.state == "open"


@virtual
async def test_case_48_a_slow_probe_opens_it_again(clock):
    """A service that has become slow is well when it is quick again."""
    guarded = breaker(slow_call_duration=2, slow_call_rate=1, minimum_calls=1)
    await tell(guarded, (3, "ok"))
    for takes, state in ((3, "open"), (1, "closed")):
        await asyncio.sleep(30)
        assert await tell(guarded, (takes, "ok")) == ["ok"]
        assert guarded.state == state


@virtual
async def test_a_result_may_be_a_failure(clock):
    """It is returned as it is, and counts."""
    guarded = breaker(
        failure_threshold=2, failure_if_result=lambda output: output == "busy"
    )
    assert await tell(guarded, "busy", "ok", "busy", "busy") == [
        "busy",
        "ok",
        "busy",
        "busy",
    ]
    assert (guarded.state, guarded.stats.failures) == ("open", 3)
    await asyncio.sleep(30)
    assert await tell(guarded, "busy", "ok") == ["busy", CircuitOpenError]


@pytest.mark.parametrize("where", ["failure_if_result", "record_on", "ignore"])
@virtual
async def test_a_predicate_that_raises_leaves_no_probe_behind(clock, where):
    """Its error comes out, counts for nothing, and the place is free again."""

    def broken(value):
        if value == "bad" or str(value) == "bad":
            raise ZeroDivisionError("in the predicate")
        return where == "record_on"

    guarded = breaker(failure_threshold=1, **{where: broken})
    told = "bad" if where == "failure_if_result" else Boom("bad")
    await tell(guarded, Boom())
    await asyncio.sleep(30)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="in the predicate"):
            await guarded.execute(told, WorkflowContext())
    assert guarded.state == "half_open"
    assert await tell(guarded, "ok") == ["ok"]
    assert guarded.state == "closed"


@virtual
async def test_several_probes_must_succeed_if_so_many_are_asked_for(clock):
    """They may come one after the other; a failure among them opens it again."""
    guarded = await tripped(success_threshold=3)
    await asyncio.sleep(30)
    await tell(guarded, "ok", "ok")
    assert guarded.state == "half_open"
    await tell(guarded, Boom())
    assert guarded.state == "open"
    await asyncio.sleep(30)
    await tell(guarded, "ok", "ok", "ok")
    assert guarded.state == "closed"


@virtual
async def test_probes_may_run_beside_each_other(clock):
    """The first that fails opens it again, and what the others bring is too late."""
    guarded = await tripped(half_open_max_calls=3, success_threshold=2)
    await asyncio.sleep(30)
    tasks = [begin(guarded, told) for told in ((1, "ok"), (2, Boom()), (3, "ok"))]
    await asyncio.wait(tasks)
    assert guarded.state == "open"
    assert guarded.stats.retry_after == 29


@virtual
async def test_case_50_a_listener_that_raises_changes_nothing(clock, caplog):
    """The change stands, the call's own error comes out, and it is logged once."""

    def listener(change):
        raise RuntimeError("deaf")

    guarded = await tripped(on_state_change=listener)
    await asyncio.sleep(30)
    with pytest.raises(Boom, match="boom"):
        await guarded.execute(Boom(), WorkflowContext())
    await asyncio.sleep(30)
    assert await tell(guarded, "ok") == ["ok"]
    assert guarded.state == "closed"
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1


@virtual
async def test_rule_10_a_listener_is_told_after_the_change(clock):
    """It sees the state that has begun, and each change once."""
    seen = []

    def listener(change):
        seen.append((change, guarded.state))

    guarded = breaker(failure_threshold=1, on_state_change=listener).named("payments")
    await tell(guarded, Boom())
    await asyncio.sleep(30)
    await tell(guarded, Boom())
    await asyncio.sleep(30)
    await tell(guarded, "ok")
    await guarded.isolate()
    await guarded.isolate()
    await guarded.close()
    await guarded.close()
    expected = [
        ("closed", "open", "failures", 30),
        ("open", "half_open", "recovery_timeout", None),
        ("half_open", "open", "probe_failed", 30),
        ("open", "half_open", "recovery_timeout", None),
        ("half_open", "closed", "probes_succeeded", None),
        ("closed", "isolated", "by_hand", None),
        ("isolated", "closed", "by_hand", None),
    ]
    assert seen == [
        (CircuitStateChange("payments", "service", *change), change[1])
        for change in expected
    ]


@virtual
async def test_what_observers_hear(clock, events):
    """Every change with the figures behind it, and every rejection."""
    by_row, by_rate = breaker(failure_threshold=2), breaker(failure_rate=0.3)
    slow = breaker(slow_call_duration=1, slow_call_rate=0.5, minimum_calls=2)
    await tell(by_row, Boom(), Boom(), "x")
    await tell(by_rate, *["ok"] * 7, *[Boom()] * 3)
    await tell(slow, "ok", (2, "ok"))
    await asyncio.sleep(30)
    await tell(by_row, Boom())
    await asyncio.sleep(30)
    await tell(by_row, "ok")
    assert events.seen == [
        (
            "breaker.opened",
            {"reason": "failures", "retry_after": 30, "opening": 1, "failures": 2},
        ),
        ("breaker.rejected", {"state": "open", "retry_after": 30}),
        (
            "breaker.opened",
            {
                "reason": "failure_rate",
                "retry_after": 30,
                "opening": 1,
                "failures": 3,
                "calls": 10,
            },
        ),
        (
            "breaker.opened",
            {
                "reason": "slow_call_rate",
                "retry_after": 30,
                "opening": 1,
                "slow": 1,
                "calls": 2,
            },
        ),
        ("breaker.half_opened", {"reason": "recovery_timeout"}),
        (
            "breaker.opened",
            {"reason": "probe_failed", "retry_after": 30, "opening": 2},
        ),
        ("breaker.half_opened", {"reason": "recovery_timeout"}),
        ("breaker.closed", {"reason": "probes_succeeded"}),
    ]


@virtual
async def test_what_observers_hear_of_a_change_by_hand(clock, events):
    """It is told in the call whose context is given."""

    class Operator(WorkflowPrimitive):
        async def execute(self, input_data, context):
            await getattr(guarded, input_data)(context)

    guarded = breaker()
    await Operator().execute("isolate", WorkflowContext())
    await tell(guarded, "x")
    await Operator().execute("close", WorkflowContext())
    await guarded.isolate()
    assert events.seen == [
        ("breaker.isolated", {"reason": "by_hand"}),
        ("breaker.rejected", {"state": "isolated", "retry_after": None}),
        ("breaker.closed", {"reason": "by_hand"}),
    ]


@virtual
async def test_an_isolated_breaker_rejects_until_it_is_closed(clock):
    """However long that takes; and closing it forgets the past."""
    guarded = breaker(failure_threshold=2)
    await tell(guarded, Boom())
    await guarded.isolate()
    await asyncio.sleep(1e6)
    with pytest.raises(CircuitIsolatedError, match="isolated by hand") as caught:
        await guarded.execute("x", WorkflowContext())
    assert caught.value.retry_after is None
    await guarded.close()
    assert await tell(guarded, Boom(), "ok") == [Boom, "ok"]
    assert guarded.state == "closed"


@pytest.mark.parametrize("outcome", ["ok", Boom()])
@virtual
async def test_calls_under_way_when_it_is_isolated_have_no_vote(clock, outcome):
    """They go on, and leave it isolated; so do probes."""
    guarded = breaker(failure_threshold=1)
    early = begin(guarded, (5, outcome))
    await asyncio.sleep(1)
    await guarded.isolate()
    await asyncio.wait([early])
    assert guarded.state == "isolated"
    probed = await tripped()
    await asyncio.sleep(30)
    probe = begin(probed, (5, outcome))
    await asyncio.sleep(1)
    await probed.isolate()
    await asyncio.wait([probe])
    assert probed.state == "isolated"


@virtual
async def test_closing_by_hand_ends_a_break(clock):
    """The next calls pass, and the next opening is a first one."""
    guarded = await tripped(recovery_timeout=lambda n: 10 * 2**n)
    await asyncio.sleep(10)
    await tell(guarded, Boom())
    assert guarded.stats.retry_after == 20
    await guarded.close()
    assert await tell(guarded, "ok", Boom()) == ["ok", Boom]
    assert guarded.stats.retry_after == 10


@virtual
async def test_stats_count_what_happened(clock):
    """Calls by how they ended, rejections, openings, and how it stands."""
    guarded = breaker(failure_threshold=2, ignore=KeyError)
    assert guarded.stats == CircuitBreakerStats(
        state="closed",
        retry_after=None,
        calls=0,
        successes=0,
        failures=0,
        ignored=0,
        slow=0,
        rejected=0,
        opened=0,
    )
    assert guarded.stats.failure_ratio == 0.0
    under_way = begin(guarded, (60, "ok"))
    await asyncio.sleep(0)
    await tell(guarded, "ok", KeyError(), Boom(), Boom(), "x", "x", "x")
    await asyncio.sleep(10)
    assert guarded.stats == CircuitBreakerStats(
        state="open",
        retry_after=20,
        calls=5,
        successes=1,
        failures=2,
        ignored=1,
        slow=0,
        rejected=3,
        opened=1,
    )
    assert guarded.stats.failure_ratio == 2 / 3
    await under_way
    assert guarded.stats.successes == 2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"slow_call_duration": 2, "slow_call_rate": 1},
        {"failure_if_result": lambda output: output == "x"},
    ],
    ids=["plain", "slow", "result"],
)
@virtual
async def test_each_success_is_counted_once(clock, options):
    """Whatever else a breaker looks at."""
    guarded = breaker(**options)
    await tell(guarded, "ok", (3, "ok"), Boom(), "ok")
    stats = guarded.stats
    assert (stats.calls, stats.successes, stats.failures) == (4, 3, 1)


def test_stats_may_be_read_where_no_loop_runs():
    """A health check in another thread sees the last known time."""
    guarded = breaker()
    assert guarded.stats.state == "closed"

    async def run():
        await tell(guarded, *[Boom()] * 5)
        await asyncio.sleep(10)
        await tell(guarded, "x")

    VirtualClock().run(run())
    assert (guarded.stats.state, guarded.stats.retry_after) == ("open", 20)


@virtual
async def test_a_break_that_is_over_is_open_until_the_next_call(clock):
    """Nothing happens by itself: there is no timer."""
    guarded = await tripped()
    await asyncio.sleep(100)
    assert (guarded.state, guarded.stats.retry_after) == ("open", 0.0)
    assert clock.sleeps[-1].delay == 100
    await tell(guarded, "ok")
    assert guarded.state == "closed"


def test_a_break_goes_on_in_another_loop_whose_clock_began_anew():
    """It is over after at most as long as it was to take; nothing waits for ever."""
    guarded = breaker(failure_threshold=1, recovery_timeout=30)

    async def trips():
        await asyncio.sleep(10_000)
        await tell(guarded, Boom())
        await asyncio.sleep(10)

    async def waits():
        rejected = await tell(guarded, "x")
        left = guarded.stats.retry_after
        await asyncio.sleep(left)
        return rejected, left, await tell(guarded, "ok")

    VirtualClock().run(trips())
    assert VirtualClock().run(waits()) == ([CircuitOpenError], 20, ["ok"])


def test_a_window_goes_on_in_another_loop_whose_clock_began_anew():
    """Old failures leave it in time, and new ones are counted."""
    guarded = breaker(failure_rate=0.5, minimum_calls=4, window=10)

    async def fails(*waits):
        for wait in waits:
            await asyncio.sleep(wait)
            await tell(guarded, Boom())
        return guarded.state

    assert VirtualClock().run(fails(10_000, 0)) == "closed"
    assert VirtualClock().run(fails(0, 11, 0, 0)) == "closed"
    assert VirtualClock().run(fails(5)) == "open"


def test_a_probe_of_a_loop_that_has_ended_gives_way():
    """Its loop is gone with it; in the next one its time is over in time."""
    guarded = breaker(failure_threshold=1, half_open_timeout=5)

    async def abandons():
        await asyncio.sleep(10_000)
        await tell(guarded, Boom())
        await asyncio.sleep(30)
        coroutine = guarded.execute((60, "ok"), WorkflowContext())
        coroutine.send(None)
        return coroutine

    async def waits():
        rejected = await tell(guarded, "x")
        await asyncio.sleep(5)
        return rejected, await tell(guarded, "ok")

    abandoned = VirtualClock().run(abandons())
    assert VirtualClock().run(waits()) == ([CircuitOpenError], ["ok"])
    abandoned.close()


@virtual
async def test_a_stream_has_succeeded_when_it_ends(clock):
    """A probe's stream closes the breaker with its last chunk, not before."""
    guarded = breaker(Stream([Boom()], ["a", 1.0, "b"]), failure_threshold=1)
    assert await chunks_of(guarded, "x", WorkflowContext()) == ([], guarded_error())
    await asyncio.sleep(30)
    stream = guarded.stream("x", WorkflowContext())
    seen = [(chunk, guarded.state) async for chunk in stream]
    assert seen == [("a", "half_open"), ("b", "half_open")]
    assert guarded.state == "closed"


def guarded_error():
    """Return what compares equal to any failure of a stream in these tests."""

    class Any(Boom):
        def __eq__(self, other):
            return type(other) is Boom

        __hash__ = None

    return Any()


@virtual
async def test_a_stream_that_fails_late_is_a_failure(clock):
    """Chunks that came before do not make it a success, and they are passed on."""
    guarded = breaker(Stream(["a", "b", Boom()]), failure_threshold=2)
    for _ in range(2):
        chunks, error = await chunks_of(guarded, "x", WorkflowContext())
        assert (chunks, type(error)) == (["a", "b"], Boom)
    chunks, error = await chunks_of(guarded, "x", WorkflowContext())
    assert (chunks, type(error)) == ([], CircuitOpenError)


@virtual
async def test_a_stream_holds_its_place_until_it_is_closed(clock):
    """While it streams others are rejected; a consumer that leaves has no vote."""
    service = Stream([Boom()], ["a", "b"])
    guarded = breaker(service, failure_threshold=1, record_on=BaseException)
    await chunks_of(guarded, "x", WorkflowContext())
    await asyncio.sleep(30)
    stream = guarded.stream("x", WorkflowContext())
    assert await anext(stream) == "a"
    with pytest.raises(CircuitOpenError, match=PROBED) as caught:
        await anext(guarded.stream("x", WorkflowContext()))
    assert caught.value.retry_after is None
    await stream.aclose()
    assert (guarded.state, guarded.stats.successes) == ("half_open", 0)
    chunks, _ = await chunks_of(guarded, "x", WorkflowContext())
    assert (chunks, guarded.state) == (["a", "b"], "closed")


@virtual
async def test_a_stream_is_slow_if_its_first_chunk_is(clock):
    """Its length does not count, nor does the pace of its consumer."""
    options = {"slow_call_duration": 2, "slow_call_rate": 1, "minimum_calls": 1}
    long = breaker(Stream(["a", 60.0, "b"]), **options)
    async for _ in long.stream("x", WorkflowContext()):
        await asyncio.sleep(60)
    assert (long.state, long.stats.slow) == ("closed", 0)
    for late in ([3.0, "a", "b"], [3.0], [3.0, Boom()]):
        slow = breaker(Stream(late), **options)
        await chunks_of(slow, "x", WorkflowContext())
        assert (slow.state, slow.stats.slow) == ("open", 1)


@virtual
async def test_a_stream_that_is_never_begun_is_never_admitted(clock):
    """A place is taken when the first chunk is asked for."""
    guarded = breaker(Stream([Boom()], ["a"]), failure_threshold=1)
    await chunks_of(guarded, "x", WorkflowContext())
    await asyncio.sleep(30)
    unused = guarded.stream("x", WorkflowContext())
    assert (await chunks_of(guarded, "x", WorkflowContext()))[0] == ["a"]
    await unused.aclose()
    assert guarded.stats.calls == 2


@virtual
async def test_rule_03_a_retry_outside_counts_every_attempt_and_inside_one_call(clock):
    """The order of composition is its meaning."""
    inside = breaker(Script(Boom()), failure_threshold=3)
    around = RetryPrimitive(inside, max_retries=5, initial_delay=0)
    with pytest.raises(CircuitOpenError, match=OPEN):
        await around.execute("x", WorkflowContext())
    assert inside.stats.failures == 3
    outside = breaker(
        RetryPrimitive(Script(Boom()), max_retries=5, initial_delay=0),
        failure_threshold=3,
    )
    with pytest.raises(Boom, match="boom"):
        await outside.execute("x", WorkflowContext())
    assert outside.stats.failures == 1


@virtual
async def test_a_retry_that_lists_rejections_waits_for_the_break(clock):
    """It comes back exactly when the next probe is due."""
    service = Script(Boom(), "ok")
    guarded = breaker(service, failure_threshold=1, recovery_timeout=20)
    patient = RetryPrimitive(
        guarded, retry_on=(Boom, CircuitOpenError), initial_delay=1, jitter="none"
    )
    assert await patient.execute("x", WorkflowContext()) == "ok"
    assert clock.elapsed == 20


@virtual
async def test_a_usual_retry_leaves_an_open_circuit_alone(clock):
    """A rejection is raised at once."""
    guarded = await tripped()
    with pytest.raises(CircuitOpenError, match=OPEN) as caught:
        await RetryPrimitive(guarded).execute("x", WorkflowContext())
    assert (clock.elapsed, len(attempts_of(caught.value))) == (0, 1)


@virtual
async def test_rule_06_a_fallback_answers_for_an_open_circuit(clock):
    """Nothing was executed, so any alternative is safe."""
    guarded = await tripped()
    answered = FallbackPrimitive(guarded, ["cached"])
    assert await answered.execute("x", WorkflowContext()) == "cached"


@virtual
async def test_each_binding_has_a_state_of_its_own(clock):
    """What opens around one step leaves the other alone."""
    opened = CircuitBreakerPrimitive(failure_threshold=1)
    first, second = opened.bind(Service()), opened.bind(Service())
    await tell(first, Boom())
    assert (first.state, second.state) == ("open", "closed")


@virtual
async def test_a_name_does_not_part_a_breaker_from_its_state(clock):
    """A named copy is the same breaker, whichever of the two sees a failure."""
    guarded = breaker(failure_threshold=2)
    twin = guarded.named("payments")
    await tell(guarded, Boom())
    await tell(twin, Boom())
    assert (guarded.state, twin.state) == ("open", "open")
    with pytest.raises(CircuitOpenError, match="payments/service: the circuit is open"):
        await twin.execute("x", WorkflowContext())
    assert await tell(guarded, "x") == [CircuitOpenError]


@virtual
async def test_an_open_wrapper_has_no_state(clock):
    """Whatever is asked of it is a clear error."""
    unbound = CircuitBreakerPrimitive()
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        unbound.state  # noqa: B018
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        unbound.stats  # noqa: B018
    for method in (unbound.isolate, unbound.close):
        with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
            await method()
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        await unbound.execute("x", WorkflowContext())
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        await anext(unbound.stream("x", WorkflowContext()))


@virtual
async def test_it_is_composed_like_any_wrapper(clock):
    """In a chain it wraps the next operand and nothing more."""

    @step
    async def fails(value):
        raise Boom

    chain = step(str) >> CircuitBreakerPrimitive(failure_threshold=1) >> fails
    assert await tell(chain, 1, 1) == [Boom, CircuitOpenError]


@pytest.mark.parametrize("options", [{}, {"failure_rate": 0.5}])
@virtual
async def test_a_step_below_sees_its_own_path(clock, options):
    """Whatever asks for its position gets the one below the breaker."""
    seen = []

    @step
    async def where(value, context):
        seen.append(context.position_of(where).path)

    guarded = CircuitBreakerPrimitive(where, **options)
    await tell(guarded, "x")
    async for _ in guarded.stream("x", WorkflowContext()):
        pass
    assert seen == ["circuit_breaker/where"] * 2


@virtual
async def test_rule_05_the_deadline_travels_through(clock):
    """It is what the step sees; the breaker adds none."""

    class Reads(WorkflowPrimitive):
        async def execute(self, input_data, context):
            return context.deadline

    assert await breaker(Reads()).execute("x", WorkflowContext(deadline=7)) == 7


def test_case_93_its_options_are_told():
    """Those that differ from the usual ones, in `repr` and `describe`."""
    assert repr(breaker()) == "<CircuitBreakerPrimitive 'service'>"
    guarded = breaker(failure_rate=0.5, window=60, recovery_timeout=10)
    assert guarded.describe()["options"] == {
        "failure_rate": 0.5,
        "window": 60.0,
        "recovery_timeout": 10.0,
    }
    assert repr(CircuitBreakerPrimitive(failure_threshold=3)) == (
        "<CircuitBreakerPrimitive open failure_threshold=3>"
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"failure_threshold": 0}, ValueError, "failure_threshold=0 must be a whole"),
        (
            {"failure_threshold": 2.5},
            ValueError,
            "failure_threshold=2.5 must be a whole",
        ),
        ({"failure_threshold": True}, ValueError, "failure_threshold=True must be"),
        ({"failure_rate": 0}, ValueError, "failure_rate=0 must be a positive number"),
        ({"failure_rate": 50}, ValueError, "failure_rate=50 must be above 0 and at"),
        ({"failure_rate": "half"}, TypeError, "failure_rate='half' must be a positive"),
        (
            {"minimum_calls": 0, "failure_rate": 1},
            ValueError,
            "minimum_calls=0 must be",
        ),
        ({"minimum_calls": 20}, ValueError, "minimum_calls=20 has a meaning only with"),
        (
            {"window": 60},
            ValueError,
            "window=60.0 has a meaning only with failure_rate",
        ),
        ({"window": 0, "failure_rate": 1}, ValueError, "window=0 must be a positive"),
        ({"recovery_timeout": 0}, ValueError, "recovery_timeout=0 must be a positive"),
        ({"recovery_timeout": None}, TypeError, "recovery_timeout=None must be a pos"),
        (
            {"recovery_timeout": lambda n: n},
            ValueError,
            r"recovery_timeout\(0\)=0 must be a positive number of seconds",
        ),
        (
            {"recovery_timeout": lambda n: "soon"},
            TypeError,
            r"recovery_timeout\(0\)='soon' must be a positive number of seconds",
        ),
        ({"half_open_max_calls": 0}, ValueError, "half_open_max_calls=0 must be"),
        ({"success_threshold": 0}, ValueError, "success_threshold=0 must be a whole"),
        (
            {"half_open_timeout": 0},
            ValueError,
            "half_open_timeout=0 must be a positive",
        ),
        (
            {"slow_call_duration": 2},
            ValueError,
            "slow_call_duration=2.0 and slow_call_rate=None have a meaning only tog",
        ),
        (
            {"slow_call_rate": 0.5},
            ValueError,
            "slow_call_duration=None and slow_call_rate=0.5 have a meaning only",
        ),
        (
            {"slow_call_rate": 2, "slow_call_duration": 1},
            ValueError,
            "slow_call_rate=2 must be above 0 and at most 1",
        ),
        ({"failure_if_result": 1}, TypeError, "failure_if_result=1 must be a function"),
        ({"record_on": "errors"}, TypeError, "record_on='errors' must be an exception"),
        ({"ignore": 404}, TypeError, "ignore=404 must be an exception type"),
        ({"on_state_change": 1}, TypeError, "on_state_change=1 must be a function"),
        (
            {"on_state_change": asyncio.sleep},
            TypeError,
            "on_state_change=.* must be a sync function: it is called, not awaited",
        ),
        ({"storage": {}}, TypeError, "storage={} must be a redis.asyncio.Redis"),
        (
            {"namespace": ""},
            TypeError,
            "namespace='' must be a non-empty text, or None",
        ),
        ({"namespace": "x"}, ValueError, "namespace='x' has a meaning only with stor"),
    ],
)
def test_wrong_options_are_refused_at_construction(options, error, message):
    """The message names the parameter, shows the value and says what is allowed."""
    with pytest.raises(error, match=message):
        breaker(**options)


@pytest.mark.parametrize(
    "options",
    [{}, {"failure_rate": 0.5}, {"slow_call_duration": 1, "slow_call_rate": 0.5}],
    ids=["row", "rate", "slow"],
)
def test_case_97_a_call_in_flight_holds_little_memory(options):
    """What a breaker adds to each of many waiting calls is bounded."""
    from tests.recovery.test_cost import in_flight

    async def waits(value):
        await asyncio.get_running_loop().create_future()

    async def bare(value, context):
        await waits(value)

    async def measure():
        # The first round pays for what is made once.
        await in_flight(breaker(waits, **options).execute, 10)
        held = await in_flight(breaker(waits, **options).execute, 500)
        return held - await in_flight(bare, 500)

    assert asyncio.run(measure()) <= (768 if "slow_call_rate" in options else 512)


@virtual
async def test_a_window_holds_little_memory_however_many_calls_come(clock):
    """It is counted by tenths of the window, not call by call."""
    guarded = breaker(failure_rate=1, window=10)
    for _ in range(300):
        await tell(guarded, "ok", "ok")
        await asyncio.sleep(0.1)
    window = guarded._circuit.episode.window
    assert len(window._slices) <= 10
    assert 180 <= window.calls <= 202
    with suppress(AttributeError):
        window.__dict__  # noqa: B018
        pytest.fail("a window has slots")
