"""The sweep: each fault at each call, then each further fault at each call after it.

Faults are added only to calls that an execution was seen to make, after its last fault.
So each sequence of faults that can be reached is tried once, no other ever, and the
first that fails has no fault too many.
"""

from __future__ import annotations

from collections import deque
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pytest_tta.explore.plan import FaultAt, Plan
from pytest_tta.explore.searching import Search, SearchReport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_tta.explore.outcome import CallSeen, Execute, Outcome
    from pytest_tta.explore.searching import Budget

__all__ = ["sweep"]


def sweep(
    execute: Execute,
    *,
    depth: int = 1,
    kinds: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    budget: Budget = None,
    base: Plan | None = None,
    stop: bool = True,
    shard: tuple[int, int] = (0, 1),
) -> SearchReport:
    """Execute a test without a fault, then with each sequence of faults it reaches.

    Args:
        execute: What executes a plan.
        depth: The longest sequence.
        kinds: Only these kinds of faults; None for all that make sense at a site.
        sites: Only at these sites, `*` standing for anything; None for all.
        budget: After how many executions to stop, or what says whether to go on.
        base: What else the executions are given: an input, a seed, a schedule.
        stop: Whether to end at the first failure. If not, the report has the first, and
            no fault is added to a plan that has failed.
        shard: Which part of the first faults, from 0, and of how many parts.

    Raises:
        ValueError: The depth, the shard or the budget makes no sense.
    """
    if depth < 0:
        msg = f"depth={depth!r} must be 0 or more faults"
        raise ValueError(msg)
    if not 0 <= shard[0] < shard[1]:
        msg = f"shard={shard!r} must be which part, from 0, and how many there are"
        raise ValueError(msg)
    search = _Sweep(execute, budget, kinds, sites, shard)
    is_whole = search.run_all(base or Plan(), depth, stop=stop)
    return search.report(is_complete=is_whole)


class _Sweep(Search):
    """A search of `sweep`."""

    def __init__(
        self,
        execute: Execute,
        budget: Budget,
        kinds: Sequence[str] | None,
        sites: Sequence[str] | None,
        shard: tuple[int, int],
    ) -> None:
        super().__init__(execute, budget)
        self._kinds = kinds
        self._sites = sites
        self._shard = shard
        self._waiting: deque[Plan] = deque()
        self._struck: dict[tuple[str, str], None] = {}
        self._seen: dict[tuple[str, str], None] = {}
        # By a site and what makes sense there: what is wanted of it.
        self._wanted: dict[tuple[str, tuple[str, ...]], list[str]] = {}

    def run_all(self, base: Plan, depth: int, *, stop: bool) -> bool:
        """Execute everything to a depth, and tell whether nothing is left.

        Args:
            base: What all executions are given.
            depth: The longest sequence of faults.
            stop: Whether to end at the first failure.
        """
        self._waiting.append(base)
        while self._waiting:
            if not self.may_go_on() or (stop and self.failure is not None):
                return False
            plan = self._waiting.popleft()
            outcome = self.run(plan)
            self._note(outcome)
            if outcome.verdict is None and len(plan.faults) - len(base.faults) < depth:
                self._waiting.extend(self._next(outcome, is_first=plan is base))
        return True

    def report(self, *, is_complete: bool) -> SearchReport:
        """Say what was reached.

        Args:
            is_complete: Whether nothing is left.
        """
        return SearchReport(
            self.executions,
            self.failure,
            tuple(self._struck),
            tuple(pair for pair in self._seen if pair not in self._struck),
            is_complete,
            len(self._waiting),
        )

    def _note(self, outcome: Outcome) -> None:
        """Note which sites there are, and which the plan's last fault has struck."""
        for call in outcome.calls:
            # Nearly all calls are where there was one in an execution before.
            if (call.site, call.kinds) not in self._wanted:
                for kind in self._kinds_at(call):
                    self._seen.setdefault((call.site, kind))
        if outcome.plan.faults:
            last = outcome.plan.faults[-1]
            if any(call.is_struck and call.site == last.site for call in outcome.calls):
                self._struck.setdefault((last.site, last.kind))

    def _next(self, outcome: Outcome, *, is_first: bool) -> Iterator[Plan]:
        """Yield the plans with one fault more, at the first calls of sites first."""
        calls = [call for call in _after_last_fault(outcome) if not call.is_struck]
        calls.sort(key=lambda call: call.number)
        mine, shards = self._shard
        faults = outcome.plan.faults
        found = [
            FaultAt(call.site, call.number, kind)
            for call in calls
            for kind in self._kinds_at(call)
        ]
        for index, fault in enumerate(found):
            if not is_first or index % shards == mine:
                yield outcome.plan._replace(faults=(*faults, fault))

    def _kinds_at(self, call: CallSeen) -> list[str]:
        """Return the kinds of faults that are wanted at a call."""
        place = call.site, call.kinds
        if place not in self._wanted:
            self._wanted[place] = self._wanted_of(call)
        return self._wanted[place]

    def _wanted_of(self, call: CallSeen) -> list[str]:
        if self._sites is not None and not any(
            call.site == wanted or fnmatchcase(call.site, wanted)
            for wanted in self._sites
        ):
            return []
        if self._kinds is None:
            return list(call.kinds)
        return [kind for kind in call.kinds if kind in self._kinds]


def _after_last_fault(outcome: Outcome) -> Sequence[CallSeen]:
    """Return the calls after the one that the last fault strikes: all, without a fault.

    None if that was never made: nothing can be added to a fault that did not happen.
    """
    faults = outcome.plan.faults
    if not faults:
        return outcome.calls
    last = faults[-1]
    for index, call in enumerate(outcome.calls):
        if call.site == last.site and call.number == last.number:
            return outcome.calls[index + 1 :]
    return ()
