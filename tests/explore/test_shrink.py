"""The shrinker: how small failures become, how soon, and that they stay the same."""

from __future__ import annotations

import pytest

from pytest_tta.explore.choosers import any_of_them, chance_of
from pytest_tta.explore.outcome import Verdict
from pytest_tta.explore.plan import Cancellation, FaultAt, Plan, Schedule
from pytest_tta.explore.shrink import shrink
from tests.explore import planted
from tests.explore.toys import Fault, Toy


def fragile():
    """Make a task of one call, which must not fail."""
    failed = []

    def task():
        try:
            yield "a"
        except Fault:
            failed.append(1)

    def check() -> None:
        assert not failed, "failed"

    return [task()], check


def random_failure(toy: Toy, seed: int, early: int = 1):
    """Return an execution that failed by chance, with many deviations."""
    for index in range(5000):
        plan = Plan(schedule=Schedule(early=early))
        outcome = toy(plan, any_of_them(chance_of(seed, index)))
        if outcome.verdict is not None:
            return outcome
    raise LookupError(seed)


@pytest.mark.parametrize("bug", planted.ALL)
@pytest.mark.parametrize("seed", range(5))
def test_each_bug_needs_one_deviation(bug, seed: int) -> None:
    """Whatever chance has found: there is no smaller schedule that fails."""
    toy = Toy(bug)
    found = random_failure(toy, seed)
    before = toy.executions
    small = shrink(toy, found)
    assert len(small.plan.schedule.deviations) == 1
    assert small.verdict.group == found.verdict.group
    assert toy.executions - before < 200


def test_a_failure_that_needs_two_deviations_gets_two() -> None:
    """Two tasks must be overtaken at different times."""

    def crossed():
        log = []

        def task(name):
            for step in range(3):
                yield name
                log.append(f"{name}{step}")

        def check() -> None:
            wanted = ["b0", "a0", "b1", "b2"]
            assert [one for one in log if one in wanted] != wanted, "crossed"
            assert log[-1] != "c1" or log.index("c0") > 1 or log[2] != "a0", log

        return [task("a"), task("b")], check

    toy = Toy(crossed)
    assert toy(Plan()).verdict is None
    small = shrink(toy, random_failure(toy, 0))
    assert 1 <= len(small.plan.schedule.deviations) <= 2


def test_faults_that_are_not_needed_go() -> None:
    """Of three faults, a cancellation and an order, one fault stays."""

    def fragile():
        failed = []

        def task():
            for site in "abc":
                try:
                    yield site
                except Fault:
                    failed.append(site)

        def idle():
            yield "idle"
            yield "idle"

        def check() -> None:
            assert "b" not in failed, "b failed"

        return [task(), idle(), idle()], check

    toy = Toy(fragile)
    faults = tuple(FaultAt(site, 1, "error") for site in "abc")
    order = Schedule("op", "sticky", ((0, 1),), 1)
    plan = Plan(faults, Cancellation("task-2", 4), order)
    small = shrink(toy, toy(plan))
    assert small.plan == Plan((faults[1],))
    assert toy.executions < 20


def test_an_outage_becomes_an_error_where_that_is_enough() -> None:
    """One call that fails is less than a site that is gone."""
    toy = Toy(fragile)
    small = shrink(toy, toy(Plan((FaultAt("a", 1, "outage"),))))
    assert small.plan.faults == (FaultAt("a", 1, "error"),)


def test_both_faults_and_their_order_stay_if_they_are_needed() -> None:
    """A fault and a deviation that only together break it are both in the result."""

    def fragile():
        state = {"failed": False, "first": ""}

        def main():
            try:
                yield "a"
            except Fault:
                state["failed"] = True
            yield "a2"
            state["first"] = state["first"] or "main"

        def other():
            yield "b"
            yield "b"
            state["first"] = state["first"] or "other"

        def check() -> None:
            assert not (state["failed"] and state["first"] == "other"), "both"

        return [main(), other()], check

    toy = Toy(fragile)
    plan = Plan((FaultAt("a", 1, "error"),))
    found = next(
        outcome
        for index in range(500)
        if (outcome := toy(plan, any_of_them(chance_of(0, index)))).verdict
    )
    small = shrink(toy, found)
    assert small.plan.faults == plan.faults
    assert len(small.plan.schedule.deviations) == 1


def test_a_fault_that_fails_in_any_mode_is_shown_in_the_plainest() -> None:
    """Orders that asyncio never takes are no part of a failure that needs none."""
    toy = Toy(fragile)
    faults = (FaultAt("a", 1, "error"),)
    small = shrink(toy, toy(Plan(faults, schedule=Schedule("harsh"))))
    assert small.plan == Plan(faults)


def test_an_early_limit_goes_if_it_is_not_needed() -> None:
    """The bug needs a limit that runs out, so it stays; another bug does not."""
    toy = Toy(planted.leaked_permit)
    assert shrink(toy, random_failure(toy, 0)).plan.schedule.early == 1
    toy = Toy(planted.lost_update)
    assert shrink(toy, random_failure(toy, 0)).plan.schedule.early == 0


def test_another_failure_is_not_taken_for_the_same() -> None:
    """A smaller plan that fails for another reason is no smaller plan of this one."""

    def two_reasons():
        failed = []

        def task():
            for site in "ab":
                try:
                    yield site
                except Fault:
                    failed.append(site)

        def check() -> None:
            if failed == ["a", "b"]:
                raise AssertionError("both")

        return [task()], check

    toy = Toy(two_reasons)

    def execute(plan, choose=None):
        outcome = toy(plan, choose)
        if len(plan.faults) == 1:
            return outcome._replace(verdict=Verdict("left running", "another"))
        return outcome

    faults = (FaultAt("a", 1, "error"), FaultAt("b", 1, "error"))
    small = shrink(execute, execute(Plan(faults)))
    assert small.plan.faults == faults
    assert small.verdict.text == "both"


def test_the_number_of_executions_is_bounded() -> None:
    """At the limit the smallest so far is taken, and confirmed."""
    toy = Toy(planted.cache)
    found = random_failure(toy, 3)
    before = toy.executions
    small = shrink(toy, found, limit=3)
    assert toy.executions - before <= 4
    assert small.verdict.group == found.verdict.group


def test_what_does_not_fail_again_is_not_deterministic() -> None:
    """The verdict says so, and what was found the first time."""
    toy = Toy(planted.cache)
    found = random_failure(toy, 0)

    def execute(plan, choose=None):
        return toy(plan, choose)._replace(verdict=None)

    small = shrink(execute, found)
    assert small.verdict.kind == "not deterministic"
    assert "found was: loaded 2 times" in small.verdict.text


def test_what_fails_now_and_then_is_not_deterministic() -> None:
    """A plan that failed and then passes is not reported as a finding."""
    toy = Toy(planted.cache)
    found = random_failure(toy, 0)
    count = iter(range(1000))

    def execute(plan, choose=None):
        outcome = toy(plan, choose)
        return outcome if next(count) == 0 else outcome._replace(verdict=None)

    small = shrink(execute, found)
    assert small.verdict.kind == "not deterministic"
    assert "it failed once and then did not" in small.verdict.text


def test_only_a_failure_can_be_shrunk() -> None:
    """There is nothing that a smaller plan would have to have in common."""
    toy = Toy(planted.cache)
    with pytest.raises(ValueError, match="only an execution that failed can be shrunk"):
        shrink(toy, toy(Plan()))
