"""Objects get back the state that they had at a mark."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_tta.rewinding import Mark


class Box:
    """Holds whatever it is given."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


class Slotted:
    """Holds two things in slots."""

    __slots__ = ("first", "second")

    def __init__(self, first: object) -> None:
        self.first = first


@dataclass(frozen=True, slots=True)
class Frozen:
    """Holds something that can change, and cannot change itself."""

    held: list[int]


def everything(_: type) -> bool:
    """Look into every class."""
    return True


def only_boxes(kind: type) -> bool:
    """Look into boxes alone."""
    return kind is Box


@pytest.mark.parametrize(
    "full",
    [
        [1],
        {1: 2},
        {1},
        deque([1]),
        Counter("ab"),
        OrderedDict(a=1, b=2),
    ],
)
def test_containers_get_back_what_they_held(full: Any) -> None:
    """Each of them is the same object with the same content, in the same order."""
    before = full.copy()
    box = Box(held=full)
    mark = Mark([box], everything)
    full.clear()
    mark.restore()
    assert box.held is full
    assert full == before
    assert list(full) == list(before)


def test_a_mark_restores_again_and_again() -> None:
    """What happens between two restorations does not get into the mark."""
    box = Box(calls=["before"])
    mark = Mark([box], everything)
    for _ in range(3):
        box.calls.append("x")
        mark.restore()
        assert box.calls == ["before"]


def test_attributes_are_set_back_and_new_ones_are_gone() -> None:
    """An object has the attributes that it had, and no others."""
    box = Box(count=1)
    mark = Mark([box], everything)
    box.count, box.more = 2, 3
    mark.restore()
    assert vars(box) == {"count": 1}


def test_what_objects_hold_is_restored_too() -> None:
    """Through attributes, slots, tuples, and what is frozen itself."""
    inner = Box(count=1)
    slotted = Slotted(inner)
    frozen = Frozen([1])
    mark = Mark([Box(held=(slotted, frozen))], everything)
    inner.count = 2
    slotted.first = None
    frozen.held.append(2)
    mark.restore()
    assert slotted.first is inner
    assert inner.count == 1
    assert frozen.held == [1]


def test_circles_are_no_matter() -> None:
    """An object that holds itself is kept once."""
    box = Box(count=1)
    box.me = box
    mark = Mark([box, None], everything)
    box.count = 2
    mark.restore()
    assert box.count == 1
    assert box.me is box


def test_classes_that_are_not_asked_for_are_left_alone() -> None:
    """Their objects are kept as they are, whatever becomes of them."""
    slotted = Slotted(1)
    box = Box(held=slotted)
    mark = Mark([box], only_boxes)
    slotted.first, box.held = 2, None
    mark.restore()
    assert box.held is slotted
    assert slotted.first == 2
