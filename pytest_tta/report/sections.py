"""The header line of a session, and what a failing test's report shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.harness import Harness
    from pytest_tta.settings import Settings

__all__ = ["facts", "header", "sections"]

_MOST_SLEEPS = 20


def header(settings: Settings) -> str:
    """Return the line that a session with `--tta` begins with."""
    return f"tta: clock={settings.clock}, seed={settings.seed}"


def sections(
    harness: Harness, said: str, *, is_virtual: bool
) -> Iterator[tuple[str, str]]:
    """Yield title and text of what explains a failing test.

    Args:
        harness: What the test held.
        said: What the failure itself says already.
        is_virtual: Whether the test had virtual time.
    """
    if harness.trace.spans:
        yield "tta trace", harness.trace.outline()
    if is_virtual and harness.clock.sleeps:
        yield "tta clock", "\n".join(_clock_lines(harness))
    problems = [problem for problem in harness.verify() if problem not in said]
    if problems:
        yield "tta problems", "\n".join(problems)


def facts(harness: Harness) -> dict[str, Any]:
    """Return what other plugins may want to know of a test, as plain data."""
    return {
        "seed": harness.seed,
        "virtual_seconds": harness.elapsed,
        "workflows": [root.path for root in harness.trace.roots],
    }


def _clock_lines(harness: Harness) -> Iterator[str]:
    clock = harness.clock
    sleeps = list(clock.sleeps)
    seconds = "second" if clock.elapsed == 1 else "seconds"
    waits = "wait" if len(sleeps) == 1 else "waits"
    yield f"{clock.elapsed:g} virtual {seconds}, {len(sleeps)} {waits}"
    if len(sleeps) > _MOST_SLEEPS:
        yield f"the last {_MOST_SLEEPS}:"
    yield from (f"  {sleep}" for sleep in sleeps[-_MOST_SLEEPS:])
    yield from clock.notes
