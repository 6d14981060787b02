"""anyio's plugin runs all tests of a loop in one task; nothing of ours may break it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

ONLY_ANYIO = ("-p", "no:asyncio", "-p", "anyio", "--tta")
HEAD = """
    import anyio, asyncio, pytest

    pytestmark = pytest.mark.anyio

    @pytest.fixture(scope="module")
    def anyio_backend():
        return "asyncio"
"""


def test_wider_fixtures_keep_their_task(pytester: pytest.Pytester, run: Run) -> None:
    """A task group that a module's fixture opened serves every test, and is closed."""
    pytester.makepyfile(
        HEAD
        + """
    @pytest.fixture(scope="module")
    async def group(anyio_backend):
        async with anyio.create_task_group() as group:
            yield group
            group.cancel_scope.cancel()

    async def test_first(group, tta_clock):
        group.start_soon(anyio.sleep, 60)
        await anyio.sleep(3600)
        assert tta_clock.elapsed == 3600.0

    async def test_second(group, tta_clock):
        await anyio.sleep(30)
        assert tta_clock.elapsed == 30.0
    """
    )
    run(*ONLY_ANYIO).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    "wait",
    [
        "await asyncio.Event().wait()",
        "await asyncio.wait_for(asyncio.create_task(asyncio.Event().wait()), None)",
        "await asyncio.gather(asyncio.Event().wait(), asyncio.Event().wait())",
        "await run_both(anyio.sleep_forever)",
        "await catch_and_wait()",
    ],
)
def test_the_tests_after_a_stuck_one_run(
    pytester: pytest.Pytester, run: Run, wait: str
) -> None:
    """A deadlock ends its test alone: the shared task, fixtures and loop go on."""
    pytester.makepyfile(
        HEAD
        + f"""
    said = []

    @pytest.fixture(scope="module")
    async def shared(anyio_backend):
        async with anyio.create_task_group():
            yield asyncio.current_task()
        said.append("shared closed")

    async def run_both(function):
        async with anyio.create_task_group() as group:
            group.start_soon(function)
            group.start_soon(function)

    async def catch_and_wait():
        try:
            await asyncio.Event().wait()
        except Exception:
            await asyncio.Event().wait()

    async def test_stuck(shared):
        try:
            {wait}
        finally:
            said.append("closed")

    async def test_next(shared, tta_clock):
        assert said == ["closed"]
        assert asyncio.current_task() is shared
        await anyio.sleep(60)
        assert tta_clock.elapsed == 60.0

    async def test_last(shared):
        await anyio.sleep(1)
    """
    )
    result = run(*ONLY_ANYIO)
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines(["ClockDeadlock: every task waits*"])


def test_a_fixture_that_is_stuck_fails_alone(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A deadlock in the set-up of an async fixture does not block the next test."""
    pytester.makepyfile(
        HEAD
        + """
    @pytest.fixture(scope="module")
    async def shared(anyio_backend):
        yield

    @pytest.fixture
    async def stuck(shared):
        await asyncio.Event().wait()
        yield

    async def test_stuck(stuck): pass

    async def test_next(shared):
        await anyio.sleep(60)
    """
    )
    result = run(*ONLY_ANYIO)
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["ClockDeadlock: every task waits*", "*in stuck*"])


def test_uvloop_of_anyio_is_named(pytester: pytest.Pytester, run: Run) -> None:
    """A backend with a loop of its own is refused, not run in real time."""
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    pytester.makepyfile(
        HEAD.replace('"asyncio"', '("asyncio", {"use_uvloop": True})')
        + """
    async def test_uvloop(tta_clock):
        await anyio.sleep(0.001)
    """
    )
    result = run(*ONLY_ANYIO)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*virtual time, but its event loop is uvloop.Loop*"])


def test_both_plugins_side_by_side(pytester: pytest.Pytester, run: Run) -> None:
    """Tests of anyio and of pytest-asyncio have virtual time in one session."""
    pytester.makepyfile("""
        import anyio, asyncio, pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_anyio(tta_clock):
            await anyio.sleep(60)
            assert tta_clock.elapsed == 60.0

        @pytest.mark.asyncio
        async def test_asyncio(tta_clock):
            await anyio.sleep(60)
            assert tta_clock.elapsed == 60.0
    """)
    run("-p", "anyio", "--tta").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    "backend",
    [
        "@pytest.fixture(params=['asyncio', 'trio'])",
        "@pytest.fixture(scope='module', params=['trio', 'asyncio'])",
    ],
)
def test_trio_keeps_real_time(
    pytester: pytest.Pytester, run: Run, backend: str
) -> None:
    """Under --tta a test that anyio runs on trio too is virtual on asyncio alone."""
    pytest.importorskip("trio", reason="trio is not installed")
    pytester.makepyfile(f"""
        import anyio, pytest, time

        {backend}
        def anyio_backend(request):
            return request.param

        @pytest.fixture
        async def slow(anyio_backend):
            await anyio.sleep(0.001)
            yield

        @pytest.mark.anyio
        async def test_waits(anyio_backend, slow):
            began = time.monotonic()
            await anyio.sleep(0.001)
            took = time.monotonic() - began
            assert took == 0.001 if anyio_backend == "asyncio" else took > 0.001
    """)
    run(*ONLY_ANYIO).assert_outcomes(passed=2)


def test_the_clock_is_refused_under_trio(pytester: pytest.Pytester, run: Run) -> None:
    """A test that asks for the clock and is run by trio is told so."""
    pytest.importorskip("trio", reason="trio is not installed")
    pytester.makepyfile(
        HEAD.replace('"asyncio"', '"trio"')
        + """
    async def test_trio(tta_clock):
        await anyio.sleep(0.001)
    """
    )
    result = run(*ONLY_ANYIO)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*virtual time, but its event loop is trio's*"])
