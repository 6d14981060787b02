"""Virtual time in tests of every kind: asyncio's, anyio's, sync and shared loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Run


def test_fixture_is_consent_without_the_option(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A test that holds tta_clock has virtual time, its neighbour has not."""
    pytester.makepyfile("""
        import asyncio, datetime, pytest

        pytestmark = pytest.mark.asyncio

        async def test_virtual(tta_clock):
            await asyncio.sleep(86_400)
            assert tta_clock.elapsed == 86_400.0
            assert tta_clock.sleeps.delays == [86_400]

        async def test_real():
            assert datetime.datetime.now().year > 2020
            assert "VirtualLoop" not in type(asyncio.get_running_loop()).__name__
    """)
    run().assert_outcomes(passed=2)


def test_strict_mode_and_async_fixtures(pytester: pytest.Pytester, run: Run) -> None:
    """Async fixtures live in the time of the test that uses them."""
    pytester.makepyfile("""
        import asyncio, pytest, pytest_asyncio

        @pytest_asyncio.fixture
        async def slow():
            await asyncio.sleep(100)
            yield "value"
            await asyncio.sleep(100)

        @pytest.mark.asyncio
        async def test_slow(tta_clock, slow):
            assert slow == "value"
            assert tta_clock.elapsed == 100.0
    """)
    run().assert_outcomes(passed=1)


def test_anyio_tests_have_virtual_time(pytester: pytest.Pytester, run: Run) -> None:
    """Tests that anyio's plugin runs on asyncio have virtual time, unchanged."""
    pytester.makepyfile("""
        import anyio, asyncio, pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_anyio(tta_clock):
            await anyio.sleep(3600)
            with anyio.move_on_after(60) as scope:
                await anyio.sleep_forever()
            assert scope.cancelled_caught
            assert tta_clock.elapsed == 3660.0
    """)
    run("-p", "no:asyncio", "-p", "anyio.pytest_plugin").assert_outcomes(passed=1)


def test_h25_shared_loop_serves_tests_with_and_without_the_clock(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A session-scoped loop is virtual in clocked tests and real between them."""
    pytester.makepyfile("""
        import asyncio, pytest

        pytestmark = pytest.mark.asyncio(loop_scope="session")
        loops = set()

        async def test_before():
            loops.add(asyncio.get_running_loop())

        async def test_clocked(tta_clock):
            loops.add(asyncio.get_running_loop())
            await asyncio.sleep(3600)
            assert tta_clock.elapsed == 3600.0

        async def test_between():
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(0.001)
            assert 0 < asyncio.get_running_loop().time() - began < 60

        async def test_clocked_again(tta_clock):
            loops.add(asyncio.get_running_loop())
            await asyncio.sleep(30)
            assert tta_clock.elapsed == 30.0
            assert len(loops) == 1
    """)
    run().assert_outcomes(passed=4)


def test_h26_sync_tests_run_loops_in_virtual_time(
    pytester: pytest.Pytester, run: Run
) -> None:
    """In a sync test time.sleep and asyncio.run move the clock and take no time."""
    pytester.makepyfile("""
        import asyncio, time

        def test_sync(tta_clock):
            time.sleep(60)
            asyncio.run(asyncio.sleep(3600))
            assert tta_clock.elapsed == 3660.0
    """)
    run().assert_outcomes(passed=1)


def test_h24_freezegun_and_the_clock_agree(pytester: pytest.Pytester, run: Run) -> None:
    """A decorated test has freezegun's date and the clock's time, without a hang."""
    # Imported out here, or each session in this process would import one of its own.
    pytest.importorskip("freezegun", reason="freezegun is not installed")
    pytester.makepyfile("""
        import asyncio, datetime, time, pytest
        from freezegun import freeze_time

        @pytest.mark.asyncio
        @freeze_time("2030-01-02 03:04:05")
        async def test_frozen(tta_clock):
            await asyncio.sleep(10)
            assert datetime.datetime.now() == datetime.datetime(2030, 1, 2, 3, 4, 15)
            assert time.time() == tta_clock.now.timestamp()
            assert time.monotonic() == asyncio.get_running_loop().time()

        @pytest.mark.asyncio
        async def test_inside(tta_clock):
            with freeze_time("2030-01-02") as frozen:
                frozen.tick(5)
                assert datetime.datetime.now() == datetime.datetime(2030, 1, 2, 0, 0, 5)
                assert tta_clock.elapsed == 5.0
    """)
    run().assert_outcomes(passed=2)


def test_h27_a_projects_own_loop_factory_is_named(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A loop that keeps its own time fails the clocked test with one sentence."""
    pytester.makeconftest("""
        import asyncio

        class OwnLoop(asyncio.SelectorEventLoop):
            pass

        def pytest_asyncio_loop_factories(config, item):
            return {"own": OwnLoop}
    """)
    pytester.makepyfile("""
        import asyncio, pytest

        @pytest.mark.asyncio
        async def test_clocked(tta_clock):
            await asyncio.sleep(3600)
    """)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*virtual time, but its event loop is *OwnLoop*"])


def test_h27_uvloop_policy_gives_way_in_clocked_tests(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Under a uvloop policy the clocked test has virtual time, its neighbour uvloop."""
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    pytester.makeconftest("""
        import asyncio, pytest, uvloop, warnings

        @pytest.fixture(scope="session")
        def event_loop_policy():
            return uvloop.EventLoopPolicy()
    """)
    pytester.makepyfile("""
        import asyncio, pytest

        pytestmark = pytest.mark.asyncio

        async def test_clocked(tta_clock):
            await asyncio.sleep(3600)
            assert tta_clock.elapsed == 3600.0

        async def test_uvloop():
            assert "uvloop" in type(asyncio.get_running_loop()).__module__
    """)
    run("-W", "ignore").assert_outcomes(passed=2)


def test_deadlock_fails_without_our_traceback(
    pytester: pytest.Pytester, run: Run
) -> None:
    """When everybody waits for ever, the test fails at once and names the line."""
    pytester.makepyfile("""
        import asyncio, pytest

        @pytest.mark.asyncio
        async def test_stuck(tta_clock):
            await asyncio.Event().wait()
    """)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ClockDeadlock: *", "*test_stuck*"])
    result.stdout.no_fnmatch_line("*base_events.py*")


def test_unittest_async_case_is_virtual_under_tta(
    pytester: pytest.Pytester, run: Run
) -> None:
    """IsolatedAsyncioTestCase runs in virtual time with --tta."""
    pytester.makepyfile("""
        import asyncio, time, unittest

        class TestOld(unittest.IsolatedAsyncioTestCase):
            async def test_waits(self):
                began = time.monotonic()
                await asyncio.sleep(3600)
                self.assertEqual(time.monotonic() - began, 3600.0)
    """)
    run("--tta").assert_outcomes(passed=1)
