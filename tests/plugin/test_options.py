"""What the command line, the ini file and the markers switch on and off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

ASYNC_TEST = """
    import asyncio, time

    async def test_waits_an_hour():
        began = time.monotonic()
        await asyncio.sleep(3600)
        assert time.monotonic() - began == 3600.0
"""


@pytest.fixture(autouse=True)
def _auto_mode(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")


def test_tta_gives_async_tests_virtual_time(
    pytester: pytest.Pytester, run: Run
) -> None:
    """With --tta an hour of waiting in an async test takes no time and is exact."""
    pytester.makepyfile(ASYNC_TEST)
    result = run("--tta")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["tta: clock=virtual, seed=0"])


def test_ini_switches_tta_on_and_the_command_line_off(
    pytester: pytest.Pytester, run: Run
) -> None:
    """`tta = true` in the ini file is overruled by --no-tta."""
    pytester.makeini("[pytest]\nasyncio_mode = auto\ntta = true\ntta_seed = 7\n")
    pytester.makepyfile("async def test_nothing(): pass")
    run().stdout.fnmatch_lines(["tta: clock=virtual, seed=7"])
    run("--no-tta").stdout.no_fnmatch_line("tta: *")


def test_seed_of_the_command_line_comes_first(
    pytester: pytest.Pytester, run: Run
) -> None:
    """--tta-seed overrules the ini file, and the marker overrules both."""
    pytester.makeini("[pytest]\nasyncio_mode = auto\ntta_seed = 7\n")
    pytester.makepyfile("""
        import pytest

        async def test_of_the_session(tta):
            assert tta.seed == 9

        @pytest.mark.tta(seed=11)
        async def test_of_its_own(tta):
            assert tta.seed == 11
    """)
    run("--tta-seed=9").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("ini", "sentence"),
    [
        ("tta_seed = many", "*tta_seed = 'many' must be a whole number*"),
        ("tta_clock = wall", "*tta_clock = 'wall' must be 'virtual' or 'real'*"),
    ],
)
def test_bad_ini_value_is_one_sentence(
    pytester: pytest.Pytester, run: Run, ini: str, sentence: str
) -> None:
    """A wrong ini value ends the session with a sentence that shows it."""
    pytester.makeini(f"[pytest]\n{ini}\n")
    pytester.makepyfile("def test_nothing(): pass")
    result = run("--tta")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([sentence])
    assert "Traceback" not in result.stderr.str()


def test_bad_seed_on_the_command_line_is_one_sentence(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A seed that is no whole number is refused by the command line."""
    pytester.makepyfile("def test_nothing(): pass")
    result = run("--tta-seed=x")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*argument --tta-seed: invalid int value: 'x'"])


@pytest.mark.parametrize(
    ("marker", "sentence"),
    [
        ("tta(sed=1)", "*mark.tta does not know 'sed'; it takes seed"),
        ("tta(3)", "*mark.tta takes only keyword arguments, got (3,)"),
        ("tta(seed='a')", "*mark.tta seed='a' is not a whole number"),
        ("tta_clock('wall')", "*mark.tta_clock mode='wall' is not 'virtual' or 'real'"),
        ("tta_clock(strt=1)", "*mark.tta_clock does not know 'strt'; it takes mode, *"),
    ],
)
def test_bad_marker_fails_the_test_with_its_name(
    pytester: pytest.Pytester, run: Run, marker: str, sentence: str
) -> None:
    """A wrong argument of a marker fails the one test, naming test and argument."""
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.{marker}
        async def test_marked(tta): pass
    """)
    result = run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([sentence])


def test_marker_gives_real_time_back(pytester: pytest.Pytester, run: Run) -> None:
    """`tta_clock("real")` leaves a test of a --tta session in real time."""
    pytester.makepyfile("""
        import datetime, pytest

        @pytest.mark.tta_clock("real")
        async def test_now():
            assert datetime.datetime.now().year > 2020
    """)
    run("--tta").assert_outcomes(passed=1)


def test_marker_sets_the_start_of_the_wall(pytester: pytest.Pytester, run: Run) -> None:
    """`tta_clock(start=...)` says what the wall clock shows at first."""
    pytester.makepyfile("""
        import datetime, pytest

        @pytest.mark.tta_clock(start="2031-05-06T07:08:09")
        async def test_now(tta_clock):
            assert tta_clock.now.isoformat() == "2031-05-06T07:08:09+00:00"
            assert datetime.datetime.now(datetime.UTC) == tta_clock.now
    """)
    run().assert_outcomes(passed=1)


def test_markers_are_known_under_strict_markers(
    pytester: pytest.Pytester, run: Run
) -> None:
    """The markers are registered without --tta, so strict sessions accept them."""
    pytester.makepyfile("""
        import pytest

        @pytest.mark.tta(seed=1)
        @pytest.mark.tta_clock("real")
        def test_marked(): pass
    """)
    run("--strict-markers").assert_outcomes(passed=1)
    listed = run("--markers").stdout
    listed.fnmatch_lines(["@pytest.mark.tta(*, seed=0): *", "@pytest.mark.tta_clock(*"])
