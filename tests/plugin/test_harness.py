"""The harness as a context manager, where there is no fixture."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_tta import ClockDeadlock, FaultPlan, Harness, HarnessError, VirtualClock
from pytest_tta.clock import active
from tests.garbage import only_new_garbage
from tta_primitives import WorkflowContext, step
from tta_primitives.door import is_listening
from tta_primitives.recovery import RetryPrimitive

if TYPE_CHECKING:
    from tests.plugin.conftest import Run


@step
async def fetch(url: str) -> str:
    """Return what was asked for, a second later."""
    await asyncio.sleep(1)
    return url


def test_a_harness_takes_over_and_gives_back() -> None:
    """Inside, time is virtual and the run is recorded; outside nothing is left."""
    before = is_listening()
    with Harness(seed=3) as tta:
        assert tta.run(fetch, "x") == "x"
        assert tta.elapsed == 1.0
        assert [span.path for span in tta.trace.spans] == ["fetch"]
        assert active.clock is tta.clock
    assert active.clock is not tta.clock
    assert is_listening() is before


def test_a_harness_that_was_left_is_no_cyclic_garbage() -> None:
    """An example of a property has one: nobody collects after each."""
    retry = RetryPrimitive(fetch)
    with only_new_garbage():
        with Harness() as tta:
            tta.run(retry, "x")
        del tta
        assert gc.collect() == 0


def test_a_function_can_be_run_as_it_is() -> None:
    """`run` takes a plain function as well as a primitive."""
    with Harness() as tta:
        assert tta.run(str.upper, "x") == "X"


def test_a_context_of_the_tests_own_is_used() -> None:
    """`run` executes with the context that it is given."""
    context = WorkflowContext(correlation_id="order-7")

    async def tell(_: str, context: WorkflowContext) -> str:
        return context.correlation_id

    with Harness() as tta:
        assert tta.run(step(tell), "x", context) == "order-7"


def test_h33_a_scripted_hang_is_named_at_once() -> None:
    """A hang that no limit bounds is reported, with the line that scripted it."""
    with (
        pytest.raises(ClockDeadlock, match=r"fetch .*hangs, as hang\(\) scripted at"),
        Harness() as tta,
    ):
        tta.faults.at("fetch").hang()
        tta.run(fetch, "x")


def test_what_was_scripted_and_not_used_fails_at_the_end() -> None:
    """A block that passed fails on leaving for a reply that nobody asked for."""
    with pytest.raises(HarnessError, match="never"), Harness() as tta:
        tta.llm.at("fetch").reply("unheard")


def test_an_error_of_the_body_is_not_hidden_by_what_was_not_used() -> None:
    """The block's own error passes, whatever else is wrong."""
    with pytest.raises(KeyError, match="own"), Harness() as tta:
        tta.llm.at("fetch").reply("unheard")
        raise KeyError("own")


def test_an_unexpected_call_leaves_as_an_assertion() -> None:
    """Hypothesis shrinks an AssertionError, so an unexpected call becomes one."""
    with pytest.raises(HarnessError, match="was not scripted"), Harness() as tta:
        tta.llm.at("fetch").reply("once")
        tta.run(fetch, "x")
        tta.run(fetch, "x")


def test_a_task_left_running_fails_at_the_end() -> None:
    """A workflow that forgets a task is found out, with the line where it waits."""
    kept = []

    async def forget(url: str) -> str:
        kept.append(asyncio.create_task(asyncio.sleep(60), name="refresher"))
        await asyncio.sleep(1)
        return url

    with (
        pytest.raises(HarnessError, match="left running: task refresher"),
        Harness() as tta,
    ):
        tta.run(step(forget), "x")


def test_a_task_that_was_cancelled_is_not_left_running() -> None:
    """It ends with its loop, whether somebody awaits it or not."""

    async def cancels(url: str) -> str:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        return url

    with Harness() as tta:
        assert tta.run(step(cancels), "x") == "x"


def test_a_task_that_swallows_its_cancellation_is_left_running() -> None:
    """That somebody cancelled it does not end it."""
    kept = []

    async def stubborn() -> None:
        """Go on, until it is told again."""
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async def cancels(url: str) -> str:
        kept.append(asyncio.create_task(stubborn(), name="stubborn"))
        await asyncio.sleep(0)
        kept[0].cancel()
        return url

    with (
        pytest.raises(HarnessError, match="left running: task stubborn"),
        Harness() as tta,
    ):
        tta.run(step(cancels), "x")


def test_a_generator_that_was_left_is_closed_by_the_loop_and_nobody_else() -> None:
    """The SDKs leave theirs in the middle of each stream that is read to its end."""

    async def endless():
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(1)

    async def leave(_: object) -> int:
        found = [await anext(endless()) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) > 1
        return sum(found)

    with Harness() as tta:
        assert tta.run(leave, None) == 3


def test_equal_seeds_give_equal_runs() -> None:
    """Jitter, ids and durations are those of the seed."""
    from tta_primitives.recovery import RetryPrimitive

    def story(seed: int) -> tuple[list[float], str]:
        with Harness(seed=seed) as tta:
            tta.faults.at("fetch").fail(OSError("down"))
            context = WorkflowContext()
            with pytest.raises(OSError, match="down"):
                tta.run(RetryPrimitive(fetch), "x", context)
            return tta.clock.sleeps.delays, context.correlation_id

    assert story(1) == story(1)
    assert story(1) != story(2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"seed": "1"}, "seed='1' must be a whole number"),
        ({"seed": True}, "seed=True must be a whole number"),
        ({"faults": []}, r"faults=\[\] must be a FaultPlan"),
        ({"clock": "now"}, "clock='now' must be a VirtualClock"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], sentence: str) -> None:
    """A wrong argument is refused with its name and value."""
    with pytest.raises(TypeError, match=sentence):
        Harness(**arguments)  # type: ignore[arg-type]  # it is wrong on purpose


def test_generated_faults_need_not_strike() -> None:
    """A plan given at the start is no problem if the workflow never comes there."""
    with Harness(faults=FaultPlan()) as tta:
        assert tta.run(fetch, "x") == "x"


def test_a_clock_of_the_tests_own_is_used() -> None:
    """The harness takes a clock that was set elsewhere."""
    clock = VirtualClock(start="2031-01-01T00:00:00")
    with Harness(clock=clock) as tta:
        tta.run(fetch, "x")
    assert clock.now.isoformat() == "2031-01-01T00:00:01+00:00"


def test_the_profile_is_there_when_the_command_line_asks(
    pytester: pytest.Pytester, run: Run
) -> None:
    """--hypothesis-profile=tta needs no line in a conftest."""
    pytester.makepyfile("""
        from hypothesis import given, settings, strategies as st

        @given(st.integers())
        def test_profile(number):
            assert settings.get_current_profile_name() == "tta"
            assert settings().deadline is None
    """)
    plugin = ("-p", "_hypothesis_pytestplugin", "-p", "no:cacheprovider")
    run(*plugin, "--hypothesis-profile=tta").assert_outcomes(passed=1)


def test_a_harness_that_was_not_entered_runs_nothing() -> None:
    """Its faults would not strike and its trace stay empty, without a word."""
    tta = Harness()
    tta.faults.at("fetch").fail(OSError("down"))
    with pytest.raises(RuntimeError, match=r"not entered.*write `with Harness\(\)"):
        tta.run(fetch, "x")
    assert tta.elapsed == 0.0


def test_a_span_that_never_ended_fails_at_the_end() -> None:
    """A call that somebody began and dropped is told by its path."""
    kept = []

    async def drop(url: str, context: WorkflowContext) -> str:
        call = fetch.execute(url, context)
        call.send(None)
        kept.append(call)
        await asyncio.sleep(2)
        return url

    with (
        pytest.raises(HarnessError, match="drop/fetch began and never ended"),
        Harness() as tta,
    ):
        tta.run(step(drop), "x")
    kept[0].close()


def test_a_harness_is_entered_once_at_a_time() -> None:
    """A second entry would never be left; one after the other is fine."""
    with Harness() as tta:
        with pytest.raises(RuntimeError, match=r"<Harness seed=0 .*> was entered"):
            tta.__enter__()
        tta.run(fetch, "x")
    with tta:
        tta.run(fetch, "x")
    assert tta.elapsed == 2.0
    assert active.clock is not tta.clock


async def test_a_running_loop_in_real_time_is_refused() -> None:
    """A harness that could not take over time says so, rather than wait for real."""
    with pytest.raises(RuntimeError, match="enter the harness outside of the loop"):
        Harness().__enter__()
    assert not isinstance(active.clock, VirtualClock)


def test_a_harness_in_a_loop_of_its_own_clock_is_fine() -> None:
    """Inside a clocked test a harness may share the test's clock."""
    clock = VirtualClock()

    async def body() -> float:
        with Harness(clock=clock) as tta:
            await fetch.execute("x", WorkflowContext())
            return tta.elapsed

    assert clock.run(body()) == 1.0


def test_loops_of_the_body_are_in_virtual_time() -> None:
    """`asyncio.run` in the block needs nothing else to be virtual."""
    with Harness() as tta:
        assert asyncio.run(fetch.execute("x", WorkflowContext())) == "x"
        assert tta.elapsed == 1.0
        assert tta.trace.outline() == "fetch 1s"
    assert asyncio.new_event_loop is asyncio.events.new_event_loop


def test_a_harness_inside_another_is_alone() -> None:
    """Neither the trace nor the doubles nor the time of one reach the other."""
    with Harness(seed=1) as outer:
        outer.llm.at("fetch").reply("outer")
        outer.faults.at("fetch").slow(5)
        with Harness(seed=2) as inner:
            assert inner.run(fetch, "inner") == "inner"
            assert inner.elapsed == 1.0
        assert outer.elapsed == 0.0
        assert outer.run(fetch, "x") == "outer"
        assert [span.input for span in outer.trace.spans] == ["x"]
        assert [span.input for span in inner.trace.spans] == ["inner"]
        assert outer.elapsed == 5.0


def test_faults_that_come_late_know_the_calls_before_them(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A fault that is scripted in mid-test counts the calls from the test's start."""
    pytester.makepyfile("""
        import pytest
        from pytest_tta.faults import nth
        from tta_primitives import WorkflowContext, step

        @step
        async def fetch(url): return url

        @pytest.mark.asyncio
        async def test_late(tta):
            await fetch.execute("a", WorkflowContext())
            tta.faults.at("fetch").fail(OSError("second"), when=nth(2))
            with pytest.raises(OSError, match="second"):
                await fetch.execute("b", WorkflowContext())

        @pytest.mark.asyncio
        async def test_order(tta):
            tta.faults.at("fetch").lost_ack(OSError("lost"), when=nth(1))
            tta.llm.at("fetch").reply("said")
            with pytest.raises(OSError, match="lost"):
                await fetch.execute("a", WorkflowContext())
            assert tta.llm.calls.times == [0.0]
    """)
    run().assert_outcomes(passed=2)


def test_what_nobody_asks_for_is_not_imported(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """A --tta session without doubles and faults does not load them."""
    pytester.makepyfile("""
        import sys, pytest

        @pytest.mark.asyncio
        async def test_nothing():
            assert "pytest_tta.doubles" not in sys.modules
            assert "pytest_tta.faults" not in sys.modules
    """)
    run_apart("--tta").assert_outcomes(passed=1)


def test_a_call_that_ended_elsewhere_is_not_left_behind() -> None:
    """A run that was given up in mid-call names nobody in the next harness."""
    with Harness():
        given_up = fetch.execute("x", WorkflowContext())
        with pytest.raises(RuntimeError, match="no running event loop"):
            given_up.send(None)
    with Harness() as tta:
        tta.clock.run(asyncio.sleep(1))
        assert [wait.path for wait in tta.clock.sleeps] == [None]
