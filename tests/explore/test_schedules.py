"""The portfolio: which bugs it finds, how soon, and when it is done."""

from __future__ import annotations

import pytest

from pytest_tta.explore.plan import FaultAt, Plan
from pytest_tta.explore.schedules import Bounded, search_schedules
from tests.explore import planted
from tests.explore.toys import Toy


def pair(steps: int = 2, tasks: int = 2):
    """Return a system of tasks that do nothing to each other."""
    return lambda: ([planted.noise(steps) for _ in range(tasks)], lambda: None)


@pytest.mark.parametrize("bug", planted.ALL)
def test_asyncio_by_itself_never_shows_the_bug(bug) -> None:
    """Each of the six passes as an ordinary test does."""
    assert Toy(bug)(Plan()).verdict is None


@pytest.mark.parametrize("bug", planted.ALL)
@pytest.mark.parametrize("seed", range(10))
def test_the_portfolio_finds_each_bug(bug, seed: int) -> None:
    """The default number of executions suffices, whatever the seed."""
    report = search_schedules(Toy(bug), seed=seed)
    assert report.failure is not None
    assert report.failure.verdict.kind == "assertion"
    assert not report.complete


@pytest.mark.parametrize("bug", planted.ALL)
def test_the_plan_of_a_failure_repeats_it(bug) -> None:
    """The report's plan needs no chooser: the same events come again."""
    failure = search_schedules(Toy(bug)).failure
    again = Toy(bug)(failure.plan)
    assert again.digest == failure.digest
    assert again.verdict.group == failure.verdict.group


def test_the_search_ends_when_all_orders_were_tried() -> None:
    """Six orders of two times two events: no more than those are systematic."""
    toy = Toy(pair())
    report = search_schedules(toy, 10_000)
    assert report.complete
    assert report.failure is None
    assert report.executions == toy.executions < 60


def test_few_orders_are_tried_once_each() -> None:
    """Where there seem to be few, nothing is left to chance."""
    found = []
    toy = Toy(pair())

    def execute(plan, choose=None):
        outcome = toy(plan, choose)
        found.append(outcome.digest)
        return outcome

    assert search_schedules(execute, early=0).complete
    assert len(found) == len(set(found)) == 6


def test_where_few_orders_become_many_chance_helps() -> None:
    """A first choice may open what the plain order never shows."""

    def opening():
        state = {"opened": False}

        def key():
            yield "key"
            state["opened"] = True

        def many():
            yield "look"
            if state["opened"]:
                return
            yield from planted.noise(6)

        def door():
            yield "look"
            if not state["opened"]:
                yield from planted.noise(6)

        return [key(), many(), door()], lambda: None

    report = search_schedules(Toy(opening), 150, early=0)
    assert (report.executions, report.complete) == (150, False)


def test_nothing_to_choose_is_complete_at_once() -> None:
    """One task alone: one execution, and a look whether limits could run out early."""
    assert search_schedules(Toy(pair(tasks=1))) == (2, None, (), (), True, 0)


def test_the_count_is_kept() -> None:
    """There are as many executions as asked for."""
    report = search_schedules(Toy(pair(4, 4)), 37)
    assert (report.executions, report.complete) == (37, False)


def test_without_a_count_the_budget_ends_it() -> None:
    """A campaign goes on until what it asks says no."""
    left = iter([True] * 20 + [False])
    report = search_schedules(Toy(pair(4, 4)), None, budget=lambda: next(left))
    assert 15 <= report.executions <= 20


def test_a_failure_of_the_plain_order_is_found_first() -> None:
    """One execution, and no deviation."""

    def broken():
        def check() -> None:
            raise AssertionError("always")

        return [planted.noise()], check

    report = search_schedules(Toy(broken))
    assert report.executions == 1
    assert report.failure.plan == Plan()


def test_the_base_is_in_all_plans() -> None:
    """Orders are searched around faults and with an input, too."""
    base = Plan((FaultAt("noise", 1, "error"),), seed=5, input="x")
    seen = []
    toy = Toy(pair(4, 4))

    def execute(plan, choose=None):
        seen.append(plan)
        return toy(plan, choose)

    search_schedules(execute, 30, base=base)
    assert len(seen) == 30
    assert {(plan.faults, plan.seed, plan.input) for plan in seen} == {
        (base.faults, 5, "x")
    }


def test_half_of_the_executions_let_a_limit_run_out_early() -> None:
    """If there are limits; without one there is no such budget."""
    early = []
    toy = Toy(planted.leaked_permit)

    def execute(plan, choose=None):
        outcome = toy(plan, choose)
        early.append(plan.schedule.early)
        return outcome._replace(verdict=None)

    search_schedules(execute, 200)
    assert 0.4 < sum(early) / len(early) < 0.6
    assert search_schedules(execute, 200, early=0).failure is None


def test_a_seed_decides_everything() -> None:
    """The same search gives the same executions, as often as it is made."""

    def digests(seed: int) -> list[str]:
        toy = Toy(pair(4, 4))
        found = []

        def execute(plan, choose=None):
            outcome = toy(plan, choose)
            found.append(outcome.digest)
            return outcome

        search_schedules(execute, 60, seed=seed)
        return found

    assert digests(3) == digests(3)
    assert digests(3) != digests(4)


def test_parts_of_the_work_share_no_systematic_schedule() -> None:
    """All parts together give each schedule once, whichever way it is cut."""

    def all_of(shard):
        bounded = Bounded("sticky", shard=shard)
        toy = Toy(pair(2, 3))
        while (deviations := bounded.next()) is not None:
            schedule = Plan().schedule._replace(order="sticky", deviations=deviations)
            outcome = toy(Plan(schedule=schedule))
            bounded.learn(deviations, outcome)
            yield deviations, outcome.digest

    whole = list(all_of((0, 1)))
    parts = [one for part in range(3) for one in all_of((part, 3))]
    assert len(whole) == len({digest for _, digest in whole}) == 90
    assert sorted(set(parts)) == sorted(whole)
    assert len(parts) == 90 + 2  # The one without a deviation is in each.


def test_the_fewest_deviations_come_first() -> None:
    """The size of what `Bounded` gives never falls, and stays within the bound."""
    bounded = Bounded("oldest", 2)
    toy = Toy(pair(2, 3))
    sizes = []
    while (deviations := bounded.next()) is not None:
        schedule = Plan().schedule._replace(deviations=deviations)
        bounded.learn(deviations, toy(Plan(schedule=schedule)))
        sizes.append(len(deviations))
    assert sizes == sorted(sizes)
    assert sizes[-1] == 2


def test_a_part_that_does_not_exist_is_an_error() -> None:
    """The message shows what was given, and what it should be."""
    with pytest.raises(ValueError, match=r"shard=\(2, 2\) must be which part, from 0"):
        search_schedules(Toy(pair()), shard=(2, 2))


def test_a_budget_of_nothing_is_an_error() -> None:
    """A search without an execution would report that nothing fails."""
    with pytest.raises(ValueError, match="budget=0 must be 1 or more executions"):
        search_schedules(Toy(pair()), budget=0)
