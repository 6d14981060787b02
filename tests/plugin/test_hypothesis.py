"""Property tests: a harness for each example, or one clock for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

pytest.importorskip("hypothesis", reason="hypothesis is not installed")

HEAD = """
    import asyncio, pytest
    from hypothesis import given, settings, strategies as st
    from pytest_tta import Harness, HarnessError
    from tta_primitives import WorkflowContext, step

    @step
    async def wait(seconds):
        await asyncio.sleep(seconds)
        return seconds

    seconds = st.integers(1, 10**6)
    quick = settings(max_examples=20, database=None)
"""
PLUGINS = ("-p", "_hypothesis_pytestplugin")


@pytest.mark.parametrize("option", ["--tta", "--no-tta"])
def test_h42_each_example_has_its_own_loop_clock_doubles_and_trace(
    pytester: pytest.Pytester, run: Run, option: str
) -> None:
    """Nothing of one example is left in the next, with and without --tta."""
    pytester.makepyfile(
        HEAD
        + """
    loops, harnesses = [], []

    @step
    async def note(value):
        loops.append(asyncio.get_running_loop())
        return value

    @given(seconds)
    @quick
    def test_examples(delay):
        with Harness(seed=delay) as tta:
            assert harnesses == [] or tta.llm is not harnesses[-1].llm
            assert tta.elapsed == 0.0
            assert tta.run(note >> wait, delay) == delay
            assert tta.elapsed == delay
            assert [root.name for root in tta.trace.roots] == ["sequential"]
            assert len(tta.clock.sleeps) == 1
        assert loops[-1].is_closed()
        harnesses.append(tta)

    def test_were_different():
        assert len(set(map(id, loops))) == len(set(map(id, harnesses))) == 20
    """
    )
    run(option, *PLUGINS).assert_outcomes(passed=2)


def test_h42_a_leaked_task_is_reported_by_its_example(
    pytester: pytest.Pytester, run: Run
) -> None:
    """The falsifying example is the smallest that leaks, and the task is named."""
    pytester.makepyfile(
        HEAD
        + """
    kept = []

    @step
    async def leak(number):
        if number >= 7:
            kept.append(asyncio.create_task(asyncio.sleep(60), name="forgotten"))
        return number

    @given(st.integers(0, 100))
    @settings(database=None, derandomize=True)
    def test_leaks(number):
        with Harness() as tta:
            tta.run(leak, number)
    """
    )
    result = run("--tta", *PLUGINS)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*HarnessError: left running: task forgotten*"])
    result.stdout.fnmatch_lines(["*number=7,*"])


@pytest.mark.parametrize("option", ["--tta", "--no-tta"])
def test_async_property_tests_have_one_clock(
    pytester: pytest.Pytester, run: Run, option: str
) -> None:
    """pytest-asyncio runs all examples in one loop; its time adds up, or is real."""
    pytester.makepyfile(
        HEAD
        + f"""
    spent = []

    @pytest.mark.asyncio
    @given(st.integers(1, 1000))
    @quick
    async def test_waits(delay):
        if {option!r} == "--no-tta":
            delay = 0
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(delay)
        took = asyncio.get_running_loop().time() - began
        assert took == delay or delay == 0
        spent.append(delay)

    def test_all_ran():
        assert len(spent) == 20
    """
    )
    run(option, *PLUGINS).assert_outcomes(passed=2)


def test_a_fixture_of_ours_says_what_hypothesis_says(
    pytester: pytest.Pytester, run: Run
) -> None:
    """`tta` in a @given test fails Hypothesis' own health check, as tmp_path does."""
    pytester.makepyfile(
        HEAD
        + """
    @given(seconds)
    @quick
    def test_holds(tta, delay): pass
    """
    )
    result = run(*PLUGINS)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*uses a function-scoped fixture 'tta'*"])


def test_deadlines_count_real_time(pytester: pytest.Pytester, run: Run) -> None:
    """Hours of virtual time are not slow for Hypothesis' deadline of 200 ms."""
    pytester.makepyfile(
        HEAD
        + """
    @given(st.integers(3600, 7200))
    @settings(quick, deadline=2000)
    def test_hours(delay):
        with Harness() as tta:
            assert tta.run(wait, delay) == delay
    """
    )
    run("--tta", *PLUGINS).assert_outcomes(passed=1)
