"""What a mistake is answered with: one sentence, and no traceback from our insides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Run


@pytest.fixture(autouse=True)
def _auto_mode(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")


def refused(result: pytest.RunResult, sentence: str) -> None:
    """Expect that the session did not begin, and said why."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert sentence in result.stderr.str()
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-o", "tta=maybe"), "ERROR: tta must be true or false: "),
        (("--tta", "-o", "tta_seed=1.5"), "tta_seed = '1.5' must be a whole number"),
        (("--tta", "-o", "tta_clock=none"), "tta_clock = 'none' must be 'virtual' or"),
        (("--tta-seed=1.5",), "argument --tta-seed: invalid int value: '1.5'"),
        (("--tta-seed",), "argument --tta-seed: expected one argument"),
        (("--tta-speed=3",), "unrecognized arguments: --tta-speed=3"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "refused",
)
def test_wrong_options_are_refused_in_a_sentence(
    pytester: pytest.Pytester, run: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    """A wrong value of the command line or ini file is named with what is allowed."""
    pytester.makepyfile("def test_nothing(): pass")
    refused(run(*arguments), sentence)


def test_wrong_ini_is_refused_when_a_fixture_is_first_asked_for(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Without --tta the ini file is read once a test holds one of our fixtures."""
    pytester.makepyfile("def test_holds(tta): pass")
    refused(run("-o", "tta_seed=x"), "tta_seed = 'x' must be a whole number")


@pytest.mark.parametrize(
    ("marker", "sentence"),
    [
        ("start='soon'", "start must be an ISO 8601 date or 'now', not 'soon'"),
        (
            "start=True",
            "start must be a datetime, an ISO string, seconds or None, not T",
        ),
        ("hold_cap=-1", "hold_cap must be finite and not negative, not -1"),
        ("hold_cap='5'", "hold_cap must be seconds or a timedelta, not '5'"),
        ("io='never'", "io must be one of 'hold', 'grace', 'jump', not 'never'"),
        ("max_jumps=0", "max_jumps must be a whole number from 1, or None, not 0"),
        ("autojump='no'", "autojump must be True or False, not 'no'"),
        ("'virtual', 'real'", "takes one mode, got 'virtual', 'real'"),
        ("'real', mode='real'", "takes one mode, got 'real', 'real'"),
        ("['virtual']", "mode=['virtual'] is not 'virtual' or 'real'"),
    ],
)
def test_wrong_markers_fail_their_test_in_a_sentence(
    pytester: pytest.Pytester, run: Run, marker: str, sentence: str
) -> None:
    """The sentence names the test and the marker; nothing of ours is shown."""
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.tta_clock({marker})
        async def test_marked(tta): pass

        async def test_next(tta): pass
    """)
    result = run()
    result.assert_outcomes(errors=1, passed=1)
    file = next(pytester.path.glob("test_*.py")).name
    assert f"{file}::test_marked: mark.tta_clock {sentence}" in result.stdout.str()
    result.stdout.no_fnmatch_line("*pytest_tta*")


def test_a_wider_fixture_cannot_hold_a_test(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A module's fixture asking for `tta` gets pytest's own sentence about scopes."""
    pytester.makepyfile("""
        import pytest

        @pytest.fixture(scope="module")
        def wide(tta): pass

        def test_wide(wide): pass
    """)
    result = run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["ScopeMismatch: *function scoped fixture tta *module*"]
    )


MISTAKES = {
    "argument": (
        "RetryPrimitive(fetch, max_retries=-1)",
        "ValueError: *max_retries*-1*",
    ),
    "kind": (
        "RetryPrimitive(fetch, max_retries='3')",
        "ValueError: max_retries='3' must be a whole number*",
    ),
    "name": ("RetryPrimitive(fetch, retries=3)", "TypeError: *'retries'*"),
    "operand": ("fetch >> 5", "TypeError: unsupported operand*'int'"),
    "signature": ("fetch >> (lambda: 5)", "TypeError: *"),
    "open": (
        "await RetryPrimitive(max_retries=1).execute(1, WorkflowContext())",
        "*OpenWrapperError: *RetryPrimitive*",
    ),
    "key": (
        "await CachePrimitive(fetch, ttl=1).execute(object(), WorkflowContext())",
        "*Error: *key*",
    ),
    "route": (
        (
            "await RouterPrimitive({'a': fetch}, lambda *_: 'b')"
            ".execute(1, WorkflowContext())"
        ),
        "*NoRouteError: router has no route 'b'; it has 'a'",
    ),
    "fault": ("tta.faults.at('fetch').fail('broken')", "TypeError: *'broken'*"),
    "duration": ("await tta.clock.advance(-1)", "ValueError: *-1*"),
    "seed": ("Harness(seed='x')", "TypeError: seed='x' must be a whole number"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_test_shows_the_line_and_one_sentence(
    pytester: pytest.Pytester, run: Run, mistake: str
) -> None:
    """The report ends at the user's own line; the error says what is allowed."""
    line, sentence = MISTAKES[mistake]
    pytester.makepyfile(f"""
        import asyncio
        from pytest_tta import Harness
        from tta_primitives import *
        from tta_primitives.performance import CachePrimitive
        from tta_primitives.recovery import RetryPrimitive

        @step
        async def fetch(url): return url

        async def test_mistaken(tta):
            await asyncio.sleep(0)
            {line}
    """)
    result = run("--tta", "--tb=long")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [f">*{line[:20].replace('[', '?')}*", f"E  *{sentence}"]
    )
    for ours in ("*pytest_tta/*.py:*", "*tta_primitives/*.py:*"):
        result.stdout.no_fnmatch_line(ours)
