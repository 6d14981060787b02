"""Strategies: what they choose, and that they depend on nothing but their seed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import prod

import pytest

from pytest_tta.clock.choices import Unit
from pytest_tta.explore.choosers import (
    any_of_them,
    chain_of,
    chance_of,
    fairly,
    first_come,
    lazily,
    measure,
    replaying,
    weighted,
    with_early,
    with_priorities,
)
from pytest_tta.explore.orders import PATIENCE, Turns, normalise, schedule_of
from pytest_tta.explore.outcome import Choice, Outcome
from pytest_tta.explore.plan import Plan, Schedule
from tests.explore import planted
from tests.explore.toys import Toy

A, B, C = (Unit("op", chain, "abc"[chain], 1, chain) for chain in range(3))
TIMER = Unit("timer", 1, "sleep", 0, 8)
LIMIT = Unit("deadline", 2, "timeout", 0, 9)
STRATEGIES = {
    "first come": lambda chance: first_come,
    "any": any_of_them,
    "lazy": lazily,
    "pct": lambda chance: with_priorities(chance, 3, 10),
    "urw": lambda chance: weighted(chance, {0: 3, 1: 1}),
    "fair": lambda chance: fairly(any_of_them(chance), 10),
    "early": lambda chance: with_early(any_of_them(chance), chance, 10),
}
each = pytest.mark.parametrize("name", STRATEGIES)


@each
def test_a_strategy_depends_on_seed_and_index_alone(name: str) -> None:
    """The same seed and index choose the same, in whichever process."""
    runs = []
    for _ in range(2):
        choose = STRATEGIES[name](chance_of(7, 3))
        runs.append([choose([A, B, C, LIMIT]) for _ in range(50)])
    assert runs[0] == runs[1]


def test_chance_is_the_same_for_ever() -> None:
    """Lines that name a seed outlive releases of Python, so these figures stay."""
    assert [chance_of(0, 1).randrange(1000), chance_of(1, 0).randrange(1000)] == [
        193,
        743,
    ]


@each
def test_a_strategy_chooses_what_there_is(name: str) -> None:
    """Each index is in range, also for a single unit."""
    choose = STRATEGIES[name](chance_of(0, 0))
    for units in ([A], [A, B], [A, LIMIT], [TIMER, LIMIT], [A, B, C, TIMER, LIMIT]):
        for _ in range(20):
            assert 0 <= choose(units) < len(units)


def test_first_come_takes_the_oldest() -> None:
    """What asyncio does when everything outside is equally fast."""
    assert first_come([A, B, C]) == 0


def test_lazy_lets_the_same_chain_go_on_mostly() -> None:
    """Seven times of ten and when it is drawn by chance."""
    stayed = 0
    for index in range(50):
        choose = lazily(chance_of(0, index), stay=0.7)
        taken = [choose([A, B, C]) for _ in range(41)]
        stayed += sum(one == other for one, other in pairwise(taken))
    assert stayed / 2000 == pytest.approx(0.8, abs=0.05)


def test_priorities_stay_without_a_change() -> None:
    """With a depth of 1 one chain goes on until it has nothing left."""
    choose = with_priorities(chance_of(0, 0), 1, 10)
    assert len({choose([A, B, C]) for _ in range(20)}) == 1


def test_priorities_change_as_often_as_the_depth_says() -> None:
    """A depth of 3 means two changes at most within the horizon."""
    for index in range(50):
        choose = with_priorities(chance_of(0, index), 3, 20)
        taken = [choose([A, B, C]) for _ in range(40)]
        changes = sum(one != other for one, other in pairwise(taken))
        assert changes <= 2


def test_urw_makes_orders_equally_likely() -> None:
    """Of a chain of three events and one of one, each of the four orders comes."""
    seen: Counter[int] = Counter()
    for index in range(2000):
        choose = weighted(chance_of(0, index), {0: 3, 1: 1})
        place = next((n for n in range(3) if choose([A, B]) == 1), 3)
        seen[place] += 1
    assert sorted(seen) == [0, 1, 2, 3]
    assert max(seen.values()) < 1.3 * min(seen.values())


def test_what_nobody_waits_for_goes_by_its_name() -> None:
    """A unit without a task is a chain of its own name."""
    assert chain_of(A) == 0
    assert chain_of(Unit("timer", -1, "ticker", 0, 3)) == "ticker"


def test_a_strategy_becomes_fair_in_the_end() -> None:
    """After four times what was expected, and some, the oldest comes."""
    choose = fairly(lambda units: 1, 10)
    taken = [choose([A, B]) for _ in range(200)]
    assert taken == [1] * 104 + [0] * 96


def test_a_limit_runs_out_early_once_and_at_any_moment() -> None:
    """The moment is spread over the horizon; what chooses otherwise never sees it."""
    moments = set()
    for index in range(100):
        choose = with_early(first_come, chance_of(0, index), 10)
        taken = [choose([A, B, LIMIT]) for _ in range(10)]
        moments.add(taken.index(2))
    assert moments == set(range(10))


def test_a_due_limit_is_no_early_one() -> None:
    """A limit beside timers, with no operation pending, is an ordinary choice."""
    choose = with_early(lambda units: len(units) - 1, chance_of(0, 0), 10**6)
    assert choose([TIMER, LIMIT]) == 1
    assert choose([A, TIMER, LIMIT]) == 1


def test_the_sticky_order_lets_the_last_chain_go_on() -> None:
    """Choice 0 is that of the chain that was chosen last, else the oldest."""
    turns = Turns("sticky")
    assert turns.front([A, B, C]) == 0
    turns.took([A, B, C], 1)
    assert turns.front([A, C, B]) == 2
    assert turns.front([A, C]) == 0


def test_no_timer_comes_before_an_operation() -> None:
    """Else a loop that sleeps and looks would hold up everybody in the sticky order."""
    turns = Turns("sticky")
    turns.took([A, TIMER], 1)
    assert turns.front([A, TIMER]) == 0
    assert turns.front([LIMIT._replace(kind="timer"), TIMER]) == 1


def test_nothing_comes_before_what_is_ready() -> None:
    """In a burst, choice 0 is the loop's next round, whichever chain went on last."""
    turns = Turns("sticky")
    turns.took([A, B], 1)
    assert turns.front([Unit("step", 5, "task", 0, -2), B]) == 0


def test_a_limit_beside_what_is_ready_is_no_early_one() -> None:
    """Only an operation under way makes it early, so the schedule counts it."""
    step = Unit("step", 5, "task", 0, -2)
    plan = Plan(schedule=Schedule("burst"))
    outcome = Outcome(plan, None, choices=(Choice((step, LIMIT), 1, -1),))
    assert schedule_of(outcome, "oldest").deviations == ((0, 1),)


def test_no_limit_comes_before_anything() -> None:
    """In the sticky order a limit runs out only where the schedule says so."""
    turns = Turns("sticky")
    turns.took([A, C], 1)
    assert turns.front([A, B, LIMIT]) == 0


def test_patience_ends() -> None:
    """Who was passed over very often comes, whichever chain goes on."""
    turns = Turns("sticky")
    units = [A, B]
    taken = []
    for _ in range(PATIENCE + 2):
        index = 1 if not taken else turns.front(units)
        turns.took(units, index)
        taken.append(index)
    assert taken == [1] * (PATIENCE + 1) + [0]


def test_a_deviation_that_does_not_exist_is_ignored() -> None:
    """A line of yesterday is replayed as well as it goes."""
    choose = replaying(Schedule(deviations=((0, 5), (1, 1))))
    assert [choose([A, B]), choose([A, B])] == [0, 1]


@pytest.mark.parametrize("order", ["oldest", "sticky"])
@pytest.mark.parametrize("bug", planted.ALL)
def test_any_execution_is_repeated_from_its_schedule(bug, order) -> None:
    """Whoever chose: said anew in either order, the same events come."""
    toy = Toy(bug)
    for index in range(30):
        chance = chance_of(0, index)
        early = index % 2
        choose = any_of_them(chance)
        plan = Plan(schedule=Schedule(early=early))
        outcome = toy(plan, choose)
        again = toy(plan._replace(schedule=schedule_of(outcome, order)))
        assert again.digest == outcome.digest
        assert again.early == outcome.early
        assert toy(normalise(outcome)).digest == outcome.digest


def test_an_unused_budget_is_not_said() -> None:
    """What could have run out early and did not leaves no trace in the schedule."""
    toy = Toy(planted.leaked_permit)
    outcome = toy(Plan(schedule=Schedule(early=1)), first_come)
    assert any(choice.units[-1].kind == "deadline" for choice in outcome.choices)
    assert normalise(outcome) == Plan()


def test_a_plain_execution_is_measured() -> None:
    """How many choices there are, of which chains, and whether there are limits."""
    outcome = Toy(planted.leaked_permit)(Plan(schedule=Schedule(early=1)))
    measured = measure(outcome)
    assert measured.horizon == len(outcome.choices)
    assert sum(measured.events.values()) == measured.horizon
    assert measured.has_deadlines
    assert measured.orders == prod(len(choice.units) for choice in outcome.choices)
    assert not measure(Outcome(Plan(), None)).has_deadlines
