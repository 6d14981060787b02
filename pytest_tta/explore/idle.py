"""A sweep that strikes nothing: why, and which sites there are."""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_tta.explore.options import SweepAsked
    from pytest_tta.explore.outcome import CallSeen
    from pytest_tta.explore.searching import SearchReport

__all__ = ["idle_text"]


def idle_text(
    asked: SweepAsked,
    calls: Sequence[CallSeen],
    done: SearchReport,
    *,
    is_whole: bool = True,
) -> str:
    """Say why a sweep strikes nothing, or less than its patterns name.

    Args:
        asked: What the marker asks for.
        calls: Those of the execution in which all goes well.
        done: What the sweep has done.
        is_whole: Whether that is all there is to do. If not, a call may yet be made
            that only another fault leads to.

    Returns:
        A sentence; empty if there is nothing to be said.
    """
    kinds = {kind for call in calls for kind in call.kinds}
    known = list(dict.fromkeys(call.site for call in calls if call.kinds))
    met = {site for site, _ in (*done.reached, *done.unreached)}
    if not asked.depth:
        return ""
    if not known and not met:
        return (
            "tta_sweep has nothing to strike: the test calls nothing outside. Leaf "
            "steps below a workflow, models, httpx, redis and threads are seen; in a "
            "hand-written double say `await op('db.read')`"
        )
    for pattern in asked.sites or ():
        is_there = any(_matches(site, pattern) for site in (*known, *met))
        if not is_there and (is_whole or not met):
            return (
                f"tta_sweep(sites=[{pattern!r}]) matches no call{_hint(pattern, known)}"
            )
    if not met:
        given = ", ".join(asked.faults or ())
        return (
            f"no call can have the fault {given}; there are {', '.join(sorted(kinds))}"
        )
    return ""


def _matches(site: str, pattern: str) -> bool:
    return site == pattern or fnmatchcase(site, pattern)


def _hint(pattern: str, known: Sequence[str]) -> str:
    close = get_close_matches(pattern, known, n=1)
    there = f"there are {', '.join(map(repr, known))}"
    return f"; did you mean {close[0]!r}? {'T' + there[1:]}" if close else f"; {there}"
