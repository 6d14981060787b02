"""The sweep: which faults it tries, what it finds, what it says it has not tried."""

from __future__ import annotations

import pytest

from pytest_tta.explore.plan import FaultAt, Plan
from pytest_tta.explore.sweep import sweep
from tests.explore.toys import Fault, Toy


def passes() -> None:
    """Check nothing."""


def straight(*sites: str):
    """Return a system of one task that calls sites, and gives up at the first fault."""

    def task():
        yield from sites

    return lambda: ([task()], passes)


def stubborn(*sites: str, attempts: int = 2):
    """Return a system that tries each site again when it fails."""

    def task():
        for site in sites:
            for attempt in range(attempts):
                try:
                    if (yield site) != "lost-ack":
                        break
                except Fault:
                    if attempt == attempts - 1:
                        raise

    return lambda: ([task()], passes)


def plans_of(make, **options) -> list[tuple[FaultAt, ...]]:
    """Return the faults of all executions of a sweep."""
    seen = []
    toy = Toy(make, options.pop("offered", ("error",)))

    def execute(plan, choose=None):
        seen.append(plan.faults)
        return toy(plan, choose)

    sweep(execute, **options)
    return seen


def test_a_sweep_of_depth_one() -> None:
    """First nothing, then each fault at each call."""
    a, b = FaultAt("a", 1, "error"), FaultAt("b", 1, "error")
    assert plans_of(straight("a", "b")) == [(), (a,), (b,)]


def test_faults_are_added_to_calls_that_were_seen() -> None:
    """The second attempt exists only after a fault at the first."""
    a1, a2 = FaultAt("a", 1, "error"), FaultAt("a", 2, "error")
    assert plans_of(stubborn("a"), depth=3) == [(), (a1,), (a1, a2)]


def test_each_sequence_once() -> None:
    """No set of faults is tried twice, in no order."""
    found = plans_of(stubborn("a", "b", "c", attempts=3), depth=3)
    assert len(found) == len({frozenset(faults) for faults in found}) == 1 + 3 + 6 + 10


def test_an_outage_strikes_once_and_leaves_no_room() -> None:
    """A call that an outage strikes is given no second fault."""
    found = plans_of(stubborn("a", "b"), depth=2, offered=("error", "outage"))
    outage = FaultAt("a", 1, "outage")
    assert (outage,) in found
    assert not [faults for faults in found if faults[0:1] == (outage,) and faults[1:]]


def test_a_hang_ends_the_sequence() -> None:
    """What hangs makes no further call; the fault itself is a finding here."""
    toy = Toy(straight("a", "b"), ("hang",))
    report = sweep(toy)
    assert report.failure.verdict.kind == "unbounded wait"
    assert report.failure.plan.faults == (FaultAt("a", 1, "hang"),)
    assert report.executions == 2
    assert report.unreached == (("b", "hang"),)
    assert (report.complete, report.left) == (False, 1)


def charged():
    """Charge again when the answer of the first time was lost."""
    charges = []

    def task():
        for attempt in range(2):
            try:
                answer = yield "charge"
                charges.append(attempt)
            except Fault:
                continue
            if answer != "lost-ack":
                return

    def check() -> None:
        assert len(charges) < 2, "charged twice"

    return [task()], check


def test_a_lost_answer_finds_the_double_charge() -> None:
    """One fault, in the third execution: the first kind does no harm."""
    report = sweep(Toy(charged, ("error", "lost-ack")))
    assert report.failure.plan.faults == (FaultAt("charge", 1, "lost-ack"),)
    assert report.executions == 3


def test_a_sweep_can_go_on_after_a_failure() -> None:
    """Then it has the first, has tried everything, and added nothing to failures."""
    report = sweep(Toy(charged, ("lost-ack", "error")), depth=2, stop=False)
    assert report.failure.plan.faults == (FaultAt("charge", 1, "lost-ack"),)
    assert report.executions == 5
    assert report.complete
    assert report.unreached == ()


def test_four_faults_are_found_with_no_fault_too_many() -> None:
    """A bug that needs four faults: the report has these four."""

    def fragile():
        failed = []

        def task():
            for site in "abcdef":
                try:
                    yield site
                except Fault:
                    failed.append(site)

        def check() -> None:
            assert failed[-4:] != ["a", "c", "d", "f"], "these four"

        return [task()], check

    report = sweep(Toy(fragile, ("error", "fatal")), depth=4)
    assert [fault.site for fault in report.failure.plan.faults] == ["a", "c", "d", "f"]


def test_the_depth_is_a_bound() -> None:
    """What fails with two faults passes a sweep of depth one, which then is a proof."""

    def fragile():
        failed = []

        def task():
            for site in "ab":
                try:
                    yield site
                except Fault:
                    failed.append(site)

        def check() -> None:
            assert len(failed) < 2, "both"

        return [task()], check

    assert sweep(Toy(fragile, ("error",))) == (
        3,
        None,
        (("a", "error"), ("b", "error")),
        (),
        True,
        0,
    )
    assert sweep(Toy(fragile, ("error",)), depth=2).failure is not None


def test_a_budget_says_what_it_left() -> None:
    """Sites and kinds that were never struck are in the report."""
    report = sweep(Toy(straight("a", "b"), ("error", "fatal")), budget=3)
    assert report.executions == 3
    assert report.reached == (("a", "error"), ("a", "fatal"))
    assert report.unreached == (("b", "error"), ("b", "fatal"))
    assert (report.complete, report.left) == (False, 2)


def test_a_budget_is_spent_on_other_sites_first() -> None:
    """A site that is called in a loop does not take everything."""
    found = plans_of(straight("a", "a", "a", "b"), budget=3)
    assert found[1:] == [(FaultAt("a", 1, "error"),), (FaultAt("b", 1, "error"),)]


def test_only_some_kinds_and_sites() -> None:
    """Patterns choose sites, names choose kinds."""
    found = plans_of(
        straight("pay/card", "pay/log", "ship"),
        offered=("error", "hang", "fatal"),
        sites=["pay/*"],
        kinds=["fatal", "error"],
    )
    assert found[1:] == [
        (FaultAt("pay/card", 1, "error"),),
        (FaultAt("pay/card", 1, "fatal"),),
        (FaultAt("pay/log", 1, "error"),),
        (FaultAt("pay/log", 1, "fatal"),),
    ]


def test_a_site_with_brackets_is_found_by_its_name() -> None:
    """A name counts as it stands, even if it would mean something in a pattern."""
    found = plans_of(straight("map[0]/load"), sites=["map[0]/load"])
    assert len(found) == 2


def test_parts_of_the_work_share_no_plan() -> None:
    """Each part has its own first faults, and all that follows from them."""
    make = stubborn("a", "b", "c")
    whole = plans_of(make, depth=2)
    parts = [
        plan for part in range(2) for plan in plans_of(make, depth=2, shard=(part, 2))
    ]
    assert sorted(parts) == sorted([(), *whole])


def test_the_base_is_in_all_plans() -> None:
    """A schedule, a seed and faults that are there already stay."""
    base = Plan((FaultAt("a", 1, "error"),), seed=4)
    seen = []
    toy = Toy(stubborn("a", "b"), ("error",))

    def execute(plan, choose=None):
        seen.append(plan)
        return toy(plan, choose)

    report = sweep(execute, base=base)
    assert report.complete
    assert [plan.faults[1:] for plan in seen] == [
        (),
        (FaultAt("b", 1, "error"),),
        (FaultAt("a", 2, "error"),),
    ]
    assert {plan.seed for plan in seen} == {4}


def test_a_negative_depth_is_an_error() -> None:
    """The message shows what was given."""
    with pytest.raises(ValueError, match="depth=-1 must be 0 or more faults"):
        sweep(Toy(straight("a")), depth=-1)


def test_a_part_that_does_not_exist_is_an_error() -> None:
    """The message shows what was given, and what it should be."""
    with pytest.raises(ValueError, match=r"shard=\(-1, 2\) must be which part, from 0"):
        sweep(Toy(straight("a")), shard=(-1, 2))
