"""The header line of a session, and what a failing test's report shows."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Final

from pytest_tta.report.messages import Conversations
from pytest_tta.report.texts import safe
from pytest_tta.trace.lines import cut, few, lines_below
from pytest_tta.trace.spans import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pytest

    from pytest_tta.clock.sleeps import SleepRecord
    from pytest_tta.harness import Harness
    from pytest_tta.settings import Settings
    from pytest_tta.trace.diff import Difference
    from pytest_tta.trace.spans import Trace

__all__ = ["fit", "header", "sections", "trace_text"]

_MOST_SLEEPS: Final = 20
_MOST_PARTS: Final = 6
_MOST_CALLS: Final = 10
_MOST_SAID: Final = 160
_MOST_CHARACTERS: Final = 100_000
_NOBODY: Final = "moving the clock by hand"


def header(settings: Settings, config: pytest.Config) -> str:
    """Return the line that a session with `--tta` begins with.

    Args:
        settings: What all tests have in common.
        config: Knows what else is switched on.
    """
    return f"tta: {', '.join(_switched_on(settings, config))}"


def _switched_on(settings: Settings, config: pytest.Config) -> Iterator[str]:
    yield f"clock={settings.clock}"
    yield f"seed={settings.seed}"
    is_on = config.pluginmanager.has_plugin
    if is_on("tta-exploration"):
        yield "explore" if config.getoption("tta_replay") is None else "replay"
        for name in ("budget", "shard"):
            value = config.getoption(f"tta_{name}")
            if value is not None:
                yield f"{name}={value}"
        if os.environ.get("PYTHONHASHSEED", "random") == "random":
            # The order of sets may differ in the next session.
            yield "hashes=random"
    if is_on("tta-coverage"):
        yield "cov"
    if is_on("tta-mutation"):
        mutated = config.getoption("tta_mutate") or config.getini("tta_mutate")
        yield f"mutate={mutated}"


def sections(
    harness: Harness,
    said: str,
    *,
    is_virtual: bool,
    difference: Difference | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield title and text of what explains a failing test.

    Args:
        harness: What the test held.
        said: What the failure itself says already.
        is_virtual: Whether the test had virtual time.
        difference: Of the comparison of a trace that failed last, if one has.
    """
    trace = trace_text(harness.trace, difference, said)
    if trace:
        yield "tta trace", trace
    if is_virtual and harness.clock.sleeps:
        yield "tta clock", fit(_clock_lines(harness))
    calls = fit(_model_lines(harness))
    if calls:
        yield "tta llm", calls
    problems = [problem for problem in harness.verify() if problem not in said]
    if problems:
        yield "tta problems", fit(problems)


def trace_text(
    trace: Trace, difference: Difference | None = None, said: str = ""
) -> str:
    """Return what the workflows did, as a tree; empty if they did nothing.

    Args:
        trace: Of the test.
        difference: Of the comparison of a trace that failed last, if one has.
        said: What the failure says. If that is the difference, the tree shows where.
    """
    if difference is not None and fit(difference.few_lines()[:1]) in said:
        return fit(difference.tree())
    lines = list(lines_below(trace.roots, 0))
    return fit(few(lines, "that ended well", "did not"))


def fit(lines: Iterable[str]) -> str:
    """Return lines as a text that any terminal can show, without secrets.

    Args:
        lines: Of a section.
    """
    text = safe("\n".join(lines), _MOST_CHARACTERS)
    encoding = getattr(sys.__stdout__, "encoding", None) or "utf-8"
    # pytest writes the whole section as one line of escapes if one sign is unknown.
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _clock_lines(harness: Harness) -> Iterator[str]:
    clock = harness.clock
    sleeps = list(clock.sleeps)
    unit = "second" if clock.elapsed == 1 else "seconds"
    waits = "wait" if len(sleeps) == 1 else "waits"
    yield f"{seconds(clock.elapsed)} virtual {unit}, {len(sleeps)} {waits}"
    if len(sleeps) > _MOST_SLEEPS:
        yield f"the last {_MOST_SLEEPS}:"
    yield from (f"  {sleep}" for sleep in sleeps[-_MOST_SLEEPS:])
    if len(sleeps) > 1 and clock.elapsed:
        yield _made_up_of(sleeps, clock.elapsed)
    yield from clock.notes


def _made_up_of(sleeps: list[SleepRecord], elapsed: float) -> str:
    """Say in which waits the time went by, the longest first."""
    spent: dict[str, list[float]] = defaultdict(list)
    for who, amount in _way_back(sleeps, elapsed):
        spent[who].append(amount)
    parts = sorted(spent.items(), key=lambda part: -sum(part[1]))
    shown = [_part(who, amounts) for who, amounts in parts[:_MOST_PARTS]]
    rest = sum(sum(amounts) for _, amounts in parts[_MOST_PARTS:])
    if rest:
        shown.append(f"{seconds(rest)} s elsewhere")
    return f"{seconds(elapsed)} s = {' + '.join(shown)}"


def _way_back(sleeps: list[SleepRecord], elapsed: float) -> Iterator[tuple[str, float]]:
    """Yield who let time pass, and how much, from the end to the beginning.

    Time stands still unless everybody waits, so whatever ended at a moment is what the
    time before it went by in; of several, the one that began first.
    """
    ended: dict[float, SleepRecord] = {}
    for sleep in sleeps:
        woke_at = sleep.woke_at
        if woke_at is not None and not sleep.cancelled and sleep.at < woke_at:
            ended.setdefault(woke_at, sleep)
    moments = sorted(ended)
    moment = elapsed
    while moment > 0:
        while moments and moments[-1] > moment:
            moments.pop()
        last = moments[-1] if moments else 0.0
        if last < moment:
            yield _NOBODY, moment - last
        else:
            sleep = ended[moment]
            yield sleep.path or sleep.task or "a callback", moment - sleep.at
            last = sleep.at
        moment = last


def _part(who: str, amounts: list[float]) -> str:
    times = f" ({len(amounts)} waits)" if len(amounts) > 1 and who != _NOBODY else ""
    return f"{seconds(sum(amounts))} s in {who}{times}"


def _model_lines(harness: Harness) -> Iterator[str]:
    """Yield what was said to language models, and what they said, call by call."""
    conversations = Conversations(harness)
    spans = ((span, conversations.of(span)) for span in harness.trace.spans)
    calls = ((span, messages) for span, messages in spans if messages)
    for span, messages in islice(calls, _MOST_CALLS):
        yield f"{span.path}@{span.execution} at {seconds(span.started_at)} s"
        yield from (f"  {role}: {_on_a_line(text)}" for role, text in messages)
    more = sum(1 for _ in calls)
    if more:
        yield f"... and {more:,} more {'call' if more == 1 else 'calls'}"


def _on_a_line(text: str) -> str:
    return cut(text.replace("\n", "\\n"), _MOST_SAID)
