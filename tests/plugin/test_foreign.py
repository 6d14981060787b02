"""Tests of every make that pytest and pytest-asyncio know, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_tta.clock import active

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

HEAD = """
    import asyncio, os, subprocess, sys, time
    import pytest, pytest_asyncio
"""


def strict(pytester: pytest.Pytester, source: str) -> None:
    """Write tests for pytest-asyncio's strict mode."""
    pytester.makepyfile(HEAD + source)


def test_parametrised_and_class_based_tests(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Each parameter set and each method has a clock that begins at nought."""
    strict(
        pytester,
        """
    @pytest.mark.asyncio
    @pytest.mark.parametrize("seconds", [0.5, 3600])
    async def test_waits(seconds):
        await asyncio.sleep(seconds)
        assert asyncio.get_running_loop().time() == time.monotonic() == seconds

    @pytest.mark.asyncio
    class TestMethods:
        @pytest_asyncio.fixture
        async def slow(self):
            await asyncio.sleep(10)
            yield time.monotonic()
            await asyncio.sleep(10)

        async def test_method(self, slow):
            assert slow == 10.0

        @pytest.mark.parametrize("more", [1])
        async def test_both(self, slow, more):
            await asyncio.sleep(more)
            assert time.monotonic() == 11.0
    """,
    )
    result = run("--tta", "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*::test_waits[[]0.5[]] PASSED*"])


def test_skipped_and_expected_failures_stay_what_they_are(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Skip and xfail count as ever; a deadlock in an xfail test is expected too."""
    strict(
        pytester,
        """
    pytestmark = pytest.mark.asyncio

    @pytest.mark.skip
    async def test_skipped(): pass

    async def test_skips_late():
        await asyncio.sleep(60)
        pytest.skip("now")

    @pytest.mark.xfail(strict=True, raises=TimeoutError)
    async def test_times_out():
        await asyncio.wait_for(asyncio.Event().wait(), 50)

    @pytest.mark.xfail(strict=True)
    async def test_stuck():
        await asyncio.Event().wait()

    @pytest.mark.xfail(strict=True)
    async def test_works(): pass
    """,
    )
    run("--tta").assert_outcomes(skipped=2, xfailed=2, failed=1)


def test_broken_fixtures_are_errors_and_the_next_test_runs(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A failure in set-up or tear-down leaves neither clock nor harness behind."""
    strict(
        pytester,
        """
    pytestmark = pytest.mark.asyncio

    @pytest_asyncio.fixture
    async def broken():
        await asyncio.sleep(5)
        raise OSError("no disk")

    @pytest_asyncio.fixture
    async def breaks():
        yield
        await asyncio.sleep(5)
        raise OSError("disk gone")

    async def test_set_up(broken): pass
    async def test_tear_down(breaks): pass

    async def test_next():
        await asyncio.sleep(1)
        assert time.monotonic() == 1.0

    @pytest.mark.tta_clock("real")
    async def test_real():
        assert time.time() > 1_700_000_000
    """,
    )
    result = run("--tta")
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["E  *OSError: no disk", "E  *OSError: disk gone"])


@pytest.mark.parametrize("place", ["before", "after"])
def test_fixture_that_waits_for_ever_fails_without_a_traceback(
    pytester: pytest.Pytester, run: Run, place: str
) -> None:
    """A deadlock in set-up or tear-down names its line, and the next test runs."""
    strict(
        pytester,
        f"""
    pytestmark = pytest.mark.asyncio(loop_scope="module")

    @pytest_asyncio.fixture(loop_scope="module")
    async def stuck():
        if "before" == {place!r}: await asyncio.Event().wait()
        yield
        if "after" == {place!r}: await asyncio.Event().wait()

    async def test_stuck(stuck): pass

    async def test_next(tta_clock):
        await asyncio.sleep(1)
        assert tta_clock.elapsed == 1.0
        assert len(asyncio.all_tasks()) == 1
    """,
    )
    result = run("--tta")
    result.assert_outcomes(passed=1 if place == "before" else 2, errors=1)
    result.stdout.fnmatch_lines(["ClockDeadlock: every task waits*", "*in stuck*"])
    result.stdout.no_fnmatch_line("*base_events.py*")


def test_wider_async_fixtures_live_on_in_virtual_time(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A module's heartbeat beats in each clocked test; each clock has its own zero."""
    strict(
        pytester,
        """
    pytestmark = pytest.mark.asyncio(loop_scope="module")

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def beats():
        beats = []
        async def beat():
            while True:
                await asyncio.sleep(5)
                beats.append(asyncio.get_running_loop().time())
        task = asyncio.create_task(beat())
        await asyncio.sleep(1)
        yield beats
        task.cancel()
        await asyncio.sleep(1)

    async def test_first(beats, tta_clock):
        assert tta_clock.elapsed == 1.0
        await asyncio.sleep(30)
        assert len(beats) == 6

    async def test_second(beats, tta_clock):
        await asyncio.sleep(30)
        assert tta_clock.elapsed == 30.0
        assert len(beats) == 12
    """,
    )
    run("--tta").assert_outcomes(passed=2)


def test_a_stuck_test_leaves_nothing_in_a_shared_loop(
    pytester: pytest.Pytester, run: Run
) -> None:
    """After a deadlock its task is ended, `finally` and all, before the next test."""
    strict(
        pytester,
        """
    pytestmark = pytest.mark.asyncio(loop_scope="session")
    said = []

    async def test_stuck():
        try:
            await asyncio.gather(asyncio.Event().wait(), asyncio.Event().wait())
        finally:
            await asyncio.sleep(60)
            said.append("closed")

    async def test_next():
        assert said == ["closed"]
        assert len(asyncio.all_tasks()) == 1
    """,
    )
    result = run("--tta")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line("*During handling*")


def test_sync_tests_and_processes_keep_real_time(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A sync test without our fixtures is real; a process is waited for, in no time."""
    strict(
        pytester,
        """
    def test_run():
        assert time.time() > 1_700_000_000
        began = time.monotonic()
        asyncio.run(asyncio.sleep(0.001))
        assert time.monotonic() - began >= 0.001

    def test_process_of_a_sync_test():
        done = subprocess.run([sys.executable, "-S", "-c", "print(1)"], timeout=20,
                              capture_output=True)
        assert done.stdout.strip() == b"1"

    @pytest.mark.asyncio
    async def test_process():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", "print(1)", stdout=subprocess.PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), 3)
        assert out.strip() == b"1"
        assert time.monotonic() == 0.0
    """.replace("\\\\\\\\", "\\\\"),
    )
    run("--tta").assert_outcomes(passed=3)


def test_interrupt_gives_everything_back(pytester: pytest.Pytester, run: Run) -> None:
    """Ctrl-C in a clocked test ends the session as ever, and leaves no clock behind."""
    strict(
        pytester,
        """
    @pytest.mark.asyncio
    async def test_interrupted():
        await asyncio.sleep(60)
        raise KeyboardInterrupt
    """,
    )
    result = run("--tta", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert active.clock is None
    result.stdout.fnmatch_lines(["*KeyboardInterrupt*"])


def test_exit_gives_everything_back(pytester: pytest.Pytester, run: Run) -> None:
    """pytest.exit() in a clocked test does, too."""
    strict(
        pytester,
        """
    def test_leaves(tta):
        pytest.exit("enough", returncode=7)
    """,
    )
    assert run().ret == 7
    assert active.clock is None


def test_setup_show_and_collect_only_have_nothing_of_ours(
    pytester: pytest.Pytester, run: Run
) -> None:
    """No fixture, parameter or id of ours appears with --tta, either."""
    strict(
        pytester,
        """
    @pytest.mark.asyncio
    async def test_waits(tmp_path): pass
    """,
    )
    shown = run("--tta", "--setup-show").stdout
    shown.fnmatch_lines(["*SETUP    F tmp_path*"])
    shown.no_fnmatch_line("*SETUP*tta*")
    run("--tta", "--collect-only").stdout.fnmatch_lines(["*<Coroutine test_waits>"])


@pytest.mark.parametrize("option", ["-q", "-qq", "--no-header"])
def test_quiet_sessions_have_no_line_of_ours(
    pytester: pytest.Pytester, run: Run, option: str
) -> None:
    """With -q or --no-header the header's line is left out."""
    pytester.makepyfile("def test_passes(): pass")
    result = run("--tta", option)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("tta: *")


def test_junit_xml_has_the_sentence(pytester: pytest.Pytester, run: Run) -> None:
    """A stuck test's message stands in the XML report as it does on the terminal."""
    strict(
        pytester,
        """
    @pytest.mark.asyncio
    async def test_stuck():
        await asyncio.Event().wait()
    """,
    )
    run("--tta", "--junitxml=report.xml").assert_outcomes(failed=1)
    report = (pytester.path / "report.xml").read_text("utf-8")
    assert "ClockDeadlock: every task waits" in report
    assert 'failures="1"' in report


def test_doctests_are_left_alone(pytester: pytest.Pytester, run: Run) -> None:
    """Items that are no functions run beside --tta."""
    pytester.makefile(".txt", test_doc=">>> 1 + 1\n2\n")
    run("--tta").assert_outcomes(passed=1)


def test_works_without_any_async_plugin(pytester: pytest.Pytester, run: Run) -> None:
    """--tta alone serves unittest and sync tests that run their own loop."""
    pytester.makepyfile("""
        import asyncio, unittest

        class TestOld(unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                await asyncio.sleep(4)

            async def test_waits(self):
                assert asyncio.get_running_loop().time() == 4.0

        def test_sync(tta_clock):
            asyncio.run(asyncio.sleep(3600))
            assert tta_clock.elapsed == 3600.0
    """)
    run("--tta", "-p", "no:asyncio").assert_outcomes(passed=2)
