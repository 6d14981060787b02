"""What a person sees of a failing test: few lines, and sections that explain them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from pytest_tta import S
from pytest_tta.clock import VirtualClock
from pytest_tta.clock.sleeps import SleepRecord
from pytest_tta.harness import Harness
from pytest_tta.report.sections import _made_up_of, sections
from tta_primitives import StepPrimitive, WorkflowContext

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

WORKFLOWS = """
import asyncio
from pytest_tta import S, any_order, no
from pytest_tta.faults import first
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive

def sleeper(name, seconds):
    async def work(text):
        await asyncio.sleep(seconds)
        return text
    return step(work).named(name)

legs = sleeper("fetch_a", 30) | sleeper("fetch_b", 10)
llm = RetryPrimitive(sleeper("llm", 1), max_retries=2, jitter="none")
workflow = (sleeper("plan", 2) >> legs >> llm).named("workflow")
limited = TimeoutPrimitive(sleeper("slow", 100), timeout_seconds=5)
timed = FallbackPrimitive(limited, fallbacks=["sorry"]).named("timed")
"""

LATE = "timed out: TimeoutExceededError: timed/timeout/slow took longer than 5 s"


def shown(result: pytest.RunResult, start: str, end: str) -> list[str]:
    """Return the lines from one that has `start` in it to one that has `end`."""
    lines = result.outlines
    first = next(i for i, line in enumerate(lines) if start in line)
    last = next(i for i, line in enumerate(lines) if i > first and end in line)
    return lines[first:last]


def test_a_trace_that_differs_is_told_in_few_lines_and_shown_whole(
    pytester: pytest.Pytester, run: Run
) -> None:
    """The assertion says what differs, and the section has the tree with its marks."""
    pytester.makepyfile(
        WORKFLOWS
        + """
async def test_it(tta):
    tta.faults.at("llm").fail(ConnectionError("reset"), when=first(1))
    await workflow.execute("q", WorkflowContext())
    legs = any_order(S("fetch_b", duration=11), S("fetch_a"))
    assert tta.trace == S(
        "workflow", S("plan", output="x"), S("parallel", legs), S("guard"),
        S("retry", S("llm")),
    )
"""
    )
    result = run("--tta", "-o", "asyncio_mode=auto")
    assert [line for line in result.outlines if line.startswith("E  ")] == [
        (
            "E       AssertionError: assert trace differs in 4 places: workflow/plan: "
            "output is 'q', expected 'x'"
        ),
        "E           workflow/parallel/fetch_b: duration is 10.0, expected 11",
        (
            "E           workflow: S('guard') was expected here and did not run; there "
            "are 'fetch_a', 'fetch_b', 'llm' and 4 more"
        ),
        "E           workflow/retry/llm was not expected here",
    ]
    assert shown(result, "- tta trace -", "- tta clock -")[1:] == [
        "  workflow 33.5s",
        "~   plan 2s",
        "~     ^ output is 'q', expected 'x'",
        "    parallel 30s",
        "      fetch_a 30s",
        "~     fetch_b 10s",
        "~       ^ duration is 10.0, expected 11",
        "-   S('guard')   <- expected, did not run",
        "    retry 1.5s",
        "      llm 0s failed: ConnectionError: reset (injected)",
        "+     llm@2 1s   <- not expected",
    ]


def test_what_the_time_went_by_in_is_added_up(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Of waits beside each other only the longest has let time pass."""
    pytester.makepyfile(
        test_it=WORKFLOWS
        + """
async def test_it(tta):
    tta.faults.at("llm").fail(ConnectionError("reset"), when=first(2))
    await workflow.execute("q", WorkflowContext())
    assert tta.clock.elapsed == 3.0
"""
    )
    result = run("--tta", "-o", "asyncio_mode=auto")
    lines = shown(result, "- tta clock -", "= tta =")[1:]
    place = "test_it.py:9 in sleeper.<locals>.work"
    assert lines == [
        "34.5 virtual seconds, 6 waits",
        f"  0 s: sleep 2 s by workflow/plan at {place}",
        f"  2 s: sleep 30 s by workflow/parallel/fetch_a at {place}",
        f"  2 s: sleep 10 s by workflow/parallel/fetch_b at {place}",
        "  32 s: sleep 0.5 s by workflow/retry at test_it.py:21 in test_it",
        "  32.5 s: sleep 1 s by workflow/retry at test_it.py:21 in test_it",
        f"  33.5 s: sleep 1 s by workflow/retry/llm at {place}",
        (
            "34.5 s = 30 s in workflow/parallel/fetch_a + 2 s in workflow/plan + "
            "1.5 s in workflow/retry (2 waits) + 1 s in workflow/retry/llm"
        ),
    ]


def test_time_that_nobody_waited_for_is_told_too() -> None:
    """What a test moves by hand, and what a time limit cut short, is in the sum."""

    async def late(_: str) -> None:
        async with asyncio.timeout(5):
            await asyncio.sleep(100)

    async def main() -> None:
        harness.clock.autojump = True
        with contextlib.suppress(TimeoutError):
            await StepPrimitive(late, name="late").execute("q", WorkflowContext())
        await harness.clock.advance(1.5)

    harness = Harness(clock=VirtualClock())
    with harness.watching():
        harness.clock.run(main())
    told = dict(sections(harness, "", is_virtual=True))
    assert told["tta clock"].splitlines()[-1] == (
        "6.5 s = 5 s in late + 1.5 s in moving the clock by hand"
    )


def test_what_was_said_to_a_model_is_shown(pytester: pytest.Pytester, run: Run) -> None:
    """A test that fails shows what its model was asked, and what it answered."""
    pytester.makepyfile(
        """
from tta_primitives import WorkflowContext
from tta_primitives.llm import LLMRequest

async def test_it(tta):
    tta.llm.reply("Hello\\nthere")
    model = tta.llm.primitive("llm")
    request = LLMRequest(model="m", messages=[{"role": "user", "content": "Hi"}])
    answer = await model.execute(request, WorkflowContext())
    assert answer.text == "Bye"
"""
    )
    result = run("--tta", "-o", "asyncio_mode=auto")
    assert shown(result, "- tta llm -", "= tta =")[1:] == [
        "llm@1 at 0 s",
        "  user: Hi",
        "  assistant: Hello\\nthere",
    ]


@pytest.mark.parametrize(
    ("assertion", "line"),
    [
        (
            "assert tta.trace.find('retry') == S('retry', S('llm', execution=2))",
            "assert trace differs: workflow/retry/llm: execution is 1, expected 2",
        ),
        (
            "assert S('workflow', status='failed') == tta.trace",
            "assert trace differs: workflow: status is 'ok', expected 'failed'",
        ),
        (
            "assert tta.trace != S('workflow')",
            "assert trace equals S('workflow'), and must not",
        ),
        (
            "assert tta.trace == 'workflow'",
            (
                "assert a trace equals S(...), or a list of S(...) for several runs, "
                "and was compared with 'workflow'"
            ),
        ),
        (
            "assert tta.trace == S('workflow', duration=int)",
            "assert trace differs: workflow: duration is 33.0, expected int",
        ),
    ],
)
def test_the_first_line_says_what_differs(
    pytester: pytest.Pytester, run: Run, assertion: str, line: str
) -> None:
    """Spans, either side, what should not be equal and what is no pattern."""
    pytester.makepyfile(
        f"""{WORKFLOWS}
async def test_it(tta):
    await workflow.execute("q", WorkflowContext())
    {assertion}
"""
    )
    result = run("--tta", "-o", "asyncio_mode=auto")
    (said,) = [one for one in result.outlines if one.startswith("E  ")]
    assert said.removeprefix("E       ").removeprefix("AssertionError: ") == line


def test_a_comparison_that_was_caught_marks_nothing(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Only the difference that the test fails with is in its tree."""
    pytester.makepyfile(
        WORKFLOWS
        + """
import pytest

async def test_it(tta):
    await timed.execute("q", WorkflowContext())
    with pytest.raises(AssertionError, match="differs"):
        assert tta.trace == S("timed", status="failed")
    assert 1 == 2
"""
    )
    result = run("--tta", "-o", "asyncio_mode=auto")
    assert shown(result, "- tta trace -", "- tta clock -")[1:] == [
        "timed 5s",
        f"  timeout 5s {LATE}",
        "    slow 5s cancelled",
        "  value 0s",
    ]


def test_all_of_it_is_in_the_assertion_if_asked_for(
    pytester: pytest.Pytester, run: Run
) -> None:
    """With -vv pytest cuts nothing, so that the tree needs no section."""
    pytester.makepyfile(
        WORKFLOWS
        + """
async def test_it(tta):
    await timed.execute("q", WorkflowContext())
    assert tta.trace == S("timed", S("timeout"))
"""
    )
    result = run("--tta", "-vv", "--show-capture=no", "-o", "asyncio_mode=auto")
    assert [line for line in result.outlines if line.startswith("E  ")] == [
        "E       assert trace differs: timed/value was not expected here",
        "E           timed 5s",
        f"E             timeout 5s {LATE}",
        "E               slow 5s cancelled",
        "E         +   value 0s   <- not expected",
    ]
    result.stdout.no_fnmatch_line("*- tta trace -*")


HOSTILE = (
    "from tta_primitives import WorkflowContext, step\n"
    "from pytest_tta import S\n"
    "bad = '\\x1b[2J\\u202e\\ud800sk-abcdefghijklmnopqrstuvwx ü' + 'x' * 10_000_000\n"
    "@step\n"
    "async def llm(text):\n"
    "    raise ValueError(bad)\n"
    "async def test_it(tta):\n"
    "    try:\n"
    "        await llm.execute(bad, WorkflowContext())\n"
    "    except ValueError:\n"
    "        pass\n"
    "    assert tta.trace == S('llm', input='y')\n"
)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_hostile_values_neither_reach_the_terminal_nor_fill_it(
    pytester: pytest.Pytester,
    run_apart: Run,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
) -> None:
    """Escape sequences, keys, halves of characters and megabytes are made harmless."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    pytester.makepyfile(HOSTILE)
    result = run_apart("--tta", "-o", "asyncio_mode=auto", "-p", "no:xdist")
    section = shown(result, "- tta trace -", "= tta =")[1:]
    assert len(section) == 2
    assert section[0].startswith("~ llm 0s failed: ValueError: \\x1b[2J\\u202e\\ud800<")
    assert max(map(len, section)) < 600
    text = result.stdout.str()
    assert not {"\x1b", "\u202e", "\ud800"} & set("".join(section))
    assert "sk-abc" not in "".join(section)
    assert ("ü" in section[0]) == (encoding == "utf-8")
    assert "tta trace" in text


def test_a_tree_of_thousands_shows_what_did_not_end_well() -> None:
    """A failing test with many calls does not fill the terminal."""
    numbers = iter(range(3000))

    async def call(_: str) -> None:
        if next(numbers) == 1500:
            message = "busy"
            raise ValueError(message)

    harness = Harness()
    one = StepPrimitive(call, name="call")

    async def main() -> None:
        for _ in range(3000):
            with contextlib.suppress(ValueError):
                await one.execute("q", WorkflowContext())

    with harness.watching():
        harness.clock.run(main())
    told = dict(sections(harness, "", is_virtual=True))
    assert told["tta trace"].splitlines() == [
        "... 1,499 spans that ended well",
        "call@1500 0s",
        "call@1501 0s failed: ValueError: busy",
        "call@1502 0s",
        "... 1,498 spans that ended well",
    ]
    assert harness.trace != S("call")


def test_what_was_given_up_has_let_no_time_pass() -> None:
    """Of a race the winner's wait is what the time went by in."""
    loser = SleepRecord(0, 100, "sleep", "loser", "x", cancelled=True, woke_at=3.0)
    winner = SleepRecord(0, 3, "sleep", "winner", "x", woke_at=3.0)
    assert _made_up_of([loser, winner], 3.0) == "3 s = 3 s in winner"
