"""Examples that execute a plan, as an exploration does, and fail for what it broke."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_tta.harness import Harness

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.explore.outcome import Outcome
    from pytest_tta.explore.plan import Plan

__all__ = ["check", "run_plan"]


def run_plan(
    body: Callable[[Harness], Any], plan: Plan, *, seed: int = 0, strict: bool = False
) -> Outcome:
    """Execute a body under a plan, in a harness and on a simulated loop of its own.

    The body is judged as an explored test is: an error that tells its caller of a fault
    is a fair end, a failed assertion is none, and deadlocks, lost permits and tasks
    that are left running count whatever the body says.

    Args:
        body: Given the harness; an async function, or one that calls `tta.run`. What it
            runs must be made in it, where it keeps state.
        plan: What goes wrong, and which events come first.
        seed: Of the harness.
        strict: Whether the body's assertions hold also where a fallback or a stale
            value has answered.

    Returns:
        What came of it, for further assertions.

    Raises:
        AssertionError: Something broke; the text has the plan, in words and as a line.
        ExplorationError: The body cannot be executed under plans.
    """
    __tracebackhide__ = True
    # Imported when it is used: invariants and fault plans need none of it.
    from pytest_tta.explore.execution import Subject

    file = getattr(getattr(body, "__code__", None), "co_filename", "")
    with Harness(seed=seed) as tta:
        with Subject(tta, partial(body, tta), strict=strict, test_file=file) as subject:
            outcome = subject(plan)
        check(outcome)
    return outcome


def check(outcome: Outcome) -> None:
    """Fail for what an execution has broken, if it has.

    Args:
        outcome: What came of it.

    Raises:
        AssertionError: Something broke; the text has the plan, in words and as a line.
    """
    __tracebackhide__ = True
    verdict = outcome.verdict
    if verdict is None:
        return
    from pytest_tta.explore.line import to_line
    from pytest_tta.explore.orders import normalise
    from pytest_tta.explore.report import plan_in_words, said_of

    rest = verdict.text.strip().splitlines()[1:]
    words = plan_in_words(outcome)
    lines = [said_of(verdict), *rest, "what it takes:", *(f"  {one}" for one in words)]
    lines.append(f"as one line: {to_line(normalise(outcome))}")
    # The cause tells Hypothesis one failure from another.
    raise AssertionError("\n".join(lines)) from verdict.error
