"""With --tta the plugin works beside the plugins that a project has already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

WAITS = """
    import asyncio, time
    import pytest

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("seconds", [1, 60, 3600])
    async def test_waits(seconds):
        await asyncio.sleep(seconds)
        assert time.monotonic() == seconds
"""


def needs(module: str) -> None:
    """Skip a test whose neighbour is not installed."""
    pytest.importorskip(module, reason=f"{module} is not installed")


def run_looptime(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run pytest with looptime, which finds pytest-asyncio by its entry point only."""
    needs("looptime")
    plugins = ("asyncio", "looptime_plugin", "pytest_tta.plugin", "no:cacheprovider")
    loaded = [part for name in plugins for part in ("-p", name)]
    return pytester.runpytest_inprocess(*loaded, "-Wignore", *options)


def test_timeout_counts_real_seconds(pytester: pytest.Pytester, run_apart: Run) -> None:
    """A virtual day is no time for pytest-timeout; what really hangs is ended."""
    needs("pytest_timeout")
    pytester.makepyfile("""
        import asyncio, pytest

        pytestmark = pytest.mark.asyncio

        @pytest.mark.timeout(30)
        async def test_a_day():
            await asyncio.sleep(86_400)

        @pytest.mark.timeout(0.05)
        async def test_busy():
            while True: pass

        async def test_next(tta_clock):
            await asyncio.sleep(1)
            assert tta_clock.elapsed == 1.0
    """)
    result = run_apart("--tta", "-p", "timeout", "--timeout-method=signal")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*Timeout *"])


def test_cov_sees_lines_that_run_in_virtual_time(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """pytest-cov measures clocked tests as any others."""
    needs("pytest_cov")
    file = pytester.makepyfile(WAITS)
    result = run_apart("--tta", "-p", "pytest_cov", f"--cov={file.stem}")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*.py * 0 * 100%"])


def test_randomly_shuffles_and_seeds_as_ever(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """pytest-randomly orders the tests and seeds `random`; our seed is another."""
    needs("pytest_randomly")
    pytester.makepyfile("""
        import asyncio, random
        import pytest

        @pytest.mark.asyncio
        @pytest.mark.parametrize("number", range(4))
        async def test_numbers(number, tta):
            assert tta.seed == 0
            print("drawn", random.random())
    """)
    first, second = (
        run_apart("--tta", "-v", "-s", "-p", "randomly", option)
        for option in ("--randomly-seed=3", "--randomly-seed=3")
    )
    first.assert_outcomes(passed=4)
    drawn = [line for line in first.outlines if "drawn" in line]
    assert drawn == [line for line in second.outlines if "drawn" in line]
    assert len(drawn) == 4


@pytest.mark.parametrize("option", ["--tta", "--no-tta"])
def test_looptime_is_loaded_but_off(pytester: pytest.Pytester, option: str) -> None:
    """Looptime changes the class of every loop; idle, it does not disturb the clock."""
    pytester.makepyfile("""
        import asyncio, pytest

        @pytest.mark.asyncio
        async def test_waits(tta_clock):
            await asyncio.sleep(3600)
            assert tta_clock.elapsed == 3600.0
    """)
    run_looptime(pytester, option).assert_outcomes(passed=1)


def test_looptime_beside_tta_is_refused(pytester: pytest.Pytester) -> None:
    """Two owners of the time of async tests are one too many: a usage error says so."""
    pytester.makepyfile(WAITS)
    result = run_looptime(pytester, "--tta", "--looptime")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --tta and --looptime: each gives async tests *"]
    )


def test_a_looptime_marker_beside_the_clock_is_refused(
    pytester: pytest.Pytester,
) -> None:
    """The marker of a single test is refused there, and --no-looptime allows it."""
    pytester.makepyfile("""
        import asyncio, pytest

        @pytest.mark.asyncio
        @pytest.mark.looptime
        async def test_waits(tta_clock):
            await asyncio.sleep(3600)
            assert tta_clock.elapsed == 3600.0
    """)
    result = run_looptime(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*::test_waits: mark.looptime beside *"])
    run_looptime(pytester, "--no-looptime").assert_outcomes(passed=1)


def test_reruns_begin_anew(pytester: pytest.Pytester, run: Run) -> None:
    """Each rerun of pytest-rerunfailures has a new clock, trace and double."""
    needs("pytest_rerunfailures")
    pytester.makepyfile("""
        import asyncio, pytest
        from tta_primitives import WorkflowContext, step

        tries = []

        @step
        async def wait(seconds): await asyncio.sleep(seconds)

        @pytest.mark.asyncio
        async def test_third_time_lucky(tta):
            tries.append(tta)
            await wait.execute(60, WorkflowContext())
            assert tta.elapsed == 60.0
            assert len(tta.trace.roots) == 1
            assert len(set(map(id, tries))) == 3
    """)
    result = run("-p", "rerunfailures", "--reruns=2", "--tta")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["* 1 passed, 2 rerun in *"])
