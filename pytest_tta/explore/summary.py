"""What is said at the end of a session in which tests were explored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tta.explore.words import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["UNMARKED", "summary_lines"]

_NONE: Mapping[str, str] = {}

UNMARKED = "async"
"""Why an async test without a marker was not explored."""


def summary_lines(
    explored: dict[str, dict[str, Any]], unexplored: Mapping[str, str] = _NONE
) -> Iterator[str]:
    """Yield what is said at the end of a session in which tests were explored.

    Args:
        explored: What reports say of their explorations, by test.
        unexplored: Why others were not, by test.
    """
    if explored:
        yield from _explored_lines(explored)
    unmarked = sum(why == UNMARKED for why in unexplored.values())
    if unmarked:
        tests = "test was" if unmarked == 1 else "tests were"
        yield (
            f"{unmarked} async {tests} not explored: only sync tests that call "
            "tta.run(...) are, and those with @pytest.mark.tta_schedules or tta_sweep"
        )
    for test, why in unexplored.items():
        if why != UNMARKED:
            yield f"{test}: not explored: {why}"


def _explored_lines(explored: dict[str, dict[str, Any]]) -> Iterator[str]:
    executions = sum(found["executions"] for found in explored.values())
    tests = "test" if len(explored) == 1 else "tests"
    times = "execution" if executions == 1 else "executions"
    yield f"{len(explored)} {tests} explored in {executions:,} {times}"
    for test, found in explored.items():
        yield from (f"{test}: {line}" for line in _test_lines(found))


def _test_lines(found: dict[str, Any]) -> Iterator[str]:
    if found["replay"]:
        yield f"replay: {found['replay']}"
    for kept in found["failures"]:
        yield f"{kept['state']}: {kept['line'] or kept['path']}"
    if found["not_judged"] and not found["verdict"]:
        number = found["not_judged"]
        executions = "execution" if number == 1 else "executions"
        yield (
            f"its own assertions had no say in {number} {executions}, where a fallback "
            "or a kept answer stood in, or a part was cancelled"
        )
    if not found["verdict"]:
        yield from _gap_lines(found)
    if found.get("certificate"):
        yield found["certificate"]
    if found["verdict"]:
        line = found["line"]
        again = f"--tta-replay='{line}'" if line else "no line repeats it"
        yield f"{found['verdict']['kind']}: {again}"


def _gap_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield what was not tried or reached, of a test in which nothing was found."""
    if found["all_orders"] is not None:
        tried = "all orders of events" if found["all_orders"] else "not all orders"
        yield f"{tried} were tried"
    if found["unreached"]:
        yield f"not reached: {', '.join(shortened(found['unreached']))}"
        if found.get("deeper"):
            yield (
                f"{found['deeper']} faults at once would reach that: "
                f"@pytest.mark.tta_sweep(depth={found['deeper']})"
            )
    if found.get("idle"):
        yield found["idle"]
    if found["never"]:
        yield f"never so: {', '.join(found['never'])}"
