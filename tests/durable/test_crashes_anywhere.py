"""A run may die at any moment: its outcome is the same, and no step is done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_tta.clock.clock import VirtualClock
from tta_primitives import MapPrimitive, ParallelPrimitive, WorkflowContext, step
from tta_primitives.durable import MemoryJournal, SimulatedCrash, run_durably
from tta_primitives.recovery import (
    CompensationPrimitive,
    FallbackPrimitive,
    RetryPrimitive,
    SagaPrimitive,
    TimeoutPrimitive,
)

KINDS = ("ok", "flaky", "bad", "slow")
LEAVES = st.tuples(st.just("leaf"), st.sampled_from(KINDS), st.integers(0, 3))


def trees(children):
    """Return strategies for what stands above other trees."""
    several = st.lists(children, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.just("chain"), several),
        st.tuples(st.just("parallel"), several),
        st.tuples(st.just("fallback"), children, children),
        *(
            st.tuples(st.just(kind), children)
            for kind in ("retry", "timeout", "map", "saga", "undoable")
        ),
    )


TREES = st.recursive(LEAVES, trees, max_leaves=6)


def greatest(outputs):
    """Return the greatest of several outputs, as a step of a workflow."""
    return max(outputs)


class World:
    """Builds the workflow of a tree, and notes what its steps do outside of it."""

    def __init__(self):
        self.log = []
        self._numbers = count()

    def build(self, tree):
        """Return a new workflow; two of one tree have the same names."""
        self._numbers = count()
        return self._build(tree)

    def _build(self, tree):
        kind, *parts = tree
        if kind == "leaf":
            return self._leaf(*parts)
        if kind in {"chain", "parallel"}:
            below = [self._build(part) for part in parts[0]]
            if kind == "parallel":
                return ParallelPrimitive(*below) >> greatest
            chain = below[0]
            for following in below[1:]:
                chain = chain >> following
            return chain
        if kind == "fallback":
            first, second = map(self._build, parts)
            return FallbackPrimitive(first, fallbacks=[second])
        return self._wrapped(kind, self._build(parts[0]))

    def _wrapped(self, kind, inner):
        if kind == "retry":
            return RetryPrimitive(inner, max_retries=2, retry_nested=True)
        if kind == "timeout":
            return TimeoutPrimitive(inner, timeout_seconds=20.0)
        if kind == "map":
            mapped = MapPrimitive(inner, max_concurrency=2)
            return (lambda x: [x, x + 1]) >> mapped >> greatest
        if kind == "saga":
            return SagaPrimitive(inner)
        undo = self._leaf("undo", 0)
        return CompensationPrimitive(inner, undo >> (lambda _: None))

    def _leaf(self, kind, takes):
        name = f"{kind}{next(self._numbers)}"
        seen = Counter()

        @step(name=name)
        async def body(value, context):
            self.log.append(name)
            seen[context.idempotency_key] += 1
            await asyncio.sleep(1000 if kind == "slow" else takes)
            if kind == "bad" or (kind == "flaky" and seen.total() == 1):
                raise ConnectionError(name)
            return 0 if kind == "undo" else value + 1

        return body

    def attempt(self, tree, journal):
        """Execute a run of the tree, and return its outcome; a word if it raised."""

        async def run():
            context = WorkflowContext("c", idempotency_key="k")
            context.run_id = "r"
            try:
                return await run_durably(self.build(tree), 1, context, journal=journal)
            except Exception:
                # Which of several that fail at one time comes first may change.
                return "failed"

        return VirtualClock().run(run())


def recorded_steps(journal):
    """Count the executions of each leaf that a journal has a record of."""
    names = (key.rpartition("/")[2].partition("@")[0] for key in journal.records)
    return Counter(name for name in names if name[-1].isdigit())


@settings(max_examples=30, deadline=None)
@given(tree=TREES)
def test_a_run_may_die_at_any_moment(tree):
    """No step whose record was kept is executed again, wherever the process dies."""
    check_every_moment(tree)


@pytest.mark.long
@settings(max_examples=1500, deadline=None)
@given(tree=TREES)
def test_many_runs_may_die_at_any_moment(tree):
    """The same with many more workflows."""
    check_every_moment(tree)


def is_steady(tree):
    """Tell whether the same steps are executed however long a resume takes.

    One that was interrupted at its first failure may succeed now; and what is replayed
    takes no time, so that what runs beside it may come further before a limit is up.
    """
    words = repr(tree)
    is_wide = "parallel" in words or "map" in words
    is_timed = any(word in words for word in ("retry", "timeout", "slow"))
    return "flaky" not in words and not (is_wide and is_timed)


def check_every_moment(tree):
    """Let runs of a workflow die at each moment, and look at what a resume does."""
    plain, complete = World(), MemoryJournal()
    expected = plain.attempt(tree, complete)
    usual = Counter(plain.log)
    for moment in range(1, complete.moments + 1):
        world, journal = World(), MemoryJournal(crash_at=moment)
        with pytest.raises(SimulatedCrash, match=f"moment {moment},"):
            world.attempt(tree, journal)
        recorded = recorded_steps(journal)
        journal.crash_at = None
        world.log.clear()
        outcome = world.attempt(tree, journal)
        if is_steady(tree):
            assert outcome == expected
            for name, times in Counter(world.log).items():
                assert times <= usual[name] - recorded[name], (moment, name)
        # Whatever came of it is what comes of it from now on, and costs nothing.
        world.log.clear()
        assert world.attempt(tree, journal) == outcome
        assert not world.log
