"""Strategies that choose which event of the outside comes next.

Each is made anew for one execution. What is random in it comes from a generator that it
is given, and that `chance_of` seeds from a seed and the number of the execution, never
from a worker or the time.
"""

from __future__ import annotations

import random
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from pytest_tta.clock.choices import first_come
from pytest_tta.explore.orders import Turns, to_index, without_deadlines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_tta.clock.choices import Chooser, Unit
    from pytest_tta.explore.outcome import Outcome
    from pytest_tta.explore.plan import Schedule

__all__ = [
    "Measure",
    "any_of_them",
    "chain_of",
    "chance_of",
    "fairly",
    "first_come",
    "lazily",
    "measure",
    "replaying",
    "weighted",
    "with_early",
    "with_priorities",
]

STAY = (
    0.7  # How likely the same chain goes on. A coin finds starvation ten times later.
)


def chance_of(seed: int, index: int) -> random.Random:
    """Return the generator of one execution: the same wherever it runs.

    Args:
        seed: Of the search.
        index: Which execution of it.
    """
    # A text is hashed with SHA-512, which no hash seed and no release changes.
    return random.Random(f"{seed}:{index}")  # noqa: S311 - repeatable on purpose


def chain_of(unit: Unit) -> object:
    """Return what a unit belongs to: the task that waits for it, or else its name.

    Args:
        unit: The unit.
    """
    return unit.chain if unit.chain >= 0 else unit.label


class Measure(NamedTuple):
    """What one plain execution tells about how long others will be.

    Attributes:
        horizon: How many choices there were.
        events: How many of them each chain had.
        has_deadlines: Whether a limit could have run out early.
        orders: How many orders there were, if others had the same choices.
    """

    horizon: int
    events: Mapping[object, int]
    has_deadlines: bool
    orders: int


def measure(outcome: Outcome) -> Measure:
    """Measure a plain execution.

    Args:
        outcome: Of that execution.
    """
    events: dict[object, int] = {}
    has_deadlines = False
    for choice in outcome.choices:
        chain = chain_of(choice.units[choice.taken])
        events[chain] = events.get(chain, 0) + 1
        if len(without_deadlines(choice.units)) < len(choice.units):
            has_deadlines = True
    orders = prod(len(choice.units) for choice in outcome.choices)
    return Measure(len(outcome.choices), events, has_deadlines, orders)


def replaying(schedule: Schedule) -> Chooser:
    """Choose as a schedule says: choice 0 of its order where it does not deviate.

    A deviation to an index that does not exist is ignored: the program has changed.

    Args:
        schedule: The schedule.
    """
    turns = Turns(schedule.order)
    deviations = dict(schedule.deviations)
    point = -1

    def choose(units: Sequence[Unit]) -> int:
        nonlocal point
        point += 1
        place = deviations.get(point, 0)
        if place >= len(units):
            place = 0
        index = to_index(place, turns.front(units))
        turns.took(units, index)
        return index

    return choose


def any_of_them(chance: random.Random) -> Chooser:
    """Choose any unit, each as likely as the others.

    Args:
        chance: What decides.
    """
    return lambda units: int(chance.random() * len(units))


def lazily(chance: random.Random, stay: float = STAY) -> Chooser:
    """Let the chain go on that went on last, mostly; else choose any unit.

    Args:
        chance: What decides.
        stay: How likely it goes on, from 0 to 1.
    """
    turns = Turns("sticky")

    def choose(units: Sequence[Unit]) -> int:
        if chance.random() < stay:
            index = turns.front(units)
        else:
            index = int(chance.random() * len(units))
        turns.took(units, index)
        return index

    return choose


def with_priorities(chance: random.Random, depth: int, horizon: int) -> Chooser:
    """Choose what belongs to the chain of the highest priority, as PCT does.

    Chains get random priorities. At `depth - 1` choices, at random within the horizon,
    the chain that would go on gets the lowest of all instead. A bug that needs `depth`
    events in one order is found with a likelihood of at least
    1 / (chains * horizon ** (depth - 1)) (Burckhardt et al., ASPLOS 2010).

    Args:
        chance: What decides.
        depth: How many events have to come in order.
        horizon: How many choices there will be, more or less.
    """
    priorities: dict[object, float] = {}
    changes = sorted(int(chance.random() * max(horizon, 1)) for _ in range(depth - 1))
    point = -1
    lowest = 0.0

    def priority(unit: Unit) -> float:
        chain = chain_of(unit)
        if chain not in priorities:
            priorities[chain] = chance.random()
        return priorities[chain]

    def choose(units: Sequence[Unit]) -> int:
        nonlocal point, lowest
        point += 1
        found = [priority(unit) for unit in units]
        best = found.index(max(found))
        while changes and changes[0] <= point:
            changes.pop(0)
            lowest -= 1.0
            chain = chain_of(units[best])
            priorities[chain] = lowest
            found = [priority(unit) for unit in units]
            best = found.index(max(found))
        return best

    return choose


def weighted(chance: random.Random, events: Mapping[object, int]) -> Chooser:
    """Choose a chain the more likely, the more it has still before it (URW).

    If the counts are right, each order of events is about as likely as every other;
    with any unit alike, those in which a long chain comes last are more likely.

    Args:
        chance: What decides.
        events: How many choices each chain had in an execution before.
    """
    left = dict(events)

    def choose(units: Sequence[Unit]) -> int:
        weights = [max(left.get(chain_of(unit), 1), 1) for unit in units]
        at = chance.random() * sum(weights)
        index = 0
        while at >= weights[index] and index < len(units) - 1:
            at -= weights[index]
            index += 1
        chain = chain_of(units[index])
        left[chain] = left.get(chain, 1) - 1
        return index

    return choose


def fairly(choose: Chooser, horizon: int) -> Chooser:
    """Choose the oldest once there were many more choices than expected.

    A loop that asks until another task has done something would otherwise never end in
    an execution where that task is never chosen.

    Args:
        choose: The strategy until then.
        horizon: How many choices were expected.
    """
    left = 4 * horizon + 64

    def choose_until(units: Sequence[Unit]) -> int:
        nonlocal left
        left -= 1
        return choose(units) if left >= 0 else 0

    return choose_until


def with_early(choose: Chooser, chance: random.Random, horizon: int) -> Chooser:
    """Let one limit run out early, at a random moment, and leave the rest to another.

    If it were a choice among others at every moment, it would nearly always come at one
    of the first.

    Args:
        choose: What chooses otherwise, and never sees such a limit.
        chance: What decides.
        horizon: Within how many choices.
    """
    wait = int(chance.random() * max(horizon, 1))

    def choose_or_end(units: Sequence[Unit]) -> int:
        nonlocal wait
        fair = without_deadlines(units)
        wait -= 1
        if wait < 0 and len(fair) < len(units):
            return len(fair) + int(chance.random() * (len(units) - len(fair)))
        return choose(fair) if len(fair) > 1 else 0

    return choose_or_end
