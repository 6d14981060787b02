"""Copies of a tree with one primitive changed: what is shared, fresh, refused."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_tta import Harness, MockPrimitive
from pytest_tta.mutation.rebuilding import CannotRebuild, Rebuilding, rebuild
from pytest_tta.mutation.stand_ins import ThroughPrimitive
from tta_primitives import (
    ConditionalPrimitive,
    MapPrimitive,
    RouterPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    step,
)
from tta_primitives.performance import CachePrimitive
from tta_primitives.primitive import positions
from tta_primitives.recovery import (
    CircuitBreakerPrimitive,
    CompensationPrimitive,
    FallbackPrimitive,
    HedgePrimitive,
    RetryPrimitive,
    SagaPrimitive,
    TimeoutPrimitive,
)


@step
async def load(text: str) -> str:
    """Return what was asked for."""
    return text


@step
async def other(text: str) -> str:
    """Return what was asked for, loudly."""
    return text.upper()


@step
async def undo(record: object) -> None:
    """Undo nothing."""


def put(leaf: WorkflowPrimitive[Any, Any]) -> Any:
    """Return the change that puts a primitive where another stood."""
    return lambda node, children: leaf


def paths(tree: WorkflowPrimitive[Any, Any]) -> list[str]:
    """Return the paths of a tree."""
    return [path for path, _ in positions(tree._as_operand())]


TREES = {
    "sequence": load >> load >> other,
    "parallel": load | other,
    "retry": RetryPrimitive(load, max_retries=2),
    "timeout": TimeoutPrimitive(load, timeout_seconds=1, fallback=other),
    "fallback": FallbackPrimitive(load, [other, "plain"]),
    "breaker": CircuitBreakerPrimitive(load),
    "cache": CachePrimitive(load, ttl=60),
    "hedge": HedgePrimitive(load, delay=1, max_hedges=2, alternatives=[other, load]),
    "map": MapPrimitive(load),
    "conditional": ConditionalPrimitive(bool, load, other),
    "router": RouterPrimitive({"a": load, "b": other}, str),
    "saga": SagaPrimitive([(load, undo), other]),
    "saga of one": SagaPrimitive(load >> other),
    "compensation": CompensationPrimitive(load, undo),
    "deep": RetryPrimitive(load >> (load | TimeoutPrimitive(other, timeout_seconds=1))),
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_is_copied_as_it_is(name: str) -> None:
    """Without a change the copy describes itself as the original does."""
    tree = TREES[name]
    assert Rebuilding().copy(tree).describe() == tree._as_operand().describe()


@pytest.mark.parametrize("name", TREES)
def test_any_position_can_be_changed(name: str) -> None:
    """Whatever stands at a path can be replaced, and the original stays as it was."""
    tree = TREES[name]._as_operand()
    before = tree.describe()
    leaf = next(p for p, node in positions(tree) if not node.children())
    changed = rebuild(tree, leaf, put(MockPrimitive("new", return_value="new")))
    assert "new" in str(paths(changed))
    assert tree.describe() == before


def test_the_copy_runs_what_was_put_in() -> None:
    """The new primitive is executed, not only described."""
    tree = RetryPrimitive(load) >> other
    new = MockPrimitive("load", return_value="new")
    with Harness() as tta:
        path = next(p for p in paths(tree) if p.endswith("retry/load"))
        changed = rebuild(tree, path, put(new))
        assert tta.run(changed, "old") == "NEW"


def test_what_is_shared_stays_shared() -> None:
    """A breaker in two places is one breaker in the copy too."""
    breaker = CircuitBreakerPrimitive(load)
    copied = Rebuilding().copy(breaker | breaker)
    one, two = copied.children()
    assert one is two
    assert one is not breaker


def test_a_copy_begins_without_a_state() -> None:
    """A breaker that has opened is closed in the copy; the original stays open."""
    failing = MockPrimitive("llm", side_effect=ConnectionError("down"))
    breaker = CircuitBreakerPrimitive(failing, failure_threshold=1)
    with Harness() as tta:
        with pytest.raises(ConnectionError, match="down"):
            tta.run(breaker, "x")
        copies = Rebuilding()
        copied: Any = copies.copy(breaker)
        assert copied.state == "closed"
        copies.restore()
        assert breaker.state == "open"


def test_the_original_shows_the_state_of_its_copy() -> None:
    """A test that looks at the breaker it has built sees what the copy has done."""
    failing = MockPrimitive("llm", side_effect=ConnectionError("down"))
    breaker = CircuitBreakerPrimitive(failing, failure_threshold=1)
    copies = Rebuilding()
    copied = copies.copy(breaker)
    with Harness() as tta, pytest.raises(ConnectionError, match="down"):
        tta.run(copied, "x")
    assert breaker.state == "open"
    copies.restore()
    assert breaker.state == "closed"


class Pair(WorkflowPrimitive[str, str]):
    """A user's own primitive, with its children in a dict."""

    def __init__(self, **parts: WorkflowPrimitive[Any, Any]) -> None:
        self.parts = parts

    async def execute(self, input_data: str, context: WorkflowContext, /) -> str:
        """Execute the first."""
        first = next(iter(self.parts.values()))
        return await first.execute(input_data, context)


class Hidden(Pair):
    """A user's own primitive that keeps a child where nobody finds it."""

    def __init__(self, inner: WorkflowPrimitive[Any, Any]) -> None:
        super().__init__(inner=inner)
        self.run = [[("first", inner)]]


class Computed(WorkflowPrimitive[str, str]):
    """A user's own primitive that makes its children when it is asked."""

    def __init__(self, inner: WorkflowPrimitive[Any, Any]) -> None:
        self.make = lambda: (inner,)

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return what a function returns."""
        return self.make()


def test_a_users_own_primitive_is_copied() -> None:
    """Children in attributes, lists and dicts are replaced."""
    copied = rebuild(Pair(a=load, b=other), "pair/load", put(other))
    assert [one.name for one in copied.children()] == ["other", "other"]


def test_children_deeper_down_are_replaced_too() -> None:
    """A list of lists is still a plain place."""
    copied: Any = rebuild(Hidden(load), "hidden/load", put(other))
    assert copied.run == [[("first", other)]]


def test_what_cannot_be_copied_is_named() -> None:
    """Where it is unknown how children are kept, that is said and nothing guessed."""
    with pytest.raises(CannotRebuild, match="Computed 'computed' keeps its children"):
        rebuild(Computed(load), "computed/load", put(other))


def test_a_path_that_is_not_there_is_an_error() -> None:
    """No change is no mutant."""
    with pytest.raises(LookupError, match="there is no 'x/y' in 'load'"):
        rebuild(load, "x/y", put(other))


def test_what_was_taken_out_leaves_its_name() -> None:
    """Paths below a stand-in are what they were."""
    retry = RetryPrimitive(load)
    through = rebuild(
        retry, "retry", lambda node, below: ThroughPrimitive(below[0], node.name)
    )
    assert paths(through) == paths(retry)
