"""What runs keeps its attributes where CPython finds them at once, however it was made.

An object whose `__dict__` was asked for, or whose class was changed, is slower to call
ever after. That changes no result, so only these tests notice.
"""

from __future__ import annotations

import gc
import sys

import pytest

from tests.core.tools import Tag
from tta_primitives import (
    ParallelPrimitive,
    SequentialPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    step,
)
from tta_primitives.primitive import StepPrimitive, positions
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive


async def plain(number):
    return number


async def with_session(number, session):
    return number, session


def double():
    """A step of its own: one that has been copied was asked for its `__dict__`."""
    return step(plain)


def query():
    """A step that lacks its session."""
    return step(with_session)


def is_quick(primitive):
    """Tell whether a primitive has no `__dict__` yet, without asking for it."""
    # The collector is shown the dict if there is one, else the attributes themselves.
    return not any(
        isinstance(found, dict) and "idempotent" in found
        for found in gc.get_referents(primitive)
    )


def slow():
    """A primitive whose `__dict__` was asked for."""
    found = TimeoutPrimitive(plain, timeout_seconds=1)
    assert "idempotent" in vars(found)
    return found


BUILT = {
    "steps": lambda: double() >> plain >> (lambda number: number),
    "steps with extras": lambda: query()(session=1) >> query()(2),
    "steps of other kinds": lambda: (
        StepPrimitive(function=plain, timeout_seconds=1)
        >> step(print, blocking=True)
        >> (lambda number, context: number)
    ),
    "wrappers": lambda: FallbackPrimitive(
        RetryPrimitive(TimeoutPrimitive(plain, timeout_seconds=1)), [plain]
    ),
    "open wrappers": lambda: (
        RetryPrimitive() >> TimeoutPrimitive(timeout_seconds=1) >> plain >> double()
    ),
    "open wrappers at the end": lambda: double() >> Tag("a") >> Tag("b"),
    "open wrappers around a chain": lambda: Tag("a") >> (double() >> double()),
    "one link": lambda: RetryPrimitive() >> double(),
    "one link, listed": lambda: SequentialPrimitive([double()]),
    "one link, extended": lambda: SequentialPrimitive(double()) >> double(),
    "a chain in a chain": lambda: SequentialPrimitive(double() >> double()),
    "names": lambda: (
        (double().named("a") >> (double() >> double()).named("b"))
        | RetryPrimitive(double()).named("c")
        | SequentialPrimitive(double()).named("d")
    ),
    "branches": lambda: (double() | plain) | double(),
    "branches, named": lambda: ParallelPrimitive(double(), plain).named("both"),
}


@pytest.mark.parametrize("name", BUILT)
def test_what_is_built_is_quick(name) -> None:
    """By operators, by constructors, by binding and by naming."""
    built = BUILT[name]()
    slow_ones = [path for path, one in positions(built) if not is_quick(one)]
    assert slow_ones == []


async def test_to_run_or_to_describe_a_workflow_leaves_it_quick() -> None:
    """Nobody asks our own primitives for their `__dict__`."""
    workflow = RetryPrimitive(double()) >> (double() | plain) >> str
    await workflow.execute(1, WorkflowContext())
    workflow.describe()
    assert repr(workflow)
    assert all(is_quick(one) for _, one in positions(workflow))


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="there a dict slows nothing")
def test_a_slow_one_is_seen() -> None:
    """The tests above can fail."""
    assert not is_quick(slow())


def test_the_copy_of_a_slow_one_is_quick() -> None:
    """It gets its attributes one by one."""
    assert is_quick(slow().named("other"))
    assert is_quick(double().named("other"))


@pytest.mark.parametrize(
    "open_one",
    [
        RetryPrimitive,
        lambda: FallbackPrimitive(fallbacks=["none"]),
        lambda: TimeoutPrimitive(timeout_seconds=1),
        lambda: Tag("a"),
    ],
    ids=["retry", "fallback", "timeout", "other"],
)
def test_many_open_wrappers_take_no_room_from_bound_ones(open_one) -> None:
    """What wrappers get when they are bound has its place from the beginning."""
    unbound = [open_one() for _ in range(100)]
    bound = unbound[-1].bind(plain).named("other")
    assert is_quick(bound)


class Slotted(WorkflowPrimitive):
    """A primitive with an attribute that is not in its `__dict__`."""

    __slots__ = ("hidden",)

    def __init__(self):
        self.hidden = [1]


class Careful(WorkflowPrimitive):
    """A primitive that says what its copies get."""

    def __init__(self):
        self.lock = object()

    def __getstate__(self):
        return {"lock": None}


class Own(WorkflowPrimitive):
    """A primitive that copies itself."""

    def __copy__(self):
        twin = type(self)()
        twin.is_copy = True
        return twin


def test_copies_are_made_as_a_class_wants_them() -> None:
    """Slots are copied as well, and a class with a way of its own is asked."""
    slotted = Slotted()
    twin = slotted.named("twin")
    assert (twin.hidden, twin.hidden is slotted.hidden) == ([1], True)
    assert Careful().named("twin").lock is None
    assert Own().named("twin").is_copy
    assert [one.name for one in (twin, Own().named("other"))] == ["twin", "other"]


def test_a_users_kind_of_step_is_a_step() -> None:
    """A subclass with a constructor of its own can be made."""

    class Greeting(StepPrimitive):
        def __init__(self, greeting):
            super().__init__(lambda name: f"{greeting}, {name}", name="greeting")

    assert Greeting("Hello").name == "greeting"
    assert Greeting("Hello").describe()["type"] == "StepPrimitive"


async def test_a_users_kind_of_step_runs() -> None:
    """It is called as the function that it was given wants to be called."""

    class Doubled(StepPrimitive):
        def __init__(self):
            super().__init__(plain, name="doubled")

    assert await Doubled().execute(3, WorkflowContext()) == 3
