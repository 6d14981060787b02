"""All orders that make a difference: none is left out, and few come twice."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_tta.explore.exhaustive import exhaust
from pytest_tta.explore.footprints import Footprints
from pytest_tta.explore.plan import Cancellation, FaultAt, Plan, Schedule
from tests.explore import planted
from tests.explore.toys import Fault, Toy
from tta_primitives import step
from tta_primitives.performance import CachePrimitive


def branches(tasks: int, calls: int):
    """Return a system of tasks that make calls of their own."""

    def task(name):
        for _ in range(calls):
            yield name

    return lambda: ([task(f"t{n}") for n in range(tasks)], lambda: None)


def everything_pure(site: str) -> frozenset[str]:
    return frozenset()


@pytest.mark.parametrize(
    ("tasks", "calls", "all_of_them", "few"),
    [(2, 2, 6, 5), (3, 2, 90, 16), (4, 2, 2520, 50)],
)
def test_independent_branches_need_few_executions(
    tasks: int, calls: int, all_of_them: int, few: int
) -> None:
    """Without footprints all orders; with them not even all pairs of neighbours."""
    toy = Toy(branches(tasks, calls))
    assert exhaust(toy) == (all_of_them, None, (), (), True, 0)
    report = exhaust(toy, footprints=everything_pure)
    assert report.complete
    assert report.executions <= few


# A call: the name of its site, which is also what it touches. A task: calls and sleeps.
CALLS = st.sampled_from(["a", "b", "c"]) | st.sampled_from([1, 2]).map(
    lambda seconds: ("sleep", seconds)
)
SYSTEMS = st.lists(st.lists(CALLS, min_size=1, max_size=3), min_size=2, max_size=3)
JOINS = st.none() | st.sampled_from(["a", "b", "c"])


def endings(system, footprints, join=None, base=None, shard=(0, 1)) -> tuple[set, int]:
    """Return all final states of a system, and how many executions it took."""
    found = set()

    def make():
        logs = {"a": [], "b": [], "c": [], "own": []}

        def task(number, calls):
            for call in calls:
                try:
                    yield call
                except Fault:
                    logs["own"].append((number, call))
                    continue
                if isinstance(call, str):
                    logs[call].append(number)

        def last():
            yield lambda: len(logs[join]) > 0
            yield join
            logs[join].append("joined")

        def check() -> None:
            logs["own"].sort()
            found.add(str(logs))

        tasks = [task(number, calls) for number, calls in enumerate(system)]
        if join is not None and any(join in calls for calls in system):
            tasks.append(last())
        return tasks, check

    report = exhaust(Toy(make), footprints=footprints, base=base, shard=shard)
    assert report.complete or shard != (0, 1)
    return found, report.executions


@settings(max_examples=150, deadline=None)
@given(SYSTEMS, JOINS)
def test_no_final_state_is_left_out(system, join) -> None:
    """What each call touches is known: the same ends as of all orders."""
    every, all_of_them = endings(system, None, join)
    some, fewer = endings(system, lambda site: frozenset((site,)), join)
    assert some == every
    assert fewer <= all_of_them


@settings(max_examples=100, deadline=None)
@given(SYSTEMS, st.sampled_from("abc"), st.integers(1, 3), st.booleans())
def test_no_final_state_is_left_out_with_a_fault(system, site, number, is_out) -> None:
    """A fault strikes by number, so that it matters who calls first."""
    base = Plan((FaultAt(site, number, "outage" if is_out else "error"),))
    every, _ = endings(system, None, base=base)
    some, _ = endings(system, lambda site: frozenset((site,)), base=base)
    assert some == every


@pytest.mark.parametrize("bug", planted.ALL)
def test_each_planted_bug_is_found(bug) -> None:
    """Where all orders are tried there is nothing to miss."""
    base = Plan(schedule=Schedule(early=1))
    report = exhaust(Toy(bug), base=base, footprints=footprints_of(bug))
    assert report.failure is not None
    assert not report.complete


def footprints_of(bug):
    """Noise touches nothing; everything else counts as touching the same."""
    return Footprints(pure=["noise"])


def test_the_first_failure_has_the_fewest_deviations() -> None:
    """Orders near that of asyncio come first."""
    report = exhaust(Toy(planted.three_windows))
    assert len(report.failure.plan.schedule.deviations) == 1


def test_a_proof() -> None:
    """A single flight: whoever comes first loads, and there is no other end."""

    def flight():
        state = {"leader": None, "value": None, "loads": 0}

        def get(number):
            yield "ask"
            if state["leader"] is None:
                state["leader"] = number
                yield "load"
                state["loads"] += 1
                state["value"] = 1
            else:
                yield lambda: state["value"] is not None

        def check() -> None:
            assert state["loads"] == 1, "loaded twice"

        return [get(number) for number in range(3)], check

    report = exhaust(Toy(flight))
    assert report.complete
    assert report.failure is None


def test_a_limit_leaves_something() -> None:
    """Then nothing is proved, and the report says how much is known to be left."""
    report = exhaust(Toy(branches(3, 2)), limit=10)
    assert (report.executions, report.complete) == (10, False)
    assert report.left > 0


@pytest.mark.parametrize(
    "base",
    [
        Plan((FaultAt("t0", 1, "hang"),)),
        Plan(cancellation=Cancellation("task-1", 1)),
        Plan(schedule=Schedule("burst")),
    ],
)
def test_where_nobody_knows_what_commutes_all_orders_count(base: Plan) -> None:
    """A moment that is a number, a call that nobody sees, another mode."""
    toy = Toy(branches(3, 2))

    def execute(plan, choose=None):
        return toy(plan, choose)._replace(verdict=None)

    every = exhaust(execute, base=base)
    some = exhaust(execute, base=base, footprints=everything_pure)
    assert some.executions == every.executions


def test_a_site_that_is_not_declared_touches_the_unknown() -> None:
    """The same one thing, so that no two of them change places."""
    footprints = Footprints({"bank/*": ["account"]}, pure=["log"])
    assert footprints("bank/pay") == {"account"}
    assert footprints("log") == frozenset()
    assert footprints("other") == {"?"}


def test_a_name_counts_before_a_pattern() -> None:
    """And of patterns, the first."""
    footprints = Footprints({"*/a": ["first"], "x/*": ["second"]}, pure=["x/a"])
    assert footprints("x/a") == frozenset()
    assert footprints("y/a") == {"first"}
    assert footprints("x/b") == {"second"}


def test_a_text_is_no_list_of_names() -> None:
    """Its letters would be names, and nothing would be as meant."""
    with pytest.raises(
        TypeError, match=r"touches\['a'\]='rows' must be a list of names"
    ):
        Footprints({"a": "rows"})


async def load(key: str) -> str:
    await asyncio.sleep(0)
    return key


async def save(key: str) -> str:
    await asyncio.sleep(0)
    return key


def shout(key: str) -> str:
    return key.upper()


def test_a_tree_tells_which_calls_share_a_state() -> None:
    """What is below a cache touches it; what is not, does not."""
    cached = CachePrimitive(step(load), ttl=60).named("cached")
    tree = (cached | step(save)).named("both")
    footprints = Footprints.of(tree, pure=["*"])
    assert footprints("both/save") == frozenset()
    assert any(name.startswith("cached at") for name in footprints("both/cached/load"))


def test_a_function_that_does_not_wait_may_follow_any_call() -> None:
    """It is no site, so what it touches counts for all sites of its tree."""
    tree = (step(load) >> step(shout)).named("chain")
    assert Footprints.of(tree, pure=["*/load"])("chain/load") == {"?"}
    assert Footprints.of(tree, pure=["*/load", "*/shout"])("chain/load") == frozenset()


@pytest.mark.parametrize("shards", [2, 3, 5])
def test_parts_together_try_all_orders(shards: int) -> None:
    """Each is in one of them but the first, and none says that it is complete."""
    orders: list[tuple[str, ...]] = []

    def execute(plan, choose=None):
        outcome = Toy(branches(3, 2))(plan, choose)
        orders.append(tuple(one.units[one.taken].label for one in outcome.choices))
        return outcome

    parts = [exhaust(execute, shard=(part, shards)) for part in range(shards)]
    assert len(set(orders)) == 90
    assert sum(part.executions for part in parts) == 90 + shards - 1
    assert not any(part.complete for part in parts)
    assert all(part.left for part in parts)


@settings(max_examples=50, deadline=None)
@given(SYSTEMS, st.integers(2, 3))
def test_parts_leave_no_final_state_out(system, shards) -> None:
    """With footprints, too: together they come to the same ends."""

    def footprints(site):
        return frozenset((site,))

    every, _ = endings(system, None)
    parts = [
        endings(system, footprints, shard=(part, shards))[0] for part in range(shards)
    ]
    assert set().union(*parts) == every


def test_a_bug_is_found_by_one_of_the_parts() -> None:
    """Whichever has the order that shows it."""
    found = [
        exhaust(Toy(planted.lost_update), shard=(part, 3)).failure for part in range(3)
    ]
    assert any(found)


def test_a_part_must_be_one_of_those_that_there_are() -> None:
    """Counted from 0."""
    with pytest.raises(ValueError, match=r"shard=\(2, 2\) must be which part, from 0"):
        exhaust(Toy(branches(2, 1)), shard=(2, 2))
