"""Searching with the loop itself: orders are said anew, and none is lost."""

from __future__ import annotations

import asyncio
import hashlib
from itertools import starmap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_tta import op
from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.simulation import SimulationLoop
from pytest_tta.explore.choosers import any_of_them, chance_of, replaying
from pytest_tta.explore.exhaustive import exhaust
from pytest_tta.explore.orders import normalise, schedule_of
from pytest_tta.explore.outcome import Outcome
from pytest_tta.explore.plan import Plan, Schedule
from pytest_tta.explore.schedules import search_schedules


class Program:
    """An async function that is given a log, as something that plans execute."""

    def __init__(self, main) -> None:
        self.loop = SimulationLoop(VirtualClock())
        self.main = main
        self.ends: set[str] = set()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.loop.close()

    def __call__(self, plan, choose=None) -> Outcome:
        """Execute the function, and keep how its log looks in the end."""
        schedule = plan.schedule
        choose = replaying(schedule) if choose is None else choose
        self.loop.begin(choose, mode=schedule.mode, early=schedule.early)
        log: dict[str, list] = {}
        self.loop.run(self.main(log))
        end = str(sorted(log.items()))
        self.ends.add(end)
        choices = tuple(self.loop.choices)
        trail = hashlib.sha256(f"{end}{choices}".encode()).hexdigest
        early = self.loop.early_used
        return Outcome(plan, None, choices=choices, trail=trail, early=early)


async def act(log, name: str, acts) -> None:
    """Do what a list says: calls, which are logged, sleeps, and failing."""
    for what in acts:
        if what == "fail":
            raise LookupError(name)
        if isinstance(what, int):
            await asyncio.sleep(what)
        elif what == "limited":
            try:
                async with asyncio.timeout(2):
                    await op("limited")
            except TimeoutError:
                log.setdefault("limited", []).append((name, "late"))
        else:
            await op(what)
            log.setdefault(what, []).append(name)


ACTS = st.lists(st.sampled_from(["a", "b", "c", "limited", 1, 2, "fail"]), max_size=3)
PROGRAMS = st.lists(ACTS, min_size=2, max_size=3)


def grouped(program):
    """Return a function whose tasks end each other when one fails."""

    async def main(log) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for number, acts in enumerate(program):
                    group.create_task(act(log, f"t{number}", acts))
        except* LookupError:
            pass
        await act(log, "main", ["a", "b"])

    return main


def gathered(program):
    """Return a function that waits for all of its tasks, whatever happens."""

    async def main(log) -> None:
        acts = starmap(act, ((log, f"t{n}", acts) for n, acts in enumerate(program)))
        await asyncio.gather(*acts, return_exceptions=True)
        await act(log, "main", ["a"])

    return main


@pytest.mark.parametrize("mode", ["op", "burst", "harsh"])
@settings(max_examples=60, deadline=None)
@given(program=PROGRAMS, index=st.integers(0, 1000), early=st.integers(0, 2))
def test_any_execution_is_repeated_from_its_schedule(
    mode, program, index, early
) -> None:
    """In each mode and in both orders, and from the line's own choice of the two."""
    plan = Plan(schedule=Schedule(mode, early=early))
    with Program(grouped(program)) as execute:
        outcome = execute(plan, any_of_them(chance_of(0, index)))
        ends = set(execute.ends)
        for order in ("oldest", "sticky"):
            schedule = schedule_of(outcome, order)
            again = execute(plan._replace(schedule=schedule))
            assert again.early == outcome.early <= early
            assert again.digest == outcome.digest or again.early < early
        execute(normalise(outcome))
        assert execute.ends == ends


@pytest.mark.parametrize("shape", [grouped, gathered])
@settings(max_examples=60, deadline=None)
@given(program=PROGRAMS, early=st.integers(0, 1))
def test_no_end_is_left_out(shape, program, early: int) -> None:
    """With cancellation, time and limits: the same ends as of all orders."""
    base = Plan(schedule=Schedule(early=early))
    with Program(shape(program)) as every, Program(shape(program)) as some:
        everything = exhaust(every, base=base, limit=3000)
        if everything.complete:
            few = exhaust(some, base=base, footprints=lambda site: frozenset((site,)))
            assert few.complete
            assert some.ends == every.ends
            assert few.executions <= everything.executions


@settings(max_examples=20, deadline=None)
@given(program=PROGRAMS)
def test_the_portfolio_ends_with_the_same_proof(program) -> None:
    """Where it says that all orders were tried, it has seen every end."""
    with Program(grouped(program)) as every, Program(grouped(program)) as some:
        if search_schedules(some, 400, early=0).complete:
            exhaust(every)
            assert some.ends == every.ends
