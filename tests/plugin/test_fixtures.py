"""What a test holds, and what fails it although its body passed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Run


@pytest.fixture(autouse=True)
def _auto_mode(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")


def test_all_parts_belong_to_one_harness(pytester: pytest.Pytester, run: Run) -> None:
    """The parts as fixtures are the parts of `tta`."""
    pytester.makepyfile("""
        async def test_parts(tta, tta_clock, tta_faults, tta_llm):
            assert tta.clock is tta_clock
            assert tta.faults is tta_faults
            assert tta.llm is tta_llm
    """)
    run().assert_outcomes(passed=1)


def test_trace_of_a_workflow_is_compared_with_a_pattern(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A workflow's run can be asserted, and a mismatch is shown as a tree."""
    pytester.makepyfile("""
        from pytest_tta import S
        from tta_primitives import WorkflowContext, step

        @step
        async def double(number): return 2 * number

        answer = (double >> str).named("answer")

        async def test_matches(tta_trace):
            assert await answer.execute(2, WorkflowContext()) == "4"
            assert tta_trace == S("answer", S("double", output=4), S("str"))

        async def test_differs(tta_trace):
            await answer.execute(2, WorkflowContext())
            assert tta_trace == S("answer", S("double", output=5), S("str"))
    """)
    result = run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*output*"])


def test_left_running_task_fails_the_test(pytester: pytest.Pytester, run: Run) -> None:
    """A task that nobody ended fails the test, named with its line."""
    pytester.makepyfile("""
        import asyncio

        async def forgotten():
            await asyncio.sleep(3600)

        async def test_leaks(tta):
            task = asyncio.create_task(forgotten(), name="refresher")
            await asyncio.sleep(1)
    """)
    result = run()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["left running: task refresher at *"])


def test_unknown_fault_path_names_the_nearest(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A fault for a path that no workflow has fails the test with the nearest paths."""
    pytester.makepyfile("""
        from tta_primitives import WorkflowContext, step

        @step
        async def fetch(url): return url

        async def test_misspelt(tta_faults):
            tta_faults.at("answer/fetsch").fail(OSError())
            await (fetch >> str).named("answer").execute("x", WorkflowContext())
    """)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*'answer/fetsch'*nearest: 'answer/fetch'*"])


def test_asking_too_late_is_a_clear_error(pytester: pytest.Pytester, run: Run) -> None:
    """getfixturevalue("tta") inside a test says what to do instead."""
    pytester.makepyfile("""
        def test_late(request):
            request.getfixturevalue("tta")
    """)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*name 'tta' among the arguments*"])


def test_harness_run_inside_a_loop_says_what_to_write(
    pytester: pytest.Pytester, run: Run
) -> None:
    """tta.run in an async test is refused with the line to write."""
    pytester.makepyfile("""
        import pytest

        async def test_inside(tta):
            with pytest.raises(RuntimeError, match="await workflow.execute"):
                tta.run(str, 1)
    """)
    run().assert_outcomes(passed=1)


def test_harness_run_in_a_sync_test(pytester: pytest.Pytester, run: Run) -> None:
    """tta.run executes a workflow in virtual time and records it."""
    pytester.makepyfile("""
        import asyncio
        from tta_primitives import step

        @step
        async def slow(number):
            await asyncio.sleep(60)
            return number + 1

        def test_sync(tta):
            assert tta.run(slow >> slow, 1) == 3
            assert tta.elapsed == 120.0
            assert [s.path for s in tta.clock.sleeps] == [
                "sequential/slow", "sequential/slow#2"
            ]
    """)
    run().assert_outcomes(passed=1)


def test_h41_two_harnesses_do_not_see_each_other(
    pytester: pytest.Pytester, run: Run
) -> None:
    """What runs inside a harness of a test's own is not in the fixture's trace."""
    pytester.makepyfile("""
        from pytest_tta import Harness

        def test_two(tta):
            with Harness(seed=1) as inner:
                assert inner.run(str, 1) == "1"
            tta.run(int, "2")
            assert [root.name for root in inner.trace.roots] == ["str"]
            assert [root.name for root in tta.trace.roots] == ["int"]
    """)
    run().assert_outcomes(passed=1)


def test_h41_workers_do_not_see_each_other(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """Under two workers each test has its own time, trace and report."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    pytester.makepyfile("""
        import asyncio, pytest

        @pytest.mark.parametrize("seconds", range(1, 9))
        async def test_waits(tta, seconds):
            await asyncio.sleep(seconds)
            assert tta.elapsed == seconds
            assert not tta.trace.roots
    """)
    run_apart("-p", "xdist.plugin", "-n2", "--tta").assert_outcomes(passed=8)


def test_failure_shows_trace_and_waits(pytester: pytest.Pytester, run: Run) -> None:
    """The report of a failing test has the outline of its run and its sleeps."""
    pytester.makepyfile("""
        import asyncio
        from tta_primitives import WorkflowContext, step

        @step
        async def slow(number):
            await asyncio.sleep(60)
            return number

        async def test_wrong():
            assert await slow.execute(1, WorkflowContext()) == 2
    """)
    result = run("--tta")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*tta trace*", "slow*", "*tta clock*", "*60*"])


def test_traceback_shows_the_users_lines_alone(
    pytester: pytest.Pytester, run: Run
) -> None:
    """What stands between a test and its step is left out, unless --full-trace asks."""
    pytester.makepyfile("""
        from tta_primitives import WorkflowContext, step
        from tta_primitives.recovery import RetryPrimitive

        @step
        async def broken(number): raise OSError("disk on fire")

        async def test_broken(tta):
            await RetryPrimitive(broken, max_retries=1).execute(1, WorkflowContext())
    """)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*async def broken*", "*OSError: disk on fire"])
    result.stdout.no_fnmatch_line("*door.py*")
    run("--full-trace").stdout.fnmatch_lines(["*door.py*"])


def test_times_count_from_the_start_of_the_clock(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A span that begins after a minute says so, and `at_time` means the clock's."""
    pytester.makepyfile("""
        import asyncio, pytest
        from pytest_tta.faults import at_time
        from tta_primitives import WorkflowContext, step

        @step
        async def fetch(url): return url

        async def test_late(tta):
            tta.faults.at("fetch").fail(OSError("later"), when=at_time(60, 61))
            await fetch.execute("x", WorkflowContext())
            await asyncio.sleep(60)
            with pytest.raises(OSError, match="later"):
                await fetch.execute("x", WorkflowContext())
            assert tta.trace.find("fetch@2").started_at == 60.0
    """)
    run().assert_outcomes(passed=1)


def test_waits_inside_primitives_are_named_by_kind_and_path(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A limit of ours is logged as a timeout, and a pause with its primitive."""
    pytester.makepyfile("""
        from tta_primitives import step
        from tta_primitives.performance import CachePrimitive
        from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive

        @step
        async def fetch(url): return url

        def test_kinds(tta):
            tta.faults.at("fetch").hang()
            limited = TimeoutPrimitive(fetch, timeout_seconds=5)
            tried = RetryPrimitive(limited, max_retries=1, jitter="none")
            try:
                tta.run(CachePrimitive(tried, ttl=60), "x")
            except TimeoutError:
                pass
            kinds = [(s.kind, s.path) for s in tta.clock.sleeps]
            assert kinds == [
                ("timeout", "cache/retry/timeout/fetch"),
                ("sleep", "cache/retry"),
                ("timeout", "cache/retry/timeout/fetch"),
            ]
            assert not any("asyncio/" in s.where for s in tta.clock.sleeps)
    """)
    run().assert_outcomes(passed=1)
